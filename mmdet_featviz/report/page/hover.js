'use strict';

/* Hover: the box under the pointer shows its label, also if labels are switched off; of several, the smallest. */
const hover = (() => {
  /** The smallest of these boxes that contains a point on the screen, undefined if none does. */
  function boxAt(boxes, { clientX, clientY }) {
    return boxes
      .map((box) => ({ box, place: box.getBoundingClientRect() })) // empty if the box is hidden
      .filter(({ place: { left, right, top, bottom } }) =>
        clientX >= left && clientX < right && clientY >= top && clientY < bottom)
      .sort((a, b) => a.place.width * a.place.height - b.place.width * b.place.height)
      .map(({ box }) => box)[0];
  }

  /** Mark the box of a large picture that is under the pointer. */
  function connect({ frame, boxes }) {
    const mark = (hit) => boxes.forEach((box) => box.classList.toggle('hovered', box === hit));
    ['pointermove', 'pointerdown'].forEach((kind) =>
      frame.addEventListener(kind, (event) => mark(boxAt(boxes, event))));
    frame.addEventListener('pointerleave', () => mark(undefined));
  }

  return { boxAt, connect };
})();
