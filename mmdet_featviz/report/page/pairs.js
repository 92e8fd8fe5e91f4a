'use strict';

/* Pairs: each level of run A with the level of run B that it is compared with, and the value range that both share. */
const pairs = (() => {
  /** The levels of a shot as pairs { a, b }; b is null without a second run or without a matching level. */
  function of({ sides, partners }) {
    return sides[0].levels.map((a, number) => ({
      a, b: sides.length > 1 ? sides[1].levels.find(({ name }) => name === partners[number]) || null : null,
    }));
  }

  const union = (spans) => [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))];

  /** The values [low, high] that the colors of a pair span. `kind` is the setting "range". */
  function range(run, shot, pair, kind) {
    const both = ({ a, b }) => (b ? [a.range, b.range] : [a.range]);
    const [low, high] = union(both(pair));
    if (kind === 'max' || pair.a.explains) return [0, Math.max(high, 0)]; // empty if all values are negative
    if (kind === 'layer') return union(of(shot).filter(({ a }) => a.layer === pair.a.layer).map(both).flat());
    if (kind === 'run') {
      const spans = [run.ranges[0][pair.a.name], pair.b && run.ranges[1][pair.b.name]].filter(Boolean);
      return spans.length ? union(spans) : [low, high];
    }
    return kind === 'fixed' ? run.settings.normalize : [low, high];
  }

  return { of, range };
})();
