'use strict';

/*
 * Errors: what the error metric found out about the boxes of an image. The Python side writes them: error_values() for
 * the list of images, error_rows() for the image on view.
 *
 * A box is { isTruth, name, steps, type, size, mechanism } here: `name` is that of its class, `steps` its score, or the
 * score of the prediction that found a ground-truth box (-1 if none did). Types are those of the metric, but a
 * ground-truth box is missed as soon as the prediction that found it is below the lowest score.
 */
const errors = (() => {
  const NOT_FALSE = ['true', 'ignored'];
  const FILTERS = ['type', 'size', 'mechanism']; // settings; that of classes is older than errors
  const MEANINGS = {
    true: 'it found an object',
    localization: 'it overlaps an object of its class by 0.1 to 0.5',
    classification: 'it overlaps an object of another class by at least 0.5',
    both: 'it overlaps only objects of other classes, by 0.1 to 0.5',
    duplicate: 'it overlaps an object of its class that a better prediction has found',
    background: 'it overlaps no object by more than 0.1',
    ignored: 'it lies in a crowd, and counts neither as true nor as false',
    found: 'a prediction is true for it',
    missed: 'no prediction is true for it',
  };
  const MECHANISMS = {
    proposal: 'no candidate overlaps it by 0.5, and nothing that boxes start from was near',
    regression: 'something to start from was near, but no candidate overlaps it by 0.5',
    other_class: 'candidates on it reach the score only with other classes',
    background: 'no candidate on it reaches the score',
    suppressed: 'a candidate of its class reaches the score, but another box removed it, or it was matched with another object',
  };
  const UNTYPED = 'below the score threshold of errors'; // predictions that the metric did not judge
  let names = null; // lists of the names of types, sizes and mechanisms; null for a run without errors
  let classes = []; // names, by label
  const read = new WeakMap(); // rows of a pass: its boxes

  /** Begin. `run` is the run. */
  function start(run) {
    [names, [classes]] = [run.errors, run.classes];
  }

  /** Whether the run has errors. */
  const areKnown = () => names !== null;

  /** What the filters can be set to: {name of a setting: [[value, text], ...]}; only "all" without errors. */
  function choices(run) {
    const { types = [], sizes = [], mechanisms = [] } = run.errors || {};
    const isObject = (type) => type === 'missed' || type === 'found';
    const kinds = types.filter((type) => !isObject(type) && !NOT_FALSE.includes(type));
    const of = (list) => [['', 'all'], ...list.map((name) => [name, name.replace('_', ' ')])];
    return {
      type: run.errors ? [...of(['missed', 'found', 'true']), ['false', 'all false'], ...kinds.map((type) => [type, type])] : of([]),
      size: of(sizes),
      mechanism: of(mechanisms),
    };
  }

  /** The boxes of a pass, given as error_values() returns it. */
  function boxesOf(rows) {
    if (!read.has(rows)) read.set(rows, readRows(rows));
    return read.get(rows);
  }

  function readRows({ predictions, truth }) {
    const name = (label) => (classes[label] === undefined ? String(label) : classes[label]);
    return [
      ...predictions.map(([label, steps, type, size]) => (
        { isTruth: false, name: name(label), steps, type: names.types[type], size: names.sizes[size], mechanism: '' })),
      ...truth.map(([label, steps, size, mechanism]) => (
        { isTruth: true, name: name(label), steps, size: names.sizes[size], mechanism: names.mechanisms[mechanism] || '' })),
    ];
  }

  /** The type of a box with this lowest score. */
  function typeOf({ isTruth, steps, type }, score) {
    if (!isTruth) return type;
    return steps >= scores.leastSteps(score) ? 'found' : 'missed';
  }

  const isFalse = (type) => names.types.includes(type) && !['found', 'missed', ...NOT_FALSE].includes(type);

  /** Whether a box counts with these settings; `but` names a setting that does not matter. */
  function fits(box, chosen, but) {
    if (!box.isTruth && box.steps < scores.leastSteps(chosen.score)) return false;
    if (chosen.class && but !== 'class' && box.name !== chosen.class) return false;
    if (chosen.size && box.size !== chosen.size) return false;
    const type = typeOf(box, chosen.score);
    if (chosen.mechanism && (type !== 'missed' || box.mechanism !== chosen.mechanism)) return false;
    return !chosen.type || but === 'type' || type === chosen.type || (chosen.type === 'false' && isFalse(type));
  }

  /** Whether a filter by errors is set. */
  const areFiltered = (chosen) => FILTERS.some((name) => chosen[name]);

  /** How many boxes there are of each type, of those that fit(): {type: number}. */
  function count(boxes, chosen, but) {
    const found = Object.fromEntries(names.types.map((type) => [type, 0]));
    boxes.filter((box) => fits(box, chosen, but)).forEach((box) => { found[typeOf(box, chosen.score)] += 1; });
    return found;
  }

  /** The number of false predictions among counted boxes. */
  const falseOf = (counted) => Object.keys(counted).filter(isFalse).reduce((total, type) => total + counted[type], 0);

  /**
   * The average precision of a pass over an image: the mean over the classes that have ground truth in it, of the chosen
   * class and score. As in COCO's evaluation at an overlap of 0.5, at 101 recalls. Null without ground truth.
   */
  function averagePrecision(boxes, { class: name, score }) {
    const objects = boxes.filter((box) => box.isTruth && (!name || box.name === name));
    const present = [...new Set(objects.map((box) => box.name))];
    const least = scores.leastSteps(score);
    const ofClass = (one) => precisionOf(
      boxes.filter((box) => !box.isTruth && box.name === one && box.steps >= least && box.type !== 'ignored')
        .map(({ type }) => type === 'true'), // by descending score, as Python writes them
      objects.filter((box) => box.name === one).length,
    );
    return present.length ? present.map(ofClass).reduce((a, b) => a + b) / present.length : null;
  }

  function precisionOf(areTrue, positives) {
    let hits = 0;
    const points = areTrue.map((isTrue, place) => {
      hits += isTrue;
      return { recall: hits / positives, precision: hits / (place + 1) };
    });
    for (let place = points.length - 2; place >= 0; place--) {
      points[place].precision = Math.max(points[place].precision, points[place + 1].precision);
    }
    let total = 0;
    for (let step = 0; step <= 100; step++) {
      const point = points.find(({ recall }) => recall >= step / 100);
      total += point ? point.precision : 0;
    }
    return total / 101;
  }

  return {
    MEANINGS, MECHANISMS, UNTYPED, areFiltered, areKnown, averagePrecision, boxesOf, choices, count, falseOf, fits, start, typeOf,
  };
})();
