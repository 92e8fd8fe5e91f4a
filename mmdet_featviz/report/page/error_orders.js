'use strict';

/* Error orders: the orders of images by their errors, see orders.js. */
const errorOrders = (() => {
  const SETTINGS = ['shot', 'score', 'class', 'type', 'size', 'mechanism']; // that numbers of boxes depend on

  const figure = (name) => (image, chosen) => counts.errorsOf(image, chosen)[name];

  const ORDERS = [
    {
      id: 'missed', label: 'missed objects', of: figure('missed'), settings: SETTINGS, noun: 'missed', down: true,
      meaning: 'Number of ground-truth boxes that no prediction from the score of the slider on has found.',
    },
    {
      id: 'false', label: 'false predictions', of: figure('wrong'), settings: SETTINGS, noun: 'false', down: true,
      meaning: 'Number of predictions from the score of the slider on that are not true.',
    },
    {
      id: 'ap', label: 'AP of the image', of: figure('precision'), settings: ['shot', 'score', 'class'], down: false,
      meaning: 'Average precision of this image alone, 0 to 1: at an overlap of 0.5, the mean over the classes of its '
        + 'ground truth, of predictions from the score of the slider on. Filters other than that of classes do not count.',
    },
  ];

  /** The orders of a run; none without errors. */
  const of = (run) => (run.errors ? ORDERS : []);

  return { of };
})();
