'use strict';

/*
 * Box labels: places the labels and letters of the outlines on view in large pictures, see label_places.js. Those of the
 * highest scores choose first. Where there is no place for a label with its score it is only the class, or nothing until
 * the pointer is on the box.
 */
const boxLabels = (() => {
  const sizes = new WeakMap(); // outline: [width, height] of its label with the score, and without
  const observer = new ResizeObserver(place);
  let pictures = []; // large ones, see picture.js
  let isAwaited = false; // whether the labels are placed before the next frame

  /** These are the pictures of now. */
  function watch(given) {
    observer.disconnect();
    pictures = given;
    pictures.forEach(({ frame }) => observer.observe(frame));
  }

  /** Place all labels anew, after boxes, their types, the zoom or the size of a picture have changed. */
  function place() {
    if (!isAwaited) requestAnimationFrame(placeNow);
    isAwaited = true;
  }

  function placeNow() {
    isAwaited = false;
    pictures.map(planOf).forEach((plan) => plan.forEach(apply)); // all is measured before anything is moved
  }

  /** Where the texts of a picture stand: { outline, origin, letters, label, choice } of each outline on view. */
  function planOf({ frame, stage }) {
    const hasLabels = !frame.closest('.no-labels');
    const outlines = [...stage.querySelectorAll('.boxes > .box')].filter((one) => one.offsetWidth > 0);
    const items = boxOutlines.byScore(outlines).map((outline) => ({
      outline, box: boxIn(stage, outline), letters: lettersOf(outline), labels: hasLabels ? labelsOf(outline) : [],
    }));
    const found = labelPlaces.place(items, [frame.clientWidth, frame.clientHeight]);
    return items.map(({ outline, box }, number) => ({ outline, hasLabels, origin: originOf(outline, box), ...found[number] }));
  }

  /** The place of an outline in the frame, in pixels. */
  function boxIn(stage, { offsetLeft, offsetTop, offsetWidth, offsetHeight }) {
    const [left, top] = [stage.offsetLeft + offsetLeft, stage.offsetTop + offsetTop];
    return [left, top, left + offsetWidth, top + offsetHeight];
  }

  /** The point in the frame from which the texts of an outline are placed. */
  const originOf = ({ clientLeft, clientTop }, [left, top]) => [left + clientLeft, top + clientTop];

  const sizeOf = ({ offsetWidth, offsetHeight }) => [offsetWidth, offsetHeight];

  function lettersOf(outline) {
    const mark = outline.querySelector('b');
    return mark && mark.offsetWidth ? sizeOf(mark) : null;
  }

  /** The sizes of a label, measured before it is hidden. */
  function labelsOf(outline) {
    if (!sizes.has(outline)) {
      const label = outline.querySelector('span');
      const [width, height] = sizeOf(label);
      const score = label.querySelector('i');
      sizes.set(outline, [[width, height], ...(score ? [[width - score.offsetWidth, height]] : [])]);
    }
    return sizes.get(outline);
  }

  function apply({ outline, hasLabels, origin, letters, label, choice }) {
    move(outline.querySelector('b'), origin, letters);
    move(outline.querySelector('span'), origin, label);
    outline.classList.toggle('brief', choice === 1);
    outline.classList.toggle('crowded', hasLabels && label === null);
  }

  /** Move a text to an area; without one it stands where the style sheet has it. */
  function move(text, [left, top], area) {
    if (!text) return;
    const places = area ? { left: `${area.left - left}px`, top: `${area.top - top}px`, right: 'auto', bottom: 'auto' }
      : { left: '', top: '', right: '', bottom: '' };
    Object.assign(text.style, places);
  }

  return { place, watch };
})();
