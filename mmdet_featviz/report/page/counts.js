'use strict';

/*
 * Counts: what the boxes of an image are in the pass that is shown, as far as their scores are high enough. The Python
 * side writes the scores of each pass, see box_values().
 */
const counts = (() => {
  const STEPS = 10000; // of a score, as in Python
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
   * @param chosen - the settings: the label of a pass, the lowest score, and the name of a class
   * @returns { detections, best, lowest, truth }: the number of predictions, their highest and lowest score (null
   *   without any), and the number of ground-truth boxes
   */
  function of(image, { shot, score, class: name }) {
    const { scores, truth } = image.values[placeOf(image, shot)];
    const least = Math.round(score * STEPS);
    const ofClass = (groups) => Object.entries(groups).filter(([label]) => !name || classes[label] === name)
      .map(([, group]) => group);
    const all = ofClass(scores).flat().filter((one) => one >= least);
    return {
      detections: all.length,
      best: all.length ? all.reduce((a, b) => Math.max(a, b)) / STEPS : null,
      lowest: all.length ? all.reduce((a, b) => Math.min(a, b)) / STEPS : null,
      truth: sum(ofClass(truth)),
    };
  }

  /** Whether an image has a prediction or ground-truth box that counts. */
  function hasBoxes(image, chosen) {
    const { detections, truth } = of(image, chosen);
    return detections + truth > 0;
  }

  return { hasBoxes, of, placeOf, start };
})();
