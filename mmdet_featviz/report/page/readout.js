'use strict';

/*
 * Readout: a mark at a point of the image, and the values there as text. The pointer sets the mark, and so do keys
 * through move(). A click, or Enter, lists the values of all levels there.
 */
const readout = (() => {
  const output = dom.find('value').firstElementChild;
  const listing = dom.find('values');
  let size = null; // of the image, [width, height]
  let mark = null; // {x, y} in image pixels
  let pictures = []; // large pictures to read values from
  let levels = []; // of the image, see matches.js
  let isListed = false; // whether the values of all levels are
  let onList = () => {};

  /** Begin. `given` is called with a mark, {x, y}, when the values of all levels there are asked for. */
  function start(given) {
    onList = given;
  }

  /** Forget the mark: an image of this size follows, or none if null. */
  function reset(given) {
    [size, mark, isListed] = [given, null, false];
  }

  /**
   * Read values from these pictures (see picture.js), of the image given to reset(). The mark stays.
   *
   * @param given - the pictures
   * @param matchesOfLevels - all levels of the image, see matches.js
   */
  function watch(given, matchesOfLevels) {
    [pictures, levels] = [given, matchesOfLevels];
    pictures.forEach(listen);
  }

  function listen({ frame, stage, letter }) {
    frame.tabIndex = 0;
    frame.setAttribute('role', 'group');
    frame.setAttribute('aria-label', `Picture${letter && ` ${letter}`}: Shift and arrows read values, Enter those of all levels`);
    const point = (event) => {
      const { left, top, width, height } = stage.getBoundingClientRect();
      mark = { x: (event.clientX - left) / width * size[0], y: (event.clientY - top) / height * size[1] };
      show();
    };
    frame.addEventListener('pointermove', point);
    frame.addEventListener('pointerdown', point);
    frame.addEventListener('click', list);
    frame.addEventListener('keydown', ({ key }) => { if (key === 'Enter') list(); });
  }

  /** List the values of all levels at the mark. */
  function list() {
    isListed = mark !== null;
    show();
    if (isListed) onList(mark);
  }

  /** The values of all levels at the mark, as a table. */
  function fillTable() {
    listing.hidden = !isListed || !mark || !pictures.length;
    if (listing.hidden) return;
    const [first] = levels;
    const heads = first && first.length > 1 ? ['', ...first.map((_, number) => dom.letter(number))] : [];
    const table = tables.make(`Values of all levels at ${placeText()}`, heads, levels.map((match) =>
      [match[0].name, ...match.map((level) => (level ? valueText(level) : '–'))]));
    listing.replaceChildren(table);
  }

  /** The value of a level at the mark. */
  function valueText(level) {
    heat.decode(level);
    return textOf(heat.valueAt(level, mark.x, mark.y));
  }

  const placeText = () => `x ${Math.floor(mark.x)} px, y ${Math.floor(mark.y)} px`;

  /** Draw the mark into the pictures and write the values; nothing without a mark. */
  function show() {
    document.querySelectorAll('.mark').forEach((dot) => dot.remove());
    output.textContent = '';
    fillTable();
    if (!mark || !pictures.length) return;
    pictures.forEach(({ stage, level, isDifference }) => {
      if (!isDifference && !(level && level.values)) return;
      const dot = dom.element('div', 'mark');
      dot.style.left = `${mark.x / size[0] * 100}%`;
      dot.style.top = `${mark.y / size[1] * 100}%`;
      stage.append(dot);
    });
    const words = pictures.filter(({ level }) => level && level.values)
      .map(({ letter, level }) => `${letter && `${letter}: `}${level.name} ${valueText(level)}`);
    output.textContent = `${placeText()}: ${words.join('; ')}`;
  }

  function textOf(value) {
    if (value === null) return 'not seen by the network';
    return Number.isNaN(value) ? 'not finite' : dom.short(value);
  }

  /** Move the mark by image pixels, from the middle of the image if there is no mark yet. Returns it. */
  function move(across, down) {
    const [width, height] = size;
    const from = mark || { x: width / 2, y: height / 2 };
    const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
    mark = { x: inside(from.x + across, width), y: inside(from.y + down, height) };
    show();
    return mark;
  }

  return { move, reset, show, start, watch };
})();
