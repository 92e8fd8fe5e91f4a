'use strict';

/*
 * Box panel: what is known of the box at the mark, see readout.js: its type, if it has one, match, mechanism, contrasts
 * and explanation. Of several boxes the smallest; with two runs, one of each. The box it is matched with and the candidate
 * are marked in the picture.
 */
const boxPanel = (() => {
  const place = dom.find('box');
  let run = null;
  let sides = []; // of the image on view, each with its boxes and their errors
  let pictures = []; // large ones, of the same sides
  let selected = []; // index of the box of each side, null for none
  let score = 0; // lowest score
  let why = ''; // the explanation that is shown
  let explain = () => {};

  /** Begin. `given` is the run; `onExplain` is called with the id of an explanation, or '' to return to the level. */
  function start(given, onExplain) {
    [run, explain] = [given, onExplain];
  }

  /** Show no box: another image follows. */
  function reset() {
    selected = [];
    show();
  }

  /** These are the pictures of now, of these sides of an image. The selected boxes stay. */
  function watch(givenPictures, givenSides) {
    [pictures, sides] = [givenPictures.filter(({ isDifference }) => !isDifference), givenSides];
    show();
  }

  /** Select the boxes at a point of the image, {x, y}. */
  function select({ x, y }) {
    selected = pictures.map((one, side) => (hasErrors(side) ? boxAt(side, x, y) : null));
    show();
  }

  /** Select a box of the first run by its index. */
  function choose(index) {
    selected = pictures.map((one, side) => (side === 0 && one.boxes[index] ? index : null));
    show();
  }

  const hasErrors = (side) => Boolean(sides[side] && sides[side].errors);

  /** Index of the smallest box on view that contains a point; null without one. */
  function boxAt(side, x, y) {
    const { boxes } = sides[side];
    const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
    const hits = boxes.map((_, place) => place).filter((place) => {
      const [left, top, right, bottom] = boxes[place];
      return pictures[side].boxes[place].offsetWidth > 0 && x >= left && x < right && y >= top && y < bottom;
    });
    return hits.length ? hits.reduce((best, one) => (area(boxes[one]) < area(boxes[best]) ? one : best)) : null;
  }

  /** Show the selected boxes with the lowest score of now. */
  function dress(chosen) {
    ({ score, why } = chosen);
    show();
  }

  function show() {
    pictures.forEach(({ stage, boxes }) => {
      stage.querySelectorAll('.candidate').forEach((one) => one.remove());
      boxes.forEach((one) => one.classList.remove('selected', 'partner'));
    });
    const parts = pictures.map((_, side) => (Number.isInteger(selected[side]) ? partOf(side, selected[side]) : null))
      .filter(Boolean);
    place.hidden = !parts.length;
    const buttons = () => place.querySelectorAll('button');
    dom.keepFocus(place, () => place.replaceChildren(...parts), (number) => buttons()[number] || buttons()[0]);
    boxLabels.place(); // the candidate has one
  }

  function partOf(side, index) {
    const picture = pictures[side];
    const row = sides[side].boxes[index];
    const error = hasErrors(side) ? sides[side].errors[index] : null;
    picture.boxes[index].classList.add('selected');
    const facts = dom.element('dl');
    const add = (term, ...contents) => {
      const text = dom.element('dd');
      text.append(...contents);
      facts.append(dom.element('dt', '', term), text);
    };
    if (error) addError(add, side, index);
    else if (hasErrors(side)) add('type', `none: ${row[5] === null ? 'the evaluation did not count it' : errors.UNTYPED}`);
    if (side === 0) explanationsOf(index).forEach((one) => add('explanation', explanationButton(one)));
    const part = dom.element('div');
    part.append(dom.element('h3', '', `${picture.letter && `${picture.letter}: `}${nameOf(side, row)}`), facts);
    if (error && error.contrasts && Object.keys(error.contrasts).length) part.append(contrastTable(side, error));
    return part;
  }

  /** Add what the evaluation found out about a box to its facts. */
  function addError(add, side, index) {
    const picture = pictures[side];
    const error = sides[side].errors[index];
    const type = errors.typeOf(boxOutlines.boxOf(picture.boxes[index]), score);
    const isLost = type === 'missed' && error.finder !== null && error.finder !== undefined; // below the lowest score
    add('type', `${type}: ${isLost ? `its prediction, ${error.finder.toFixed(2)}, is below the lowest score` : errors.MEANINGS[type]}`);
    if (error.match !== null && !isLost) {
      picture.boxes[error.match].classList.add('partner');
      add('match', matchButton(side, error.match), ` IoU ${dom.short(error.iou)}`);
    } else if (type === 'background') {
      add('largest IoU', dom.short(error.iou));
    }
    add('size', error.size);
    if (type === 'missed' && error.mechanism) addMechanism(add, side, error);
  }

  const classOf = (side, label) => (run.classes[side][label] === undefined ? String(label) : run.classes[side][label]);

  /** What a box is, such as "cat 0.90" or "cat, ground truth". */
  function nameOf(side, [, , , , label, own]) {
    return own === null ? `${classOf(side, label)}, ground truth` : `${classOf(side, label)} ${own.toFixed(2)}, prediction`;
  }

  const matchButton = (side, index) => dom.button(nameOf(side, sides[side].boxes[index]), () => {
    selected[side] = index;
    show();
  });

  const explanationsOf = (index) => sides[0].explanations.filter(({ clicks }) => clicks.includes(index));

  function explanationButton({ id, facts }) {
    const button = dom.button(facts, () => explain(id === why ? '' : id));
    button.setAttribute('aria-pressed', id === why);
    return button;
  }

  function addMechanism(add, side, { mechanism, candidate }) {
    add('mechanism', `${mechanism.replace('_', ' ')}: ${errors.MECHANISMS[mechanism]}`);
    if (!candidate) return;
    const [left, top, right, bottom, label, own, overlap] = candidate;
    add('best candidate', `${classOf(side, label)} ${own.toFixed(2)}, IoU ${dom.short(overlap)} (thin line)`);
    const outline = boxOutlines.make(run.classes[side], run.colors[side], [left, top, right, bottom, label, own], pictures[side].size, null);
    outline.classList.add('candidate');
    pictures[side].stage.querySelector('.boxes').append(outline);
  }

  /** The contrast of an object at each level, beside the means of its size; those are of run A. */
  function contrastTable(side, { contrasts, size }) {
    const hasMeans = side === 0;
    const { letter } = pictures[side];
    const text = (value) => (value === null || value === undefined ? '–' : dom.short(value));
    const heads = ['', 'this object', ...(hasMeans ? [`found ${size}`, `missed ${size}`] : [])];
    const table = tables.make('Contrast by level', heads, Object.entries(contrasts).map(([level, value]) => {
      const means = hasMeans ? ((run.errors.contrasts[level] || {})[size] || [null, null]) : [];
      return [level, ...[value, ...means].map(text)];
    }));
    table.title = 'Mean heat inside the box minus that in the ring around it; of features in standard deviations of the '
      + 'heatmap, of class scores in probability. Means are over all objects of this size.';
    const region = dom.element('div', 'scroll');
    region.tabIndex = 0;
    region.setAttribute('role', 'region');
    region.setAttribute('aria-label', `Contrast by level${letter && ` in ${letter}`}`);
    region.append(table);
    return region;
  }

  return { choose, dress, reset, select, start, watch };
})();
