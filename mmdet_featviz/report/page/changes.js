'use strict';

/*
 * Changes: which ground-truth objects some runs found and others missed. The Python side writes, for each pass over an
 * image, a row for each object: the name of its class, and for each run the score of the prediction that found it, 0 if
 * none did, null if the run does not have the image. See FoundObjects.
 */
const changes = (() => {
  /** For each counted object of an image, whether each run found it; null for a run without the image. */
  function foundIn(image, { shot, score, class: name }) {
    const least = Math.max(1, scores.leastSteps(score));
    return image.found[counts.placeOf(image, shot)]
      .filter(([label]) => !name || label === name)
      .map(([, ...steps]) => steps.map((one) => (one === null ? null : one >= least)));
  }

  /** Number of objects that one run found and another one missed; null if one of them does not have the image. */
  function lost(image, chosen, finder, loser) {
    const found = foundIn(image, chosen);
    if (found.some((one) => one[finder] === null || one[loser] === null)) return null;
    return found.filter((one) => one[finder] && !one[loser]).length;
  }

  /** Number of objects that some runs found and some missed. */
  const changed = (image, chosen) =>
    foundIn(image, chosen).filter((one) => one.includes(true) && one.includes(false)).length;

  const hasObjects = (run) => run.runs.length > 1 && run.images.some(({ found }) => found.some((rows) => rows.length));

  /** The orders of images by what changed, see orders.js; none without a second run or ground truth. */
  function orders(run) {
    if (!hasObjects(run)) return [];
    const settings = ['shot', 'score', 'class'];
    const from = 'by predictions with the score of the slider or a higher one, at an overlap (IoU) of at least 0.5.';
    const ofPair = (finder, loser, other) => {
      const [found, missed] = [dom.letter(finder), dom.letter(loser)];
      return {
        id: `${finder ? 'gained' : 'lost'}-${dom.letter(other).toLowerCase()}`,
        label: `found by ${found}, missed by ${missed}`,
        of: (image, chosen) => lost(image, chosen, finder, loser),
        settings, down: true,
        meaning: `Number of ground-truth objects that ${found} found and ${missed} missed, ${from}`,
      };
    };
    const others = run.runs.map((_, number) => number).slice(1);
    return [
      {
        id: 'changed', label: 'objects that changed', of: changed, settings, down: true,
        meaning: `Number of ground-truth objects that some runs found and others missed, ${from}`,
      },
      ...others.flatMap((other) => [ofPair(0, other, other), ofPair(other, 0, other)]),
    ];
  }

  /** What changed in an image, as sentences. */
  function words(run, image, chosen) {
    if (!hasObjects(run)) return [];
    const others = run.runs.map((_, number) => number).slice(1);
    return others.flatMap((other) => [[0, other], [other, 0]]).map(([finder, loser]) => {
      const number = lost(image, chosen, finder, loser);
      return number ? `${dom.count(number, 'object')} found by ${dom.letter(finder)}, missed by ${dom.letter(loser)}.` : '';
    }).filter(Boolean);
  }

  return { orders, words };
})();
