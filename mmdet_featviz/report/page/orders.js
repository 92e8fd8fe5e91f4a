'use strict';

/*
 * Orders: what images can be sorted by, and the search. An order is { id, label, of }: `of` returns the figure of an
 * image with the settings of now, null if it has none. `percent` is true for percentages, and `settings` names the
 * settings that the figure depends on.
 */
const orders = (() => {
  const EPOCH = /^(epoch|iter) /; // label of a pass in a training

  /** All orders of a run. */
  function of(run) {
    const focus = (image, { level }) => (image.energy && level in image.energy ? image.energy[level] : null);
    const counted = (name) => (image, chosen) => counts.of(image, chosen)[name];
    const ofBoxes = ['shot', 'score'];
    const when = run.images.some(({ shots }) => shots.some(([, label]) => EPOCH.test(label))) ? ', last epoch' : '';
    const found = [
      { id: 'run', label: 'order of the data set', of: (image) => image.position },
      { id: 'name', label: 'name', of: (image) => image.key },
      { id: 'detections', label: 'number of detections', of: counted('detections'), settings: ofBoxes },
      { id: 'best', label: 'best score', of: counted('best'), settings: ofBoxes },
      { id: 'lowest', label: 'lowest score', of: counted('lowest'), settings: ofBoxes },
    ];
    if (hasTruth(run)) {
      found.push(
        { id: 'truth', label: 'number of ground-truth boxes', of: counted('truth'), settings: ['shot'] },
        { id: 'energy', label: `energy inside boxes${when}`, of: focus, percent: true, settings: ['level'] },
        {
          id: 'gain',
          label: `gain over chance${when}`,
          of: (image, chosen) => (focus(image, chosen) === null || !image.share ? null : focus(image, chosen) / image.share),
          settings: ['level'],
        },
      );
    }
    return found;
  }

  /** Whether the run has ground-truth boxes. */
  const hasTruth = (run) => run.images.some(({ values }) => values.some(({ truth }) => Object.keys(truth).length));

  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === 'string' ? names.compare(a, b) : a - b);

  /**
   * Search and sort the images of a run, with the settings of now. Returns the images whose name or classes contain all
   * words of the search. Images without the figure are last in both directions.
   */
  function arrange(run, order, chosen) {
    const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
    const classes = (image) => counts.of(image, chosen).labels.map((label) => run.classes[label]);
    const text = (image) => [image.key, ...classes(image)].join('\n').toLowerCase();
    const fits = run.images.filter((image) => words.every((word) => text(image).includes(word)));
    const figures = new Map(fits.map((image) => [image, order.of(image, chosen)]));
    return fits.sort((a, b) => {
      const [one, other] = [figures.get(a), figures.get(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a.position - b.position;
      return (chosen.down ? -1 : 1) * compare(one, other) || a.position - b.position;
    });
  }

  /** The text below the name of an image: the figure that it is sorted by. */
  function caption({ id, of: figureOf, percent }, image, chosen) {
    if (id === 'run' || id === 'name') return dom.count(counts.of(image, chosen).detections, 'detection');
    const figure = figureOf(image, chosen);
    if (figure === null) return '–';
    return percent ? `${(100 * figure).toFixed(1)} %` : dom.short(figure);
  }

  return { arrange, caption, hasTruth, of };
})();
