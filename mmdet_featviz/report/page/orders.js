'use strict';

/*
 * Orders: what images can be sorted by, and the search. An order is { id, label, of }: `of` returns the figure of an
 * image on a level, null if it has none. `percent` and `ofLevel` are true for percentages and for figures that depend
 * on the level.
 */
const orders = (() => {
  /** All orders of a run. */
  function of(run) {
    const focus = (image, level) => (image.energy && level in image.energy ? image.energy[level] : null);
    const found = [
      { id: 'run', label: 'order of the data set', of: (image) => image.position },
      { id: 'name', label: 'name', of: (image) => image.key },
      { id: 'detections', label: 'number of detections', of: (image) => image.detections },
      { id: 'best', label: 'best score', of: (image) => image.best },
      { id: 'lowest', label: 'lowest score', of: (image) => image.lowest },
    ];
    if (run.images.some((image) => image.truth)) {
      found.push(
        { id: 'truth', label: 'number of ground-truth boxes', of: (image) => image.truth },
        { id: 'energy', label: 'energy inside boxes', of: focus, percent: true, ofLevel: true },
        {
          id: 'gain',
          label: 'gain over chance',
          of: (image, level) => (focus(image, level) === null || !image.share ? null : focus(image, level) / image.share),
          ofLevel: true,
        },
      );
    }
    return found;
  }

  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === 'string' ? names.compare(a, b) : a - b);

  /**
   * Search and sort the images of a run. Returns the images whose name or classes contain all words of the search.
   * Images without the figure are last in both directions.
   */
  function arrange(run, { search, order, level, descending }) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (image) => [image.key, ...image.labels.map((label) => run.classes[label])].join('\n').toLowerCase();
    const fits = run.images.filter((image) => words.every((word) => text(image).includes(word)));
    const figures = new Map(fits.map((image) => [image, order.of(image, level)]));
    return fits.sort((a, b) => {
      const [one, other] = [figures.get(a), figures.get(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a.position - b.position;
      return (descending ? -1 : 1) * compare(one, other) || a.position - b.position;
    });
  }

  /** The text below the name of an image: the figure that it is sorted by. */
  function caption({ id, of: figureOf, percent }, image, level) {
    if (id === 'run' || id === 'name') return `${image.detections} found`;
    const figure = figureOf(image, level);
    if (figure === null) return '–';
    return percent ? `${(100 * figure).toFixed(1)} %` : dom.short(figure);
  }

  return { arrange, caption, of };
})();
