'use strict';

/*
 * Error table: how many boxes of each class there are of each type, and why objects were missed, over the images that the
 * search finds. A click on a number shows these boxes.
 */
const errorTable = (() => {
  const details = dom.find('errors');
  let run = null;
  let choose = () => {};
  let show = () => {}; // the tables of now

  /** Begin. `onChoose` is called with settings when a number is clicked. */
  function start(given, onChoose) {
    [run, choose] = [given, onChoose];
    if (!errors.areKnown()) return;
    details.hidden = false;
    details.addEventListener('toggle', () => show());
  }

  /** Count the boxes of these images. The filter by type does not matter, as the columns are types. */
  function update(images, chosen) {
    if (!errors.areKnown()) return;
    const boxes = images.flatMap((image) => counts.knownBoxes(image, chosen) || []);
    const total = errors.count(boxes, chosen, 'type');
    dom.find('error-counts').textContent = wordsOn(total, images, chosen);
    show = () => { if (details.open) fill(boxes, chosen, total); };
    show();
  }

  /** The most important numbers. */
  function wordsOn(total, images, { score }) {
    const wrong = errors.falseOf(total);
    const objects = total.found + total.missed;
    return `${total.missed} of ${dom.count(objects, 'object')} missed, ${wrong} of `
      + `${dom.count(total.true + wrong, 'prediction')} false, in ${dom.count(images.length, 'image')}, `
      + `score from ${score.toFixed(2)}`;
  }

  function fill(boxes, chosen, total) {
    const types = run.errors.types.filter((type) => type !== 'ignored' || total.ignored);
    const order = ['missed', 'found', ...types.filter((type) => type !== 'missed' && type !== 'found')];
    const classes = [...new Set(boxes.map(({ name }) => name))]
      .map((name) => ({ name, counted: errors.count(boxes, { ...chosen, class: name }, 'type') }))
      .filter(({ name }) => !chosen.class || name === chosen.class)
      .sort((a, b) => b.counted.missed - a.counted.missed);
    const table = tables.make('Boxes by class and type', ['class', 'objects', order[0], 'missed share', ...order.slice(1)], [
      ...classes.map(({ name, counted }) => [name, ...cellsOf(counted, order, { class: name })]),
      ['all', ...cellsOf(total, order, { class: chosen.class })],
    ]);
    const missed = boxes.filter((box) => errors.fits(box, { ...chosen, type: 'missed' }));
    const { sizes, mechanisms } = run.errors;
    const numberOf = (mechanism, size) =>
      missed.filter((box) => box.mechanism === mechanism && (!size || box.size === size)).length;
    const reasons = tables.make('Missed objects by mechanism and size', ['mechanism', ...sizes, 'all'],
      mechanisms.map((mechanism) => [mechanism.replace('_', ' '), ...[...sizes, ''].map((size) =>
        button(numberOf(mechanism, size), { type: 'missed', mechanism, size: size || chosen.size }))]));
    const place = dom.find('error-tables');
    dom.keepFocus(place, () => place.replaceChildren(table, reasons), (number) => place.querySelectorAll('button')[number]);
  }

  function cellsOf(counted, order, filter) {
    const objects = counted.found + counted.missed;
    const share = objects ? `${(100 * counted.missed / objects).toFixed(1)} %` : '–';
    const [missed, ...others] = order.map((type) => button(counted[type], { ...filter, type }));
    return [objects, missed, share, ...others];
  }

  /** A number, as a button that chooses these boxes if there are any. */
  function button(number, filter) {
    if (!number) return 0;
    const made = dom.button(number, () => choose(filter));
    made.title = 'Show these';
    return made;
  }

  return { start, update };
})();
