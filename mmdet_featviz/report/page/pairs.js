'use strict';

/* Pairs: each level of run A with the level of run B that it is compared with, and the value range of its colors. */
const pairs = (() => {
  /** The levels of a shot as pairs { a, b }; b is null without a second run or without a matching level. */
  function of({ sides, partners }) {
    return sides[0].levels.map((a, number) => ({
      a, b: sides.length > 1 ? sides[1].levels.find(({ name }) => name === partners[number]) || null : null,
    }));
  }

  const union = (spans) => [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))];

  /**
   * The values [low, high] that the colors of one side of a pair span.
   *
   * @param side - 0 for run A, 1 for run B
   * @param look - the settings "range" and "common"
   */
  function range(run, shot, pair, side, { range: kind, common }) {
    const sides = (common ? [0, 1] : [side]).filter((one) => (one ? pair.b : pair.a));
    const levels = ({ a, b }) => sides.map((one) => (one ? b : a)).filter(Boolean);
    const spans = (pairsOfSides) => pairsOfSides.flatMap(levels).map((level) => level.range);
    const [low, high] = union(spans([pair]));
    if (kind === 'max' || pair.a.explains) return [0, Math.max(high, 0)]; // empty if all values are negative
    if (kind === 'percentile') return union(levels(pair).map((level) => level.percentiles));
    if (kind === 'layer') return union(spans(of(shot).filter(({ a }) => a.layer === pair.a.layer)));
    if (kind === 'run') {
      const known = sides.map((one) => run.ranges[one][(one ? pair.b : pair.a).name]).filter(Boolean);
      return known.length ? union(known) : [low, high];
    }
    return kind === 'fixed' ? run.settings.normalize : [low, high];
  }

  return { of, range };
})();
