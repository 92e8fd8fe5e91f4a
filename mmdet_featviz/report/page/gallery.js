'use strict';

/*
 * Gallery: the list of images as a grid of thumbnails, of which only the visible ones exist, and the number of images
 * above it.
 */
const gallery = (() => {
  const WIDTH = 120; // minimum width of a tile, in pixels
  const HEIGHT = 132;
  const MARGIN = 2; // rows beyond the visible ones
  const grid = dom.find('grid');
  const list = grid.querySelector('ul');
  const tiles = new Map(); // place in the list: element
  let total = 0; // images of the run
  let link = null;
  let caption = null;
  let names = new Map(); // of images, see shortNames()
  let images = []; // in the list, in order
  let current = null; // the marked image
  let entry = 0; // the only place that Tab reaches, as there may be thousands; arrows go on from there
  let across = 1; // tiles in a row

  /**
   * Begin with an empty list.
   *
   * @param given.all - the images of the run
   * @param given.link - returns the address of an image
   * @param given.caption - returns the text below the name of an image
   * @param given.onUse - called before a link is followed or copied
   */
  function start(given) {
    ({ link, caption } = given);
    total = given.all.length;
    names = shortNames(given.all);
    ['pointerdown', 'click'].forEach((kind) => grid.addEventListener(kind, given.onUse, true));
    grid.addEventListener('scroll', () => requestAnimationFrame(fill), { passive: true });
    new ResizeObserver(resize).observe(grid);
  }

  /** The name of each image: the end of its key, as long as is needed to tell it from all others. */
  function shortNames(all) {
    const found = new Map();
    let open = all.map((image) => ({ image, parts: image.key.split('/') }));
    for (let length = 1; open.length; length++) {
      const named = open.map((one) => ({ ...one, text: one.parts.slice(-length).join('/') }));
      const uses = new Map();
      named.forEach(({ text }) => uses.set(text, (uses.get(text) || 0) + 1));
      named.forEach(({ image, text }) => found.set(image, text));
      open = named.filter(({ parts, text }) => uses.get(text) > 1 && length < parts.length);
    }
    return found;
  }

  /** Add the tiles that have become visible, and remove those that no longer are. */
  function fill() {
    // Measure everything before changing anything: measuring after a change makes the browser lay out again.
    const first = Math.max(0, Math.floor(grid.scrollTop / HEIGHT) - MARGIN) * across;
    const rows = Math.ceil(grid.clientHeight / HEIGHT) + 2 * MARGIN + 1;
    const last = Math.min(images.length, first + rows * across);
    const added = document.createDocumentFragment();
    tiles.forEach((tile, place) => {
      // A tile that has the focus would lose it.
      if ((place < first || place >= last) && !tile.contains(document.activeElement)) {
        tile.remove();
        tiles.delete(place);
      }
    });
    for (let place = first; place < last; place++) {
      if (!tiles.has(place)) {
        tiles.set(place, tileOf(place));
        added.append(tiles.get(place));
      }
    }
    list.append(added);
  }

  function tileOf(place) {
    const image = images[place];
    const tile = dom.element('li');
    const anchor = dom.element('a');
    tile.style.width = `${100 / across}%`;
    tile.style.height = `${HEIGHT}px`;
    tile.style.left = `${(place % across) * 100 / across}%`;
    tile.style.top = `${Math.floor(place / across) * HEIGHT}px`;
    tile.setAttribute('aria-setsize', images.length);
    tile.setAttribute('aria-posinset', place + 1);
    anchor.href = link(image);
    anchor.title = image.key;
    anchor.tabIndex = place === entry ? 0 : -1;
    if (image === current) anchor.setAttribute('aria-current', 'true');
    if (image.thumb !== null) {
      const picture = dom.element('img');
      picture.alt = '';
      picture.decoding = 'async';
      picture.src = store.thumb(image.thumb);
      anchor.append(picture);
    }
    anchor.append(dom.element('span', '', names.get(image)), dom.element('small', '', caption(image)));
    tile.append(anchor);
    return tile;
  }

  /** Lay the tiles out again, with the marked one, or else the first visible one, where it was in the grid. */
  function resize() {
    const topOf = (place) => Math.floor(place / across) * HEIGHT - grid.scrollTop;
    const isVisible = (place) => place >= 0 && topOf(place) > -HEIGHT && topOf(place) < grid.clientHeight;
    const marked = images.indexOf(current);
    const place = isVisible(marked) ? marked : Math.ceil(grid.scrollTop / HEIGHT) * across;
    const before = topOf(place);
    rebuild();
    grid.scrollTop += topOf(place) - Math.max(0, Math.min(before, grid.clientHeight - HEIGHT));
    fill();
  }

  function rebuild() {
    tiles.forEach((tile) => tile.remove());
    tiles.clear();
    across = Math.max(1, Math.floor(grid.clientWidth / WIDTH));
    list.style.height = `${Math.ceil(images.length / across) * HEIGHT}px`;
    fill();
  }

  /** List these images in this order, and mark one of them; scroll to the top, or else to this one. */
  function show(found, image, isTop) {
    images = found;
    rebuild();
    mark(image, isTop);
    dom.find('count').textContent = countText();
  }

  function countText() {
    const all = dom.count(total, 'image');
    if (!total) return 'No images to show.';
    if (!images.length) return 'No image matches the search and the filters.';
    return images.length < total ? `${images.length} of ${all}` : all;
  }

  /** Mark an image as the one in view, and scroll to it. If the focus was in the grid, it moves to this image. */
  function mark(image, isTop = false) {
    const isFocused = grid.contains(document.activeElement);
    const place = images.indexOf(image);
    current = image;
    entry = Math.max(0, place);
    tiles.forEach((tile, at) => {
      const anchor = tile.querySelector('a');
      if (images[at] === image) anchor.setAttribute('aria-current', 'true');
      else anchor.removeAttribute('aria-current');
      anchor.tabIndex = at === entry ? 0 : -1;
    });
    if (isTop) grid.scrollTop = 0;
    if (isTop || place < 0) return;
    const top = Math.floor(place / across) * HEIGHT;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + HEIGHT > grid.scrollTop + grid.clientHeight) {
      grid.scrollTop = top + HEIGHT - grid.clientHeight;
    }
    if (!isFocused) return;
    fill();
    tiles.get(place).querySelector('a').focus({ preventScroll: true });
  }

  /** Set the links again, after settings have changed. */
  function relink() {
    tiles.forEach((tile, at) => { tile.querySelector('a').href = link(images[at]); });
  }

  /** Set the captions again, after settings have changed. */
  function recaption() {
    tiles.forEach((tile, at) => { tile.querySelector('small').textContent = caption(images[at]); });
  }

  /** The image this many places after the marked one, or null. If the marked one is not listed, 1 is the first image. */
  const neighbor = (steps) => images[images.indexOf(current) + steps] || null;

  /** How many places a key moves by while a tile has the focus; undefined if it is no such key. */
  function rowSteps(key) {
    const place = images.indexOf(current);
    const page = across * Math.max(1, Math.floor(grid.clientHeight / HEIGHT));
    const paged = { PageUp: -page, PageDown: page, Home: -images.length, End: images.length }[key];
    if (paged !== undefined) return Math.min(Math.max(place + paged, 0), images.length - 1) - place;
    return { ArrowUp: -across, ArrowDown: across }[key];
  }

  /** The listed images, in order. */
  const listed = () => images;

  /** The first image of the list, or null. */
  const first = () => images[0] || null;

  /** Whether there is an image to go to before and after the marked one, see neighbor(). */
  function ends() {
    const place = images.indexOf(current);
    return { hasPrevious: place > 0, hasNext: place < images.length - 1 };
  }

  return { ends, first, listed, mark, neighbor, recaption, relink, rowSteps, show, start };
})();
