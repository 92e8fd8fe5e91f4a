'use strict';

/*
 * Zoom: enlarges the large pictures, down to single pixels of the image, and moves what is seen of them; with two runs,
 * both alike. A picture is a frame, which keeps its size, and a stage inside, which grows.
 */
const zoom = (() => {
  const STEP = 1.5;
  const MOST = 16; // screen pixels of a pixel of the image
  const SHARP = 2; // from here on, pixels of the image have edges
  const DRAG = 4; // screen pixels that the pointer moves at least, so that it is no click
  const output = dom.find('zoom').querySelector('output');
  let pictures = [];
  let size = [1, 1]; // of the image
  let view = whole();

  /** The whole image: the scale, and the place in the middle of the frame as a share of width and height. */
  function whole() {
    return { scale: 1, x: 0.5, y: 0.5 };
  }

  /** Show the whole of an image of this size. */
  function reset(given) {
    [size, view] = [given, whole()];
  }

  /** Zoom these pictures (see picture.js). */
  function watch(given) {
    pictures = given;
    pictures.forEach(listen);
    apply();
  }

  /** Zoom by steps, in or out; 0 shows the whole image. `at` is the share of the frame that stays where it is. */
  function by(steps, at = { x: 0.5, y: 0.5 }) {
    if (!pictures.length) return;
    const most = Math.max(1, MOST * size[0] / pictures[0].frame.clientWidth);
    const scale = steps ? Math.min(Math.max(view.scale * STEP ** steps, 1), most) : 1;
    const shift = (share) => (share - 0.5) / view.scale - (share - 0.5) / scale;
    view = { scale, x: view.x + shift(at.x), y: view.y + shift(at.y) };
    apply();
  }

  /** Move the view so that an image point is in it. */
  function reveal({ x, y }) {
    const half = 0.5 / view.scale;
    const near = (middle, share) => Math.min(Math.max(middle, share - 0.9 * half), share + 0.9 * half);
    view = { ...view, x: near(view.x, x / size[0]), y: near(view.y, y / size[1]) };
    apply();
  }

  function apply() {
    const half = 0.5 / view.scale;
    const inside = (share) => Math.min(Math.max(share, half), 1 - half);
    view = { ...view, x: inside(view.x), y: inside(view.y) };
    pictures.forEach(({ frame, stage }) => {
      stage.style.width = stage.style.height = `${100 * view.scale}%`;
      stage.style.left = `${100 * (0.5 - view.x * view.scale)}%`;
      stage.style.top = `${100 * (0.5 - view.y * view.scale)}%`;
      frame.classList.toggle('zoomed', view.scale > 1);
      stage.classList.toggle('sharp', view.scale * frame.clientWidth / size[0] >= SHARP);
    });
    boxLabels.place();
    output.textContent = `${view.scale.toFixed(1)} ×`;
  }

  /** The share of the frame at which the pointer is. */
  function shareOf({ clientX, clientY }, frame) {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  }

  function listen({ frame }) {
    let from = null; // where the pointer was pressed, and the view then; null if it is not
    let isDragged = false;
    frame.addEventListener('wheel', (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
      event.preventDefault();
      by(-Math.sign(event.deltaY), shareOf(event, frame));
    }, { passive: false });
    frame.addEventListener('pointerdown', (event) => {
      isDragged = false;
      if (view.scale > 1 && event.button === 0) from = { view, at: shareOf(event, frame), event };
    });
    frame.addEventListener('pointermove', (event) => {
      if (!from) return;
      isDragged = isDragged
        || Math.hypot(event.clientX - from.event.clientX, event.clientY - from.event.clientY) >= DRAG;
      if (!isDragged) return;
      if (event.isTrusted) frame.setPointerCapture(event.pointerId);
      const to = shareOf(event, frame);
      view = {
        ...from.view,
        x: from.view.x - (to.x - from.at.x) / view.scale,
        y: from.view.y - (to.y - from.at.y) / view.scale,
      };
      apply();
    });
    ['pointerup', 'pointercancel'].forEach((kind) => frame.addEventListener(kind, () => { from = null; }));
    frame.addEventListener('click', (event) => { if (isDragged) event.stopImmediatePropagation(); }, true);
    frame.addEventListener('dragstart', (event) => event.preventDefault());
  }

  /** Image pixels of a step of the mark: single ones where they can be seen. */
  const markStep = () => (view.scale > 1 ? 1 : 10);

  return { by, markStep, reset, reveal, watch };
})();
