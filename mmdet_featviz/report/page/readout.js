'use strict';

/*
 * Readout: a mark at a point of the image, and the values there as text. The pointer sets the mark, and so do keys
 * through move().
 */
const readout = (() => {
  const STEP = 10; // image pixels that move() moves by
  const output = dom.find('value').firstElementChild;
  let size = null; // of the image, [width, height]
  let mark = null; // {x, y} in image pixels
  let pictures = []; // large pictures to read values from

  /** Forget the mark: an image of this size follows, or none if null. */
  function reset(given) {
    [size, mark] = [given, null];
  }

  /** Read values from these pictures (see picture.js), of the image given to reset(). The mark stays. */
  function watch(given) {
    pictures = given;
    pictures.forEach(listen);
  }

  function listen({ frame, letter }) {
    frame.tabIndex = 0;
    frame.setAttribute('role', 'group');
    frame.setAttribute('aria-label', `Picture${letter && ` ${letter}`}: Shift and arrows read values`);
    const point = (event) => {
      const { left, top, width, height } = frame.getBoundingClientRect();
      mark = { x: (event.clientX - left) / width * size[0], y: (event.clientY - top) / height * size[1] };
      show();
    };
    frame.addEventListener('pointermove', point);
    frame.addEventListener('pointerdown', point);
  }

  /** Draw the mark into the pictures and write the values; nothing without a mark. */
  function show() {
    document.querySelectorAll('.mark').forEach((dot) => dot.remove());
    output.textContent = '';
    if (!mark || !pictures.length) return;
    const words = pictures.filter(({ level }) => level && level.values).map(({ frame, letter, level }) => {
      const dot = dom.element('div', 'mark');
      dot.style.left = `${mark.x / size[0] * 100}%`;
      dot.style.top = `${mark.y / size[1] * 100}%`;
      frame.append(dot);
      return `${letter && `${letter}: `}${level.name} ${textOf(heat.valueAt(level, mark.x, mark.y))}`;
    });
    output.textContent = `x ${Math.floor(mark.x)} px, y ${Math.floor(mark.y)} px: ${words.join('; ')}`;
  }

  function textOf(value) {
    if (value === null) return 'not seen by the network';
    return Number.isNaN(value) ? 'not finite' : dom.short(value);
  }

  /** Move the mark by steps (-1, 0, 1) across and down, from the middle of the image if there is no mark yet. */
  function move(across, down) {
    const [width, height] = size;
    const from = mark || { x: width / 2, y: height / 2 };
    const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
    mark = { x: inside(from.x + across * STEP, width), y: inside(from.y + down * STEP, height) };
    show();
  }

  return { move, reset, show, watch };
})();
