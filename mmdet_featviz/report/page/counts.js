'use strict';

/*
 * Counts: what the boxes of an image are in the pass that is shown, as far as their scores are high enough. The Python
 * side writes the scores of each pass, see box_values().
 */
const counts = (() => {
  let classes = []; // names, by label

  /** Begin. `given` is the run. */
  function start(given) {
    [classes] = given.classes;
  }

  /** The place of a pass with this label among the shots of an image; of the last one, if there is none. */
  function placeOf({ shots }, label) {
    const place = shots.findIndex((one) => one[1] === label);
    return place < 0 ? shots.length - 1 : place;
  }

  const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

  /**
   * The counts of an image.
   *
   * @param image - one of run.images
   * @param chosen - the settings: the label of a pass, the lowest score, the name of a class, and filters by errors
   * @returns { detections, best, lowest, truth }: the number of predictions, their highest and lowest score (null
   *   without any), and the number of ground-truth boxes
   */
  function of(image, chosen) {
    const { shot, score, class: name } = chosen;
    if (errors.areFiltered(chosen)) return ofErrors(image, chosen);
    const { scores: groups, truth } = image.values[placeOf(image, shot)];
    const least = scores.leastSteps(score);
    const ofClass = (ofLabels) => Object.entries(ofLabels).filter(([label]) => !name || classes[label] === name)
      .map(([, group]) => group);
    const all = ofClass(groups).flat().filter((one) => one >= least);
    return {
      detections: all.length,
      best: all.length ? scores.ofSteps(all.reduce((a, b) => Math.max(a, b))) : null,
      lowest: all.length ? scores.ofSteps(all.reduce((a, b) => Math.min(a, b))) : null,
      truth: sum(ofClass(truth)),
    };
  }

  /** The boxes of an image whose errors are known, in the pass that is shown; null if none are, see errors.js. */
  function knownBoxes(image, { shot }) {
    const { errors: rows } = image.values[placeOf(image, shot)];
    return rows ? errors.boxesOf(rows) : null;
  }

  /** The counts of an image with filters by errors. */
  function ofErrors(image, chosen) {
    const fitting = (knownBoxes(image, chosen) || []).filter((box) => errors.fits(box, chosen));
    const steps = fitting.filter(({ isTruth }) => !isTruth).map((box) => box.steps);
    return {
      detections: steps.length,
      best: steps.length ? scores.ofSteps(Math.max(...steps)) : null,
      lowest: steps.length ? scores.ofSteps(Math.min(...steps)) : null,
      truth: fitting.length - steps.length,
    };
  }

  /**
   * The errors of an image: { missed, wrong, precision }, the numbers of missed objects and of false predictions, and its
   * average precision; all null if they are not known.
   */
  function errorsOf(image, chosen) {
    const boxes = knownBoxes(image, chosen);
    if (!boxes) return { missed: null, wrong: null, precision: null };
    const counted = errors.count(boxes, chosen);
    return {
      missed: counted.missed, wrong: errors.falseOf(counted), precision: errors.averagePrecision(boxes, chosen),
    };
  }

  /** Whether an image has a prediction or ground-truth box that counts. */
  function hasBoxes(image, chosen) {
    const { detections, truth } = of(image, chosen);
    return detections + truth > 0;
  }

  return { errorsOf, hasBoxes, knownBoxes, of, placeOf, start };
})();
