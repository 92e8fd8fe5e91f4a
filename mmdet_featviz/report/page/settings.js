'use strict';

/*
 * Settings: what the user can choose, by name. A set of settings is a plain object with a value for each name, and is
 * called `chosen` where it is passed to a function.
 *
 * image, shot: key of the image, label of its epoch or pass ('' is the last one).
 * search, class, type, size, mechanism, marked, sort, down: the list of images. `class` is the name of a class, '' for
 * all, and so are `type` (also 'false'), `size` and `mechanism`, see errors.js; `marked` leaves the marked images, and the
 * order descends if `down`.
 * level, all, why: the level, or all levels side by side; the explanation that is shown in place of it, '' if none is.
 * colormap, range, alpha, threshold: how heat is drawn.
 * score, pred, truth, labels: lowest score of predictions; which kinds of boxes are shown, and whether their names are.
 * common, difference: whether runs share a range, and whether pictures of the differences to run A are shown.
 * similarity, at: whether a click compares cells, and the place that was clicked, see similarity.js.
 * maplevel, mapcolor: the level of the map of boxes, and what its colors are.
 */
const settings = (() => {
  const RANGES = {
    image: 'this image: min to max',
    percentile: 'this image: percentiles',
    max: 'this image: 0 to max',
    layer: 'all levels of the layer',
    run: 'the run: 0.5 to 99.5 %',
    fixed: 'fixed, as drawn',
  };

  const hasFixedRange = (run) => Array.isArray(run.settings.normalize);

  const NECK = /(^|\.)neck[._]/; // its levels are what the head sees

  /** The settings that a page starts with. */
  function defaults(run) {
    const { colormap, normalize, alpha, score } = run.settings;
    return {
      image: '', shot: '', why: '', search: '', class: '', type: '', size: '', mechanism: '', marked: false, sort: 'run', down: false,
      level: (run.levels.find(({ name }) => NECK.test(name)) || run.levels[0] || { name: '' }).name, all: false,
      colormap, range: hasFixedRange(run) ? 'fixed' : normalize,
      alpha, threshold: 0, score, pred: true, truth: true, labels: true,
      common: run.comparable, difference: false, similarity: false, at: '',
      maplevel: run.boxes ? run.boxes.purest : '', mapcolor: 'class',
    };
  }

  /** The classes that boxes of the images have. */
  function classesOf(run) {
    const used = new Set(run.images.flatMap(({ values }) => values.flatMap(({ scores, truth }) =>
      [...Object.keys(scores), ...Object.keys(truth)])));
    return [...new Set(run.classes[0].filter((name, label) => used.has(String(label))))];
  }

  /** The possible values of settings with a list of them: {name: [[value, text], ...]}. */
  function choices(run) {
    return {
      level: run.levels.map(({ name, stride }) => [name, `${name} (stride ${stride} px)`]),
      colormap: Object.keys(run.colormaps).map((name) => [name, name]),
      range: Object.entries(RANGES).filter(([name]) => name !== 'fixed' || hasFixedRange(run)),
      class: [['', 'all'], ...classesOf(run).map((name) => [name, name])],
      ...errors.choices(run),
      ...boxMap.choices(run),
      sort: orders.of(run).map(({ id, label }) => [id, label]),
    };
  }

  return { choices, defaults };
})();
