'use strict';

/* Scores: the Python side writes scores in whole steps, rounded down; see score_steps(). */
const scores = (() => {
  const STEPS = 10000; // of 1

  /** The fewest steps of a score that is at least this one. */
  const leastSteps = (score) => Math.round(score * STEPS);

  /** The steps of a score, as in Python: rounded first, as 0.57 × 10,000 is below 5,700. */
  const toSteps = (score) => Math.floor(Number((score * STEPS).toPrecision(10)));

  const ofSteps = (steps) => steps / STEPS;

  return { leastSteps, ofSteps, toSteps };
})();
