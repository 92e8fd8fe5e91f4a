'use strict';

/*
 * Orders: what images can be sorted by, and the search. An order is { id, label, of }: `of` returns the figure of an
 * image with the settings of now, null if it has none. `percent` is true for percentages, `noun` names what is counted,
 * and `settings` names the settings that the figure depends on. `meaning` explains it. An order with `down` descends, or
 * not, when it is chosen.
 */
const orders = (() => {
  const EPOCH = /^(epoch|iter) /; // label of a pass in a training

  /** All orders of a run. */
  function of(run) {
    const focus = (image, { level }) => (image.energy && level in image.energy ? image.energy[level] : null);
    const counted = (name) => (image, chosen) => counts.of(image, chosen)[name];
    const ofBoxes = ['shot', 'score', 'class', 'type', 'size', 'mechanism'];
    const when = run.images.some(({ shots }) => shots.some(([, label]) => EPOCH.test(label))) ? ', last epoch' : '';
    const from = 'predictions with the score of the slider or a higher one';
    const found = [
      { id: 'run', label: 'order of the data set', of: (image) => image.position, down: false, meaning: '' },
      ...errorOrders.of(run),
      { id: 'name', label: 'name', of: (image) => image.key, down: false, meaning: '' },
      {
        id: 'detections', label: 'number of detections', of: counted('detections'), settings: ofBoxes,
        meaning: `Number of ${from}.`,
      },
      { id: 'best', label: 'best score', of: counted('best'), settings: ofBoxes, meaning: `Highest score, 0 to 1, of ${from}.` },
      {
        id: 'lowest', label: 'lowest score', of: counted('lowest'), settings: ofBoxes,
        meaning: `Lowest score, 0 to 1, of ${from}.`,
      },
    ];
    if (hasTruth(run)) {
      found.push(
        {
          id: 'truth', label: 'number of ground-truth boxes', of: counted('truth'), settings: ofBoxes,
          meaning: 'Number of ground-truth boxes.',
        },
        {
          id: 'energy', label: `energy inside boxes${when}`, of: focus, percent: true, settings: ['level'],
          meaning: 'Share of the heat of the chosen level that lies inside ground-truth boxes.',
        },
        {
          id: 'gain',
          label: `gain over chance${when}`,
          of: (image, chosen) => (focus(image, chosen) === null || !image.share ? null : focus(image, chosen) / image.share),
          settings: ['level'],
          meaning: 'Share of the heat inside ground-truth boxes, divided by their share of the area: 1 is chance.',
        },
      );
    }
    return [...found, ...changes.orders(run)];
  }

  /** Whether the run has ground-truth boxes. */
  const hasTruth = (run) => run.images.some(({ values }) => values.some(({ truth }) => Object.keys(truth).length));

  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === 'string' ? names.compare(a, b) : a - b);

  /** Whether images need a box of a certain kind to be listed. */
  const isFiltered = (chosen) => chosen.class !== '' || errors.areFiltered(chosen);

  /** The images whose name contains all words of the search. */
  function search(run, chosen) {
    const words = chosen.search.toLowerCase().split(/\s+/).filter(Boolean);
    return run.images.filter(({ key }) => words.every((word) => key.toLowerCase().includes(word)));
  }

  /**
   * Search, filter and sort the images of a run, with the settings of now. Returns the images whose name contains all
   * words of the search and that have a box that fits the filters, or only the marked ones among them. Images without the
   * figure are last in both directions.
   */
  function arrange(run, order, chosen) {
    const fits = search(run, chosen).filter((image) => (!chosen.marked || marks.has(image))
      && (!isFiltered(chosen) || counts.hasBoxes(image, chosen)));
    const figures = new Map(fits.map((image) => [image, order.of(image, chosen)]));
    return fits.sort((a, b) => {
      const [one, other] = [figures.get(a), figures.get(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a.position - b.position;
      return (chosen.down ? -1 : 1) * compare(one, other) || a.position - b.position;
    });
  }

  /** The text below the name of an image: the figure that it is sorted by; without one, how many boxes it lists. */
  function caption({ id, of: figureOf, percent, noun }, image, chosen) {
    if (id === 'run' || id === 'name') {
      const { detections, truth } = counts.of(image, chosen);
      const type = chosen.type || (chosen.mechanism && 'missed');
      return type ? `${detections + truth} ${type}` : dom.count(detections, 'detection');
    }
    const figure = figureOf(image, chosen);
    if (figure === null) return '–';
    if (noun) return `${figure} ${noun}`;
    return percent ? `${(100 * figure).toFixed(1)} %` : dom.short(figure);
  }

  return { arrange, caption, hasTruth, isFiltered, of, search };
})();
