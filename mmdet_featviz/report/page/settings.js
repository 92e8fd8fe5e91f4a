'use strict';

/*
 * Settings: what the user can choose, by name. A set of settings is a plain object with a value for each name, and is
 * called `chosen` where it is passed to a function.
 *
 * image, shot: key of the image, label of its epoch or pass ('' is the last one). why: the explanation that is shown
 * in place of the level, '' if none is. search, sort, down: the list of
 * images; the order descends if `down`. level, all: the level, or all levels side by side. colormap, range, alpha,
 * threshold: how heat is drawn. score, pred, truth: lowest score of predictions, and which kinds of boxes are shown.
 */
const settings = (() => {
  const RANGES = {
    image: 'smallest to largest value in this image',
    max: 'zero to largest value in this image',
    layer: 'same for all levels of the layer',
    run: '0.5 to 99.5 % of the values in the run',
    fixed: 'as the run was drawn',
  };

  const hasFixedRange = (run) => Array.isArray(run.settings.normalize);

  const NECK = /(^|\.)neck[._]/; // its levels are what the head sees

  /** The settings that a page starts with. */
  function defaults(run) {
    const { colormap, normalize, alpha, score } = run.settings;
    return {
      image: '', shot: '', why: '', search: '', sort: 'run', down: false,
      level: (run.levels.find(({ name }) => NECK.test(name)) || run.levels[0] || { name: '' }).name, all: false,
      colormap, range: hasFixedRange(run) ? 'fixed' : normalize,
      alpha, threshold: 0, score, pred: true, truth: true,
    };
  }

  /** The possible values of settings with a list of them: {name: [[value, text], ...]}. */
  function choices(run) {
    return {
      level: run.levels.map(({ name, stride }) => [name, `${name} (stride ${stride} px)`]),
      colormap: Object.keys(run.colormaps).map((name) => [name, name]),
      range: Object.entries(RANGES).filter(([name]) => name !== 'fixed' || hasFixedRange(run)),
      sort: orders.of(run).map(({ id, label }) => [id, label]),
    };
  }

  return { choices, defaults };
})();
