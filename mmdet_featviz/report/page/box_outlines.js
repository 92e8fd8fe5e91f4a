'use strict';

/*
 * Box outlines: the boxes over a picture. Those with a known error look as their type, see errors.js: by color, by the style
 * of the line, and false and missed ones by letters beside them.
 */
const boxOutlines = (() => {
  const TYPES = { // color, letters, dashes in a picture file (in widths of its lines), width there
    true: { color: '#5dff8f' },
    localization: { color: '#ffe14d', letters: 'L', dashes: [4, 2] },
    classification: { color: '#cbb0ff', letters: 'C', dashes: [4, 2, 1, 2] },
    both: { color: '#ffb066', letters: 'LC', dashes: [1, 1.5] },
    duplicate: { color: '#8fd3ff', letters: 'D', dashes: [1, 3] },
    background: { color: '#ff8a80', letters: 'B', width: 4 },
    ignored: { color: '#c8c8c8' },
    found: { color: '#ffffff', dashes: [3, 2] },
    missed: { color: '#ff66e5', letters: 'M', dashes: [3, 1.5], width: 4 },
  };

  /**
   * The outline of a box, placed in percent of the picture, so that it grows and shrinks with it.
   *
   * @param classes - names of the classes, by label
   * @param colors - their colors
   * @param row - left, top, right, bottom, label, score (null for ground truth)
   * @param size - width and height of the image
   * @param error - of the box, as error_rows() returns it; null if it is not known
   */
  function make(classes, colors, [left, top, right, bottom, label, score], [width, height], error) {
    const box = dom.element('div', score === null ? 'box truth' : 'box');
    const name = classes[label] === undefined ? String(label) : classes[label];
    const color = score === null ? [255, 255, 255] : colors[label] || [255, 178, 255];
    box.style.left = `${left / width * 100}%`;
    box.style.top = `${top / height * 100}%`;
    box.style.width = `${(right - left) / width * 100}%`;
    box.style.height = `${(bottom - top) / height * 100}%`;
    box.style.setProperty('--color', `rgb(${color.join(' ')})`);
    // Keep its text inside the picture.
    box.classList.toggle('right', left > 0.7 * width);
    box.classList.toggle('high', top < 0.06 * height);
    box.classList.toggle('low', bottom > 0.94 * height);
    box.dataset.name = name;
    box.dataset.score = score === null ? '' : score;
    const text = dom.element('span', '', name);
    if (score !== null) text.append(dom.element('i', '', ` ${score.toFixed(2)}`));
    box.append(text);
    if (error) setError(box, error);
    return box;
  }

  function setError(box, { size, mechanism, finder, type }) {
    const isTruth = box.classList.contains('truth');
    Object.assign(box.dataset, { known: type, size, mechanism: mechanism || '', finder: isTruth && finder !== null ? finder : '' });
    box.append(dom.element('b'));
  }

  /** The box of an outline as errors.js has it; null if its error is not known. */
  function boxOf({ classList, dataset: { name, score, known, size, mechanism, finder } }) {
    if (!known) return null;
    const isTruth = classList.contains('truth');
    const deciding = isTruth ? finder : score;
    const steps = deciding === '' ? -1 : scores.toSteps(Number(deciding));
    return { isTruth, name, steps, type: known, size, mechanism };
  }

  /** Show an outline, or hide it, with these settings, and give it the look of its type. */
  function dress(outline, chosen) {
    const { name, score } = outline.dataset;
    const box = boxOf(outline);
    if (box) {
      setType(outline, errors.typeOf(box, chosen.score));
      outline.hidden = !errors.fits(box, chosen);
    } else {
      const isLow = score !== '' && Number(score) < chosen.score;
      outline.hidden = isLow || errors.areFiltered(chosen) || (chosen.class !== '' && name !== chosen.class);
    }
  }

  /** Give an outline, or a sample of one, the look of a type. */
  function setType(outline, type) {
    const { color, letters } = TYPES[type];
    outline.dataset.type = type;
    outline.style.setProperty('--color', color);
    const mark = outline.querySelector('b');
    mark.textContent = letters || '';
    mark.hidden = !letters;
  }

  /** A sample of the outlines of a type. */
  function sample(type) {
    const made = dom.element('span', type === 'found' || type === 'missed' ? 'box truth' : 'box');
    made.append(dom.element('b'));
    setType(made, type);
    return made;
  }

  const scoreOf = ({ dataset: { score } }) => (score === '' ? -1 : Number(score));

  /** Outlines by descending score, ground truth last. */
  const byScore = (outlines) => [...outlines].sort((a, b) => scoreOf(b) - scoreOf(a));

  /** The texts of an outline: the letters of its type, '' without any, and its labels, from the longest to the shortest. */
  function textsOf({ dataset: { name, score, type } }) {
    const { letters = '' } = TYPES[type] || {};
    return { letters, labels: score === '' ? [name] : [`${name} ${Number(score).toFixed(2)}`, name] };
  }

  /** The dashes and the width of an outline in a picture file, for lines of this width. */
  function lineOf({ classList, dataset: { type } }, width) {
    const { dashes = [], width: wide = width } = TYPES[type] || { dashes: classList.contains('truth') ? [3, 2] : [] };
    return { dashes: dashes.map((length) => length * width), width: wide };
  }

  /** The color of a type. */
  const colorOf = (type) => TYPES[type].color;

  return { boxOf, byScore, colorOf, dress, lineOf, make, sample, textsOf };
})();
