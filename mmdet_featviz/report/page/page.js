'use strict';

/*
 * Page: joins the other scripts. It has the settings, the image on view and its data, and passes them on.
 *
 * The Python side calls featviz.run(data) in data/index.js, with the run and its list of images, and
 * featviz.shot(number, data), featviz.photo(number, jpeg) and so on in the other files, see store.js.
 */
const featviz = (() => {
  let run = null;
  let colormaps = new Map(); // name: table, see heat.js
  let sortings = []; // the orders of the run
  let chosen = {}; // the settings, see settings.js
  let image = null; // on view, one of run.images
  let shot = null; // its data, null until loaded
  let wanted = null; // index of the box to select when the image is there
  let similar = null; // what similarity.find() found at the chosen place
  let missing = []; // sentences on what the settings name and is not there
  let comparison = 0; // counts the comparisons, for the same purpose as the next
  let turn = 0; // counts the images opened, so that data which arrives too late is dropped

  /** Begin. `data` is what the Python side writes about the run. */
  function start(data) {
    run = data;
    run.images.forEach((one, position) => { one.position = position; });
    colormaps = new Map(Object.entries(run.colormaps).map(([name, text]) => [name, heat.tableOf(text)]));
    sortings = orders.of(run);
    counts.start(run);
    errors.start(run);
    similarity.start(run);
    const choices = settings.choices(run);
    address.start({ defaults: settings.defaults(run), choices, onWrite: gallery.relink, onChange: set });
    chosen = address.read();
    gallery.start({
      all: run.images,
      link: (one) => address.link({ ...chosen, image: one.key, why: '' }),
      caption: (one) => `${marks.has(one) ? '★ ' : ''}${orders.caption(order(), one, chosen)}`,
      onUse: address.write, // a link that is followed or copied has the settings of now
    });
    controls.start({ run, choices, onChange: set, flip, go });
    marks.start(() => (chosen.marked ? arrange(false) : gallery.recaption()));
    exports.start(gallery.listed, () => chosen);
    ['png', 'svg'].forEach((kind) => dom.find(`save-${kind}`).addEventListener('click', () => savePicture(kind)));
    imageView.start(run, (level) => set({ level, all: false }));
    const explain = (why) => set({ why, all: false });
    explanations.start(explain);
    boxPanel.start(run, explain);
    errorTable.start(run, showBoxes);
    contrastTable.start(run, complain);
    boxMap.start(run, colormaps, openBox);
    typeLegend.start((type) => set({ type }));
    readout.start((mark) => (chosen.similarity ? set({ at: similarity.textOf(mark) }) : boxPanel.select(mark)));
    similarCells.start(({ key }, spot) => set({ image: key, at: similarity.textOf(spot) }, true));
    strip.start({ run, onChoose: (label) => set({ shot: label }), onError: complain });
    keys.start({
      levels: () => shot && shot.sides[0].levels.map(({ name }) => name),
      level: () => chosen.level,
      choose: (level) => set({ level, why: '' }),
      go,
      rowSteps: gallery.rowSteps,
      flip,
      canFlip: controls.isEnabled,
      mark: marks.flip,
      move: (across, down) => zoom.reveal(readout.move(across * zoom.markStep(), down * zoom.markStep())),
      zoom: zoom.by,
    });
    arrange(true);
    countErrors();
    showControls();
    boxMap.update(chosen);
    open();
  }

  /** Open an image, and select a box in it by its index. */
  function openBox(one, box) {
    wanted = box;
    if (one === image && shot && !chosen.all && !chosen.shot) selectWanted();
    else set({ image: one.key, shot: '', all: false }, true);
    dom.find('viewer').scrollIntoView({ block: 'start' });
  }

  function selectWanted() {
    if (wanted !== null) boxPanel.choose(wanted);
    wanted = null;
  }

  /** Change settings, and update what depends on them. With `isStep`, the browser's Back returns to those before. */
  function set(given, isStep = false) {
    // An explanation is of one pass over one image, and in place of a level.
    const isOther = ['image', 'shot', 'level', 'all'].some((name) => name in given && given[name] !== chosen[name]);
    // A place is one of an image, and an explanation is shown in place of what is similar to it.
    const isElsewhere = given.similarity === false || given.why || ('image' in given && given.image !== chosen.image);
    const changes = {
      ...((isOther || given.at) && { why: '' }), ...(isElsewhere && { at: '' }), ...directionOf(given), ...given,
    };
    const changed = Object.keys(changes).filter((name) => changes[name] !== chosen[name]);
    const has = (...names) => names.some((name) => changed.includes(name));
    if (!changed.length) return;
    chosen = { ...chosen, ...changes };
    if (has('search', 'class', 'type', 'size', 'mechanism', 'marked', 'sort', 'down')) arrange(true);
    else if (has(...(order().settings || [])) || (orders.isFiltered(chosen) && has('shot', 'score'))) arrange(false);
    else if (has('shot', 'score')) gallery.recaption();
    if (has('search', 'class', 'size', 'mechanism', 'shot', 'score')) countErrors();
    showControls();
    if (has('image', 'shot')) open();
    else if (has('level', 'all', 'why', 'difference', 'similarity', 'at')) refresh();
    else if (has('colormap', 'range', 'common', 'threshold')) paint();
    imageView.dress(chosen);
    boxMap.update(chosen);
    showChanges();
    if (isStep) address.push(chosen);
    else address.writeSoon(chosen);
  }

  /** The direction of an order that is chosen by hand, if it has one of its own. */
  function directionOf({ sort, down }) {
    const { down: usual } = sort !== undefined && sort !== chosen.sort && down === undefined ? orderOf(sort) : {};
    return usual === undefined ? {} : { down: usual };
  }

  /** Show the boxes that fit these filters: in the image on view, or in the first one that has some. */
  function showBoxes(filters) {
    set({ mechanism: '', ...filters });
    if (gallery.first() && !gallery.listed().includes(image)) set({ image: gallery.first().key }, true);
    dom.find('viewer').scrollIntoView(); // the tables fill the screen
  }

  /** Turn a setting on or off. */
  const flip = (name) => set({ [name]: !chosen[name] });

  /** Open the image this many places after the one on view, if there is one; `isHeld` while its key is held down. */
  function go(steps, isHeld = false) {
    const next = gallery.neighbor(steps);
    if (next && next !== image) set({ image: next.key }, !isHeld);
  }

  const orderOf = (id) => sortings.find((one) => one.id === id);
  const order = () => orderOf(chosen.sort);

  /** Search and sort the list of images. It shows its top with `isTop`, or else the image on view. */
  function arrange(isTop) {
    gallery.show(orders.arrange(run, order(), chosen), image, isTop);
    dom.find('meaning').textContent = order().meaning;
  }

  /** Count and compare the errors of the images that the search finds. */
  function countErrors() {
    const images = orders.search(run, chosen);
    errorTable.update(images, chosen);
    contrastTable.update(images, run, chosen);
  }

  const showControls = () => controls.show(chosen, gallery.ends());

  /** Say what the runs found and missed in the image on view. */
  function showChanges() {
    dom.find('changes').textContent = image ? changes.words(run, image, chosen).join(' ') : '';
  }

  /** The image that the settings name; the first one if there is no such image, null without any. */
  function imageOf({ image: named }) {
    const { images } = run;
    return images.find(({ key }) => key === named)
      || images.find(({ key }) => address.roundTrip(key) === address.roundTrip(named))
      || gallery.first() || images[0] || null;
  }

  /** Load the image that the settings name, and show it. */
  async function open() {
    const mine = ++turn;
    const named = chosen.image;
    const before = image;
    image = imageOf(chosen);
    gallery.mark(image);
    marks.show(image);
    showControls();
    dom.find('viewer').hidden = image === null;
    if (image === null) return;
    missing = [];
    if (named !== image.key) {
      if (named && address.roundTrip(named) !== address.roundTrip(image.key)) missing.push(`There is no image ${named}.`);
      chosen.image = image.key;
      address.writeNow(chosen);
    }
    const { key, shots } = image;
    const [number, label] = shots[counts.placeOf(image, chosen.shot)];
    if (chosen.shot && label !== chosen.shot) missing.push(`This image has no ${chosen.shot}.`);
    dom.find('name').textContent = [key, label].filter(Boolean).join(', ');
    showChanges();
    store.keep(shots.length);
    try {
      const data = await store.shot(number);
      if (mine !== turn) return;
      shot = data;
      readout.reset(shot.size);
      boxPanel.reset();
      if (before !== image) zoom.reset(shot.size);
      dom.find('trouble').hidden = true;
      await refresh();
      if (mine !== turn) return;
      selectWanted();
      if (before !== null && before !== image) imageView.reveal();
      loadNeighbors();
    } catch (error) {
      if (mine !== turn) return;
      clear();
      complain(error);
    }
  }

  /** Load the images before and after, so that they open at once. */
  function loadNeighbors() {
    [1, -1].map(gallery.neighbor).filter(Boolean)
      .forEach((one) => store.shot(one.shots[counts.placeOf(one, chosen.shot)][0]).catch(() => {}));
  }

  /** Compare cells if a place is chosen, and show the image. */
  async function refresh() {
    const mine = ++comparison;
    similar = null;
    const isOn = shot !== null && chosen.similarity && !chosen.all && !chosen.why;
    if (isOn && similarity.placeIn(shot.size, chosen)) {
      const found = await similarity.find(shot, chosen).catch(complain);
      if (mine !== comparison) return;
      similar = found || null;
    }
    build();
    if (similar) similarCells.search(chosen.level, otherImages(), similar).catch(complain);
    else similarCells.say(isOn ? adviceOf(chosen) : '');
  }

  /** The other images, by the number of the shot that is shown of them. */
  const otherImages = () => new Map(run.images.filter((one) => one !== image)
    .map((one) => [one.shots[counts.placeOf(one, chosen.shot)][0], one]));

  /** What to do to compare cells, or why they cannot be. */
  function adviceOf({ level, at }) {
    const size = similarity.megabytes(level);
    if (!size) return `${level} has no embeddings to compare: choose another level.`;
    const reason = at ? 'There is no cell at this place. ' : '';
    return `${reason}Click on the picture, or press Enter at the mark, to see how similar all cells are to the one there. `
      + `Embeddings of all images at ${level}: ${size.toFixed(1)} MB, read at the first click.`;
  }

  /** Show the data of the image with the settings of now. */
  function build() {
    if (!shot) return; // its file is missing, or still being loaded
    dom.keepFocus(dom.find('pictures'), () => {
      const large = imageView.show(shot, chosen, missing, similar);
      zoom.watch(large); // first, as a drag is no click
      readout.watch(large, matches.of(shot));
    }, imageView.current);
    if (chosen.all) strip.clear();
    else strip.show(image.shots, shot.number, chosen.level, look);
    paint();
  }

  /** How heat is drawn now, see picture.js. */
  const look = () => ({ ...chosen, table: colormaps.get(chosen.colormap) });

  /** Paint the heat of all pictures. */
  function paint() {
    imageView.paint(look);
    strip.paint(look);
    readout.show();
  }

  /** Show no picture, so that the picture of another image does not stay below the name of this one. */
  function clear() {
    shot = null;
    similarCells.say();
    imageView.clear();
    strip.clear();
    readout.reset(null);
    readout.watch([], []);
    zoom.watch([]);
    boxPanel.reset();
    boxPanel.watch([], []);
    readout.show();
  }

  /** Save the large pictures as a file of this kind. */
  function savePicture(kind) {
    const large = imageView.large();
    if (!large.length) return;
    const name = [image.key.split('/').pop(), large[0].level.name, kind].join('.');
    pictureFile.save(name, large, shot.canvas, chosen, run.settings.blend === 'add');
  }

  function complain({ message }) {
    dom.find('trouble').textContent = message;
    dom.find('trouble').hidden = false;
  }

  return {
    run: start, shot: store.receive, photo: store.receivePhoto, boxes: store.receiveBoxes, cells: store.receiveCells,
    contrasts: store.receiveContrasts,
  };
})();
