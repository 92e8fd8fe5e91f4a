'use strict';

/*
 * Box map: all boxes of the run on a plane, those with similar features near each other. The box under the pointer, or the
 * one that the arrow keys went to, shows its part of the image; a click, or Enter, opens the image.
 *
 * The Python side writes the boxes, see box_map_data(). They are loaded when the map is opened.
 */
const boxMap = (() => {
  const STEPS = 10000; // of a place, as in Python; and of a score
  const EDGE = 12; // pixels around the map
  const REACH = 14; // pixels from a box to the pointer
  const MARK = 5; // pixels of a mark
  const MARGIN = 0.3; // of the image around a box, in its sizes
  const UNKNOWN = '#c8c8c8';
  const SCORES = 'viridis';
  const LISTED = 24; // classes in the legend
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const details = dom.find('boxmap');
  const canvas = dom.find('map');
  const crop = dom.find('map-crop');
  let run = null;
  let colorTables = new Map(); // of colors, by name of a colormap
  let open = () => {};
  let chosen = {}; // settings
  let data = null; // null until loaded
  let boxes = []; // as errors.js has them, and with { at, label }
  let shown = []; // those that fit the settings
  let placed = {}; // what places() found last
  let current = null; // the box at the mark
  let turn = 0; // counts the boxes at the mark, so that an image that arrives too late is dropped

  /** What the settings of the map can be: {name of a setting: [[value, text], ...]}. */
  function choices({ boxes: map, errors: known }) {
    if (!map) return { maplevel: [['', '']], mapcolor: [['class', 'class']] };
    return {
      maplevel: map.levels.map((name) => [name, name]),
      mapcolor: [['class', 'class'], ...(known ? [['type', 'type of error']] : []), ['score', 'score']],
    };
  }

  /** Begin. `onOpen` is called with an image and the index of a box in it. */
  function start(given, colors, onOpen) {
    [run, colorTables, open] = [given, colors, onOpen];
    details.hidden = !run.boxes;
    if (!run.boxes) return;
    dom.find('map-count').textContent = dom.count(run.boxes.levels.length, 'level');
    details.addEventListener('toggle', () => { if (details.open) load(); });
    new ResizeObserver(draw).observe(canvas);
    canvas.addEventListener('pointermove', (event) => mark(nearest(event)));
    canvas.addEventListener('pointerdown', (event) => mark(nearest(event)));
    canvas.addEventListener('click', openCurrent);
    canvas.addEventListener('keydown', onKey);
  }

  async function load() {
    if (data) return;
    try {
      data = await store.boxes(0);
    } catch ({ message }) {
      dom.find('map-text').textContent = message;
      return;
    }
    boxes = data.images.map((_, at) => boxOf(at));
    refresh();
  }

  function boxOf(at) {
    const { types = [], sizes = [], mechanisms = [] } = run.errors || {};
    const label = data.labels[at];
    return {
      at, label, isTruth: data.truth[at] === 1, name: nameOf(label), steps: data.steps[at],
      type: types[data.types[at]] || '', size: sizes[data.sizes[at]], mechanism: mechanisms[data.mechanisms[at]] || '',
    };
  }

  const nameOf = (label) => (run.classes[0][label] === undefined ? String(label) : run.classes[0][label]);

  /** Show the map with these settings. */
  function update(settings) {
    chosen = settings;
    if (data) refresh();
  }

  function refresh() {
    shown = boxes.filter(fits);
    const level = levelOf();
    dom.find('map-count').textContent = `${dom.count(run.boxes.levels.length, 'level')}, ${shown.length} of ${boxes.length} boxes`;
    dom.find('map-method').textContent = level ? `${level.method}.` : '';
    showLegend();
    draw();
    if (!shown.includes(current)) mark(null);
    else mark(current);
    canvas.dataset.drawn = shown.length; // for programs that wait for it
  }

  const levelOf = () => data.levels.find(({ name }) => name === chosen.maplevel) || data.levels[0];

  function fits(box) {
    if (box.isTruth ? !chosen.truth : !chosen.pred) return false;
    if (box.type) return errors.fits(box, chosen);
    const isLow = !box.isTruth && box.steps < Math.round(chosen.score * STEPS);
    return !isLow && !errors.areFiltered(chosen) && (!chosen.class || box.name === chosen.class);
  }

  const typeOf = (box) => (box.type ? errors.typeOf(box, chosen.score) : '');

  function colorOf(box) {
    if (chosen.mapcolor === 'type') return typeOf(box) ? boxOutlines.colorOf(typeOf(box)) : UNKNOWN;
    if (chosen.mapcolor === 'score') return box.isTruth ? '#ffffff' : colorOfScore(box.steps / STEPS);
    return `rgb(${(run.colors[0][box.label] || [255, 178, 255]).join(' ')})`;
  }

  function colorOfScore(score) {
    const rgba = new Uint8Array(colorTables.get(SCORES).buffer, 4 * Math.round(255 * Math.min(Math.max(score, 0), 1)), 3);
    return `rgb(${rgba.join(' ')})`;
  }

  /** Where all boxes are on the canvas, { x, y } in pixels of the page; found again when level or size change. */
  function places() {
    const level = levelOf();
    const { clientWidth: width, clientHeight: height } = canvas; // once, as reading them for each box takes long
    if (placed.level !== level || placed.width !== width || placed.height !== height) {
      const [x, y] = [width, height].map((length, axis) => level.points[axis].map((step) => EDGE + step / STEPS * (length - 2 * EDGE)));
      placed = { level, width, height, x, y };
    }
    return placed;
  }

  /** Where a box is on the canvas. */
  function placeOf({ at }) {
    const { x, y } = places();
    return { x: x[at], y: y[at] };
  }

  function draw() {
    if (!data || !details.open || !data.levels.length) return;
    const scale = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map(Math.round);
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.globalAlpha = shown.length > 2000 ? 0.7 : 1;
    const { x, y } = places();
    shown.forEach((box) => {
      const [left, top] = [x[box.at] - MARK / 2, y[box.at] - MARK / 2];
      if (box.isTruth) {
        context.strokeStyle = colorOf(box);
        context.strokeRect(left + 0.5, top + 0.5, MARK - 1, MARK - 1);
      } else {
        context.fillStyle = colorOf(box);
        context.fillRect(left, top, MARK, MARK);
      }
    });
    if (current) putDot();
  }

  /** The box on view that is nearest to the pointer, null if none is near. */
  function nearest({ clientX, clientY }) {
    if (!data || !data.levels.length) return null;
    const { left, top } = canvas.getBoundingClientRect();
    const { x, y } = places();
    let [best, least] = [null, REACH];
    shown.forEach((box) => {
      const distance = Math.hypot(x[box.at] - clientX + left, y[box.at] - clientY + top);
      if (distance < least) [best, least] = [box, distance];
    });
    return best;
  }

  /** Go to the nearest box in the direction of an arrow key; to the one in the middle if there is no mark. */
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Enter') openCurrent();
    else if (event.key in ARROWS) mark(neighbor(ARROWS[event.key]) || current);
    else return;
    event.preventDefault();
    event.stopPropagation(); // on the rest of the page these keys are for images and levels
  }

  function neighbor([across, down]) {
    if (!data || !data.levels.length) return null;
    const from = current ? placeOf(current) : { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 };
    const { x, y } = places();
    let [best, least] = [null, Infinity];
    shown.forEach((box) => {
      const [right, below] = [x[box.at] - from.x, y[box.at] - from.y];
      const [along, aside] = [right * across + below * down, Math.abs(right * down + below * across)];
      const distance = current ? along + 2 * aside : Math.hypot(right, below);
      if ((current ? along > 0 && aside <= along : true) && distance < least) [best, least] = [box, distance];
    });
    return best;
  }

  function openCurrent() {
    if (current) open(run.images[data.images[current.at]], data.numbers[current.at]);
  }

  /** Put the mark at a box, and show it; nothing if null. */
  function mark(box) {
    document.querySelectorAll('#map-plot .dot').forEach((dot) => dot.remove());
    const isOther = box !== current;
    current = box;
    if (box) putDot();
    dom.find('map-text').textContent = box ? wordsOn(box) : '';
    if (!isOther && !crop.hidden) return;
    turn += 1;
    crop.hidden = true;
    if (box) showCrop(box, turn);
  }

  function putDot() {
    const dot = document.querySelector('#map-plot .dot') || dom.element('div', 'dot');
    const { x, y } = placeOf(current);
    dot.style.left = `${x}px`;
    dot.style.top = `${y}px`;
    canvas.parentElement.append(dot);
  }

  function wordsOn(box) {
    const kind = box.isTruth ? 'ground truth' : `${(box.steps / STEPS).toFixed(2)}, prediction`;
    const parts = [`${box.name} ${kind}`, typeOf(box), run.images[data.images[box.at]].key];
    return `${parts.filter(Boolean).join('; ')}. A click or Enter opens the image.`;
  }

  /** Show the part of the image around a box. */
  async function showCrop({ at }, mine) {
    const { thumb } = run.images[data.images[at]];
    if (thumb === null) return;
    const image = new Image();
    try {
      image.src = await store.photo(thumb);
      await image.decode();
    } catch (error) {
      return; // without its file there is only text
    }
    if (mine !== turn) return;
    const [width] = data.image_sizes[data.images[at]];
    const scale = image.naturalWidth / width;
    const [left, top, right, bottom] = data.corners[at].map((side) => side * scale);
    const side = Math.max(right - left, bottom - top, 8) * (1 + 2 * MARGIN);
    const zoomed = crop.width / side;
    const context = crop.getContext('2d');
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, crop.width, crop.height);
    context.setTransform(zoomed, 0, 0, zoomed, crop.width / 2 - zoomed * (left + right) / 2, crop.height / 2 - zoomed * (top + bottom) / 2);
    context.drawImage(image, 0, 0);
    context.lineWidth = 4 / zoomed;
    context.strokeStyle = '#000';
    context.strokeRect(left, top, right - left, bottom - top);
    context.lineWidth = 2 / zoomed;
    context.strokeStyle = '#fff';
    context.strokeRect(left, top, right - left, bottom - top);
    crop.hidden = false;
  }

  function showLegend() {
    dom.find('map-legend').replaceChildren(...entries().map(([color, text]) => {
      const entry = dom.element('span');
      const swatch = dom.element('span', 'swatch');
      swatch.style.background = color;
      entry.append(swatch, text);
      return entry;
    }));
  }

  /** Color and text of what is on view, most frequent first. */
  function entries() {
    if (chosen.mapcolor === 'score') {
      return [...[0, 0.25, 0.5, 0.75, 1].map((score) => [colorOfScore(score), String(score)]), ['#ffffff', 'ground truth']];
    }
    const numbers = new Map();
    const found = new Map();
    shown.forEach((box) => {
      const text = chosen.mapcolor === 'type' ? typeOf(box) || 'no type' : box.name;
      numbers.set(text, (numbers.get(text) || 0) + 1);
      found.set(text, colorOf(box));
    });
    const sorted = [...numbers].sort((a, b) => b[1] - a[1]);
    const more = sorted.length - LISTED;
    const listed = sorted.slice(0, LISTED).map(([text, number]) => [found.get(text), `${number} ${text}`]);
    return more > 0 ? [...listed, ['transparent', `and ${more} more`]] : listed;
  }

  return { choices, start, update };
})();
