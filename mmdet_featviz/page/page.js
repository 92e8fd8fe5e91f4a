'use strict';

/*
 * The page: its settings, its controls, its address. data/index.js calls featviz.run() with the list of images, and
 * files of single images call featviz.shot().
 */
const featviz = (() => {
  const RANGES = {
    image: 'this image',
    max: 'zero to largest',
    layer: 'all levels of the layer',
    run: 'the run (0.5–99.5 %)',
    fixed: 'as the run was drawn',
  };
  const STEP = 10; // pixels of the photo that the mark moves by
  const PAUSE = 200; // milliseconds without input

  const $ = (id) => document.getElementById(id);
  const state = {}; // the settings, as the address names them
  let run, defaults, tables, orders, grid;
  let found = []; // images that fit the search, in order
  let image = null; // that is looked at
  let shot = null; // its data
  let pictures = []; // what is painted
  let legend = null;
  let mark = null; // {x, y} on the photo
  let told = ''; // the address as the settings were last read from it or written to it
  let stale = false; // whether it no longer tells them
  let pause = 0; // the timer of a pause, 0 after it
  let turn = 0; // counts images, so that one that comes late is dropped

  /** Begin, with what report.py tells of the run. */
  function start(data) {
    run = data;
    run.images.forEach((one, position) => { one.position = position; });
    tables = new Map(Object.entries(run.colormaps).map(([name, text]) => [name, heat.tableOf(text)]));
    orders = gallery.orders(run);
    defaults = defaultsOf(run);
    Object.assign(state, defaults, fromAddress());
    told = location.hash;
    $('viewer').classList.toggle('adds', run.settings.blend === 'add');
    fillControls();
    grid = gallery.grid($('grid'), link, caption);
    connect();
    arrange();
    showControls();
    open();
  }

  function defaultsOf({ settings, levels }) {
    const fixed = Array.isArray(settings.normalize);
    return {
      image: '', shot: '', search: '', sort: 'run', down: false,
      level: levels.length ? levels[0].name : '', all: false,
      colormap: settings.colormap, range: fixed ? 'fixed' : settings.normalize,
      alpha: settings.alpha, threshold: 0, score: settings.score, pred: true, truth: true,
    };
  }

  /* The address: #image=a/1&level=neck_0, with the settings that are not the usual ones. */

  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    const values = {};
    given.forEach((text, name) => {
      const usual = defaults[name];
      if (typeof usual === 'string') values[name] = text;
      else if (typeof usual === 'boolean') values[name] = text === '1';
      else if (typeof usual === 'number' && Number(text) >= 0 && Number(text) <= 1) values[name] = Number(text);
    });
    return checked(values);
  }

  /** Without values that there are not. */
  function checked(values) {
    const known = {
      colormap: (name) => tables.has(name),
      range: (name) => name in ranges(),
      sort: (name) => orders.some(({ id }) => id === name),
      level: (name) => run.levels.some((level) => level.name === name),
    };
    Object.keys(known).filter((name) => name in values && !known[name](values[name])).forEach((name) => delete values[name]);
    return values;
  }

  function address(changes) {
    const wanted = { ...state, ...changes };
    const params = new URLSearchParams();
    Object.keys(defaults).filter((name) => wanted[name] !== defaults[name]).forEach((name) => {
      params.set(name, typeof wanted[name] === 'boolean' ? Number(wanted[name]) : wanted[name]);
    });
    return `#${params}`;
  }

  const link = (one) => address({ image: one.key, shot: '' });

  /** Renew the address soon: browsers stop or fail where it is done with each step of a slider or of a held key. */
  function renewSoon() {
    stale = true;
    if (!pause) renew();
    clearTimeout(pause);
    pause = setTimeout(() => {
      pause = 0;
      renew();
    }, PAUSE);
  }

  function renew() {
    if (!stale || location.hash !== told) return; // it may have been changed, which follow() will be told of
    stale = false;
    history.replaceState(null, '', address({}));
    told = location.hash;
    grid.relink();
  }

  /* The controls. */

  const ranges = () => Object.fromEntries(
    Object.entries(RANGES).filter(([name]) => name !== 'fixed' || Array.isArray(run.settings.normalize)));

  function options(select, pairs) {
    select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  }

  function fillControls() {
    options($('level'), run.levels.map(({ name, stride }) => [name, `${name} (stride ${stride})`]));
    options($('colormap'), [...tables.keys()].map((name) => [name, name]));
    options($('range'), Object.entries(ranges()));
    options($('sort'), orders.map(({ id, label }) => [id, label]));
  }

  const FIELDS = ['level', 'colormap', 'range', 'alpha', 'threshold', 'score', 'all', 'pred', 'truth', 'search', 'sort'];

  function showControls() {
    FIELDS.forEach((name) => {
      const field = $(name);
      if (field.type === 'checkbox') field.checked = state[name];
      else if (field.value !== String(state[name])) field.value = state[name];
      const output = document.querySelector(`output[for=${name}]`);
      if (output) output.textContent = state[name].toFixed(2);
    });
    $('direction').textContent = state.down ? '↓' : '↑';
    $('direction').setAttribute('aria-pressed', state.down);
    $('all').disabled = run.levels.length < 2;
    $('truth').disabled = !run.images.some(({ truth }) => truth);
    const places = found.indexOf(image);
    $('previous').disabled = places <= 0;
    $('next').disabled = places < 0 || places >= found.length - 1;
  }

  function connect() {
    FIELDS.forEach((name) => {
      const field = $(name);
      const value = () => (field.type === 'checkbox' ? field.checked : field.type === 'range' ? Number(field.value) : field.value);
      // Lists in some browsers, and drivers of browsers, tell of a change alone.
      ['input', 'change'].forEach((kind) => field.addEventListener(kind, () => set({ [name]: value() })));
    });
    $('direction').addEventListener('click', () => set({ down: !state.down }));
    $('previous').addEventListener('click', () => go(-1));
    $('next').addEventListener('click', () => go(1));
    document.addEventListener('keydown', press);
    window.addEventListener('hashchange', follow);
    // A link that is followed or copied names the settings of now.
    ['pointerdown', 'click'].forEach((kind) => $('grid').addEventListener(kind, renew, true));
  }

  /** Change settings, and renew what depends on them. */
  function set(changes) {
    const changed = Object.keys(changes).filter((name) => changes[name] !== state[name]);
    const has = (...names) => names.some((name) => changed.includes(name));
    if (!changed.length) return;
    Object.assign(state, changes);
    if (has('search', 'sort', 'down') || (has('level') && isOfLevel(order()))) arrange();
    showControls();
    if (has('image', 'shot')) open();
    else if (has('level', 'all')) build();
    else if (has('colormap', 'range', 'threshold')) paint();
    dress();
    renewSoon();
  }

  /** The address was changed by a link, by the user or by going back. */
  function follow() {
    [told, stale] = [location.hash, false];
    set({ ...defaults, ...fromAddress() });
  }

  /* The list of images. */

  const order = () => orders.find(({ id }) => id === state.sort);
  const isOfLevel = ({ id }) => id === 'energy' || id === 'gain';

  function arrange() {
    found = gallery.arrange(run, { search: state.search, order: order(), level: state.level, descending: state.down });
    grid.fill(found);
    grid.mark(image);
    const all = `${run.images.length} image${run.images.length === 1 ? '' : 's'}`;
    if (!run.images.length) $('count').textContent = 'No images to show.';
    else if (!found.length) $('count').textContent = 'No image fits the search.';
    else $('count').textContent = found.length < run.images.length ? `${found.length} of ${all}` : all;
  }

  /** What a thumbnail says: the figure that it is sorted by. */
  function caption(one) {
    const { id, of, percent } = order();
    if (id === 'run' || id === 'name') return `${one.detections} found`;
    const figure = of(one, state.level);
    if (figure === null) return '–';
    return percent ? `${(100 * figure).toFixed(1)} %` : viewer.short(figure);
  }

  /* The image that is looked at. */

  function go(steps) {
    const place = found.indexOf(image) + steps;
    if (place >= 0 && place < found.length) set({ image: found[place].key, shot: '' });
  }

  async function open() {
    const mine = ++turn;
    // Names that are no Unicode come back from an address with signs for what is missing.
    const named = (key) => new URLSearchParams([['', key]]).get('');
    image = run.images.find(({ key }) => key === state.image) || run.images.find(({ key }) => named(key) === named(state.image))
      || found[0] || run.images[0] || null;
    grid.mark(image);
    showControls();
    $('viewer').hidden = image === null;
    if (image === null) return;
    const chosen = image.shots.find(([, label]) => label === state.shot) || image.shots[image.shots.length - 1];
    $('name').textContent = [image.key, chosen[1]].filter(Boolean).join(', ');
    store.keep(image.shots.length);
    try {
      const data = await store.shot(chosen[0]);
      if (mine !== turn) return;
      [shot, mark] = [data, null];
      $('trouble').hidden = true;
      build();
      ahead();
    } catch (error) {
      if (mine !== turn) return;
      clear();
      complain(error);
    }
  }

  /** Show no picture: that of another image must not stand under this one's name. */
  function clear() {
    [shot, mark, pictures, legend] = [null, null, [], null];
    $('pictures').replaceChildren();
    $('pictures').dataset.painted = 0;
    $('notes').textContent = '';
    ['legend', 'strip'].forEach((name) => {
      $(name).hidden = true;
      $(name).replaceChildren();
    });
    read();
  }

  function complain({ message }) {
    $('trouble').textContent = message;
    $('trouble').hidden = false;
  }

  /** Load the neighbours, so that they are there at once. */
  function ahead() {
    [1, -1].map((steps) => found[found.indexOf(image) + steps]).filter(Boolean)
      .forEach(({ shots }) => store.shot(shots[shots.length - 1][0]).catch(() => {}));
  }

  /** The levels of a shot with their partners in the other run. */
  function pairsOf({ sides, partners }) {
    return sides[0].levels.map((a, number) => ({
      a, b: sides.length > 1 ? sides[1].levels.find(({ name }) => name === partners[number]) || null : null,
    }));
  }

  const union = (spans) => [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))];

  /** The range of a pair, one for both. */
  function rangeOf(data, pair) {
    const both = ({ a, b }) => (b ? [a.range, b.range] : [a.range]);
    const [low, high] = union(both(pair));
    if (state.range === 'max') return [0, Math.max(high, 0)]; // empty where all is negative
    if (state.range === 'layer') {
      return union(pairsOf(data).filter(({ a }) => a.layer === pair.a.layer).map(both).flat());
    }
    if (state.range === 'run') {
      const spans = [run.ranges[0][pair.a.name], pair.b && run.ranges[1][pair.b.name]].filter(Boolean);
      return spans.length ? union(spans) : [low, high];
    }
    return state.range === 'fixed' ? run.settings.normalize : [low, high];
  }

  /** The pictures of a pair: of one run, or of both. */
  function picturesOf(data, pair, small) {
    const range = () => rangeOf(data, pair);
    const made = [viewer.picture(run, data, data.sides[0], pair.a, range, small)];
    if (run.runs.length > 1) {
      const side = data.sides[1] || { boxes: [] };
      made.push(viewer.picture(run, data, side, pair.b, range, small));
    }
    made.forEach((one) => Object.assign(one, { range, pair }));
    return made;
  }

  function build() {
    if (!shot) return; // its file is missing, or still on its way
    const pairs = pairsOf(shot);
    const pair = pairs.find(({ a }) => a.name === state.level) || pairs[0];
    pictures = [];
    $('pictures').className = `${state.all ? 'many' : 'one'} of-${run.runs.length}`;
    $('pictures').replaceChildren(...(state.all ? pairs.map(tiles) : pair ? large(pair) : []));
    $('legend').hidden = state.all || !pair;
    buildStrip();
    tell(pair);
    dress();
    paint();
  }

  const letters = (number) => (run.runs.length > 1 ? `${'AB'[number]}: ` : '');
  const facts = (level) => (level ? `${level.channels} channels, stride ${level.stride}` : 'no level of this stride');

  function large(pair) {
    legend = viewer.colourBar();
    const made = picturesOf(shot, pair, false);
    pictures.push(...made);
    const figures = made.map((one, number) => {
      const words = [`${letters(number)}${one.level ? one.level.name : '–'}`, facts(one.level)];
      if (run.runs.length > 1) words.splice(1, 0, run.runs[number]);
      listen(one, number);
      return viewer.captioned(one, words).figure;
    });
    $('legend').replaceChildren(legend.bar);
    return figures;
  }

  function tiles(pair) {
    legend = null;
    const made = picturesOf(shot, pair, true);
    pictures.push(...made);
    const together = viewer.element('div', 'pair');
    together.append(...made.map((one, number) => viewer.captioned(
      one, [`${letters(number)}${one.level ? one.level.name : '–'}`, facts(one.level)],
      () => set({ level: pair.a.name, all: false })).figure));
    return together;
  }

  /** The same level in all epochs, or in all passes. */
  function buildStrip() {
    const strip = $('strip');
    strip.hidden = image.shots.length < 2 || state.all;
    strip.replaceChildren();
    if (strip.hidden) return;
    image.shots.forEach(([number, label]) => {
      const place = viewer.element('div', '', label);
      strip.append(place);
      fillPlace(place, number, label).catch((error) => { if (place.isConnected) complain(error); });
    });
  }

  async function fillPlace(place, number, label) {
    const data = await store.shot(number);
    const pair = pairsOf(data).find(({ a }) => a.name === state.level);
    if (!pair || !place.isConnected) return;
    const [made] = picturesOf(data, pair, true);
    const { figure } = viewer.captioned(made, [label || 'first pass'], () => set({ shot: label }));
    place.replaceWith(figure);
    if (number === shot.number) {
      figure.querySelector('button').setAttribute('aria-current', 'true');
      $('strip').scrollLeft = figure.offsetLeft - $('strip').offsetLeft; // of many epochs the last is far off
    }
    pictures.push(made);
    await made.paint(look);
  }

  /** Say what there is not. */
  function tell(pair) {
    const boxes = shot.sides[0].boxes;
    const words = [];
    if (!pair) words.push('No level of this image was saved.');
    else if (pair.a.name !== state.level) words.push(`This image has no level ${state.level}.`);
    if (run.levels.length === 1) words.push('The run has one level only.');
    if (!boxes.length) words.push('No boxes: neither predictions nor ground truth.');
    if (shot.photo === null) words.push('The photo could not be read.');
    if (run.runs.length > 1 && shot.sides.length < 2) {
      words.push(shot.resized ? 'Run B has this photo in another size.' : 'Run B has no such image.');
    }
    $('notes').textContent = words.join(' ');
  }

  const look = () => ({ table: tables.get(state.colormap), threshold: state.threshold });

  /** What needs no painting. */
  function dress() {
    $('viewer').style.setProperty('--alpha', state.alpha);
    $('viewer').classList.toggle('no-pred', !state.pred);
    $('viewer').classList.toggle('no-truth', !state.truth);
    document.querySelectorAll('.box[data-score]').forEach((box) => {
      box.hidden = box.dataset.score !== '' && Number(box.dataset.score) < state.score;
    });
  }

  /** Paint the heat of all pictures that there are. */
  async function paint() {
    const painted = pictures;
    if (legend && painted.length) legend.paint(look(), painted[0].range());
    await Promise.all(painted.map((one) => one.paint(look)));
    if (painted !== pictures) return;
    $('pictures').dataset.painted = painted.length; // tells that the picture stands
    read();
  }

  /* The value under the pointer, or under the mark. */

  function listen({ frame, shot: { size } }, number) {
    frame.tabIndex = 0;
    frame.setAttribute('role', 'group');
    frame.setAttribute('aria-label', `Picture${run.runs.length > 1 ? ` ${'AB'[number]}` : ''}: Shift and arrows read values`);
    const point = (event) => {
      const { left, top, width, height } = frame.getBoundingClientRect();
      mark = { x: (event.clientX - left) / width * size[0], y: (event.clientY - top) / height * size[1] };
      read();
    };
    frame.addEventListener('pointermove', point);
    frame.addEventListener('pointerdown', point);
  }

  function read() {
    document.querySelectorAll('.mark').forEach((dot) => dot.remove());
    const output = $('value').firstElementChild;
    output.textContent = '';
    const shown = state.all ? [] : pictures.filter(({ shot: data, frame }) => data === shot && frame.tabIndex === 0);
    if (!mark || !shown.length) return;
    const words = shown.filter(({ level }) => level && level.grey).map(({ level, frame }, number) => {
      const dot = viewer.element('div', 'mark');
      dot.style.left = `${mark.x / shot.size[0] * 100}%`;
      dot.style.top = `${mark.y / shot.size[1] * 100}%`;
      frame.append(dot);
      return `${letters(number)}${level.name} ${worded(heat.valueAt(level, mark.x, mark.y))}`;
    });
    output.textContent = `x ${Math.floor(mark.x)}, y ${Math.floor(mark.y)}: ${words.join('; ')}`;
  }

  function worded(value) {
    if (value === null) return 'not seen by the network';
    return Number.isNaN(value) ? 'not finite' : viewer.short(value);
  }

  function moveMark(across, down) {
    const [width, height] = shot.size;
    const from = mark || { x: width / 2, y: height / 2 };
    const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
    mark = { x: inside(from.x + across * STEP, width), y: inside(from.y + down * STEP, height) };
    read();
  }

  /* The keys. */

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** What leads to a level beside the chosen one; null at the last, where arrows scroll the page. */
  function toLevel(steps) {
    const { levels } = shot.sides[0];
    const level = levels[levels.findIndex(({ name }) => name === state.level) + steps];
    return level ? () => set({ level: level.name }) : null;
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && event.target === $('search')) $('search').blur();
    if (event.target.closest('input:not([type=checkbox]), select, .scroll')) return;
    const action = actionOf(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  function actionOf({ key, shiftKey }) {
    if (key === '/') return () => $('search').focus();
    const [across, down] = ARROWS[key] || [0, 0];
    if (across && !shiftKey) return () => go(across); // also away from an image whose file is missing
    if (!shot) return null;
    if (key in ARROWS) return shiftKey ? () => moveMark(across, down) : toLevel(down);
    if (/^[1-9]$/.test(key)) {
      const level = shot.sides[0].levels[Number(key) - 1];
      return level ? () => set({ level: level.name }) : null;
    }
    const flips = { a: 'all', p: 'pred', g: 'truth' };
    return key in flips && !$(flips[key]).disabled ? () => set({ [flips[key]]: !state[flips[key]] }) : null;
  }

  return { run: start, shot: store.receive };
})();
