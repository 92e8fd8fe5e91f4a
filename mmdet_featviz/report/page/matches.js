'use strict';

/*
 * Matches: each level of run A with the levels of the other runs that it is compared with, and the value range of its
 * colors. A match is an array with a level of each run, null where a run has none; that of run A is always there.
 */
const matches = (() => {
  /** The levels of a shot as matches. */
  function of({ sides, partners }) {
    const [first, ...others] = sides;
    const find = (side, name) => (side && side.levels.find((level) => level.name === name)) || null;
    return first.levels.map((level, number) => [level, ...others.map((side, at) => find(side, partners[number][at]))]);
  }

  const union = (spans) => [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))];

  /**
   * The values [low, high] that the colors of one run span in a match.
   *
   * @param number - of the run
   * @param look - the settings "range" and "common"
   */
  function range(run, shot, match, number, { range: kind, common }) {
    const numbers = match.map((_, at) => at).filter((at) => match[at] && (common || at === number));
    const levels = (one) => numbers.map((at) => one[at]).filter(Boolean);
    const spans = (some) => some.flatMap(levels).map((level) => level.range);
    const [low, high] = union(spans([match]));
    if (match[0].isSimilarity) return match[0].range;
    if (kind === 'max' || match[0].explains) return [0, Math.max(high, 0)]; // empty if all values are negative
    if (kind === 'percentile') return union(levels(match).map((level) => level.percentiles));
    if (kind === 'layer') return union(spans(of(shot).filter(([first]) => first.layer === match[0].layer)));
    if (kind === 'run') {
      const known = numbers.map((at) => run.ranges[at][match[at].name]).filter(Boolean);
      return known.length ? union(known) : [low, high];
    }
    return kind === 'fixed' ? run.settings.normalize : [low, high];
  }

  return { of, range };
})();
