'use strict';

/*
 * Counts: what the boxes of an image are in the pass that is shown, as far as their scores are high enough. The Python
 * side writes the scores of each pass, see box_values().
 */
const counts = (() => {
  const STEPS = 10000; // of a score, as in Python

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
   * @param chosen - the settings: the label of a pass, and the lowest score
   * @returns { detections, best, lowest, truth, labels }: the number of predictions, their highest and lowest score
   *   (null without any), the number of ground-truth boxes, and the labels of all of them
   */
  function of(image, { shot, score }) {
    const { scores, truth } = image.values[placeOf(image, shot)];
    const least = Math.round(score * STEPS);
    const shown = Object.entries(scores).map(([label, all]) => [label, all.filter((one) => one >= least)]);
    const all = shown.flatMap(([, some]) => some);
    return {
      detections: all.length,
      best: all.length ? all.reduce((a, b) => Math.max(a, b)) / STEPS : null,
      lowest: all.length ? all.reduce((a, b) => Math.min(a, b)) / STEPS : null,
      truth: sum(Object.values(truth)),
      labels: [...Object.keys(truth), ...shown.filter(([, some]) => some.length).map(([label]) => label)],
    };
  }

  return { of, placeOf };
})();
