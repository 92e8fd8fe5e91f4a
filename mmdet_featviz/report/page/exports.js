'use strict';

/* Exports: files of the listed images, which the browser saves. */
const exports = (() => {
  /** Let the browser save a blob. */
  function save(name, blob) {
    const link = dom.element('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000); // saving begins after the click
  }

  const nameOf = ({ key, name }) => (name === undefined ? key : name);

  /** The names of images as the option `image_names` takes them, for a config. */
  const listOf = (images) => `image_names = ${JSON.stringify(images.map(nameOf), null, 4)}\n`;

  /** A cell of a table. Spreadsheets would run a text that begins like a formula. */
  function cell(value) {
    if (value === null) return '';
    if (typeof value !== 'string') return String(value);
    return `"${value.replace(/^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/, "'$&").replace(/"/g, '""')}"`;
  }

  /** Images as a table, with what the boxes are that count with these settings. */
  function tableOf(images, chosen) {
    const ofErrors = errors.areKnown() ? ['missed', 'false', 'ap'] : [];
    const head = ['image', 'marked', 'note', 'detections', 'best_score', 'lowest_score', 'ground_truth_boxes', ...ofErrors];
    const rows = images.map((image) => {
      const { detections, best, lowest, truth } = counts.of(image, chosen);
      const { missed, wrong, precision } = counts.errorsOf(image, chosen);
      return [image.key, Number(marks.has(image)), marks.noteOf(image), detections, best, lowest, truth,
        ...[missed, wrong, precision].slice(0, ofErrors.length)].map(cell);
    });
    return [head, ...rows].map((row) => `${row.join(',')}\r\n`).join('');
  }

  /** Begin. `listed` returns the listed images, and `settings` the settings. */
  function start(listed, settings) {
    const text = (words) => new Blob([words], { type: 'text/plain;charset=utf-8' });
    dom.find('export-list').addEventListener('click', () => save('image_names.py', text(listOf(listed()))));
    dom.find('export-table').addEventListener('click', () =>
      save('images.csv', text(`\ufeff${tableOf(listed(), settings())}`))); // the mark tells spreadsheets that it is UTF-8
  }

  return { save, start };
})();
