'use strict';

/* Type legend: the types of the boxes in the picture, with a sample and the number of each; a click shows only these. */
const typeLegend = (() => {
  const UNKNOWN = ''; // of boxes without a type
  const place = dom.find('types');
  let choose = () => {};

  /** Begin. `onChoose` is called with a type, or '' to show all. */
  function start(onChoose) {
    choose = onChoose;
  }

  /** Show the types of these outlines, as far as they fit the other filters; nothing if no error is known. */
  function show(boxes, chosen) {
    const known = boxes.map(boxOutlines.boxOf).filter(Boolean);
    place.hidden = !known.length;
    if (place.hidden) return;
    const counted = errors.count(known, chosen, 'type');
    const shown = Object.keys(counted).filter((type) => counted[type] || type === chosen.type);
    const buttons = shown.map((type) => button(type, counted[type], chosen.type));
    dom.keepFocus(place, () => place.replaceChildren(...buttons, ...unknown(boxes, chosen)), (number) => buttons[number]);
  }

  function button(type, number, chosen) {
    const made = dom.button('', () => choose(type === chosen ? UNKNOWN : type));
    made.title = `${errors.MEANINGS[type]}. A click shows only these.`;
    made.setAttribute('aria-pressed', type === chosen);
    made.append(boxOutlines.sample(type), dom.element('span', '', `${number} ${type}`));
    return made;
  }

  /** Words on predictions that are shown and have no type. */
  function unknown(boxes, { score }) {
    const number = boxes.filter((box) => !boxOutlines.boxOf(box) && box.dataset.score !== '' && Number(box.dataset.score) >= score).length;
    return number ? [dom.element('span', '', `${dom.count(number, 'prediction')} without a type: ${errors.UNTYPED}`)] : [];
  }

  return { show, start };
})();
