'use strict';

/*
 * Contrast table: the mean contrast of found and of missed objects by level and size, of those that fit the search, the
 * filters and the lowest score. If all objects do, the table of the data set is shown, which Python has written.
 */
const contrastTable = (() => {
  const LEAST_IMAGES = 5; // that have such objects: an interval from fewer would say too much
  const QUANTILE = 1.96; // of the normal distribution, for 95 %
  const TYPES = ['found', 'missed'];
  const details = dom.find('errors');
  const place = dom.find('fitting-contrasts'); // null in a run without contrasts
  let sizes = []; // names
  let show = () => {}; // the table of now
  let complain = () => {};
  let turn = 0; // counts the tables, so that data which arrives too late is dropped

  /** Begin. `run` is the run; `onError` is called with an error if the contrasts cannot be read. */
  function start(run, onError) {
    if (!place) return;
    [sizes, complain] = [run.errors.sizes, onError];
    details.addEventListener('toggle', () => show());
  }

  /** Compare the objects of these images. */
  function update(images, run, chosen) {
    if (!place) return;
    show = () => { if (details.open) fill(images, run, chosen).catch(complain); };
    show();
  }

  async function fill(images, run, chosen) {
    const mine = ++turn;
    const isWhole = images.length === run.images.length && areAll(images, chosen);
    const data = isWhole ? null : await store.contrasts(0);
    if (mine !== turn) return;
    place.hidden = isWhole;
    dom.find('all-contrasts').hidden = !isWhole;
    if (!isWhole) place.querySelector('.scroll').replaceChildren(tableOf(objectsOf(images, chosen, data.passes), data.levels));
  }

  /** Whether the objects of all images are compared as in the last evaluation. */
  function areAll(images, { shot, class: name, size, mechanism, score }) {
    const least = scores.leastSteps(score);
    const isLost = ({ isTruth, steps }) => isTruth && steps >= 0 && steps < least;
    return !(shot || name || size || mechanism)
      && !images.some((image) => (counts.knownBoxes(image, { shot }) || []).some(isLost));
  }

  /** Of each image the objects that fit: { type, size, values }, with their contrasts by level, null if not known. */
  function objectsOf(images, chosen, passes) {
    return images.map((image) => {
      const [number] = image.shots[counts.placeOf(image, chosen.shot)];
      const objects = (counts.knownBoxes(image, chosen) || []).filter(({ isTruth }) => isTruth);
      return objects
        .map((box, row) => ({ box, type: errors.typeOf(box, chosen.score), values: passes[number][row] }))
        .filter(({ box, type }) => errors.fits(box, type === 'found' ? { ...chosen, mechanism: '' } : chosen, 'type'))
        .map(({ box: { size }, type, values }) => ({ size, type, values }));
    });
  }

  function tableOf(images, levels) {
    const present = new Set(images.flatMap((objects) => objects.map(({ size }) => size)));
    const shown = sizes.filter((size) => present.has(size));
    if (shown.length !== 1) shown.unshift('all');
    const heads = shown.flatMap((size) => [`found, ${size}`, `missed, ${size}`, 'difference']);
    const rows = levels.map((level, number) => [level, ...shown.flatMap((size) => cellsOf(images, number, size))]);
    const title = 'Contrast of found and missed objects that fit the search, the filters and the score';
    return tables.make(title, ['level', ...heads], rows);
  }

  const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

  /** The means of found and missed objects of a size at a level, and their difference with its interval. */
  function cellsOf(images, level, size) {
    const parts = TYPES.map((type) => images.map((objects) => partOf(objects, level, size, type)));
    const numbers = parts.map((part) => sum(part.map(({ number }) => number)));
    const means = parts.map((part, at) => sum(part.map(({ total }) => total)) / numbers[at]);
    const [found, missed] = means.map((mean, at) => (numbers[at] ? `${mean.toFixed(3)} (${numbers[at]})` : '–'));
    if (!numbers[0] || !numbers[1]) return [found, missed, '–'];
    const difference = means[0] - means[1];
    const reach = parts.every((part) => part.filter(({ number }) => number).length >= LEAST_IMAGES)
      ? QUANTILE * spreadOf(parts, numbers, means) : NaN;
    const interval = reach >= 0 ? ` [${(difference - reach).toFixed(3)}, ${(difference + reach).toFixed(3)}]` : '';
    return [found, missed, `${difference.toFixed(3)}${interval}`];
  }

  /** The number of objects of an image that have a contrast, and its sum. */
  function partOf(objects, level, size, type) {
    const values = objects.filter((one) => one.type === type && (size === 'all' || one.size === size))
      .map((one) => one.values[level]).filter(Number.isFinite);
    return { number: values.length, total: sum(values) };
  }

  /**
   * The standard deviation of the difference of two means over objects, if images are drawn: to the first order, as that
   * of ratios of sums over clusters (Cochran, Sampling Techniques, 1977).
   */
  function spreadOf(parts, numbers, means) {
    const shares = parts.map((part, at) => part.map(({ number, total }) => (total - means[at] * number) / numbers[at]));
    const squares = shares[0].map((share, image) => (share - shares[1][image]) ** 2);
    return Math.sqrt(sum(squares) * squares.length / (squares.length - 1));
  }

  return { start, update };
})();
