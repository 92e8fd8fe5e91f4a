'use strict';

/* Gallery: search, order, and a grid of thumbnails of which only the visible ones exist. */
const gallery = (() => {
  const WIDTH = 120; // of a thumbnail, at least
  const HEIGHT = 132;
  const MARGIN = 2; // rows beyond the visible ones

  /** What images can be sorted by: what it is called, and the figure of an image (null has none). */
  function orders(run) {
    const focus = (image, level) => (image.energy && level in image.energy ? image.energy[level] : null);
    const found = [
      { id: 'run', label: 'order of the run', of: (image) => image.position },
      { id: 'name', label: 'name', of: (image) => image.key },
      { id: 'detections', label: 'number of detections', of: (image) => image.detections },
      { id: 'best', label: 'best score', of: (image) => image.best },
      { id: 'lowest', label: 'lowest score', of: (image) => image.lowest },
    ];
    if (run.images.some((image) => image.truth)) {
      found.push(
        { id: 'truth', label: 'number of ground-truth boxes', of: (image) => image.truth },
        { id: 'energy', label: 'energy inside boxes', of: focus, percent: true },
        {
          id: 'gain',
          label: 'gain over chance',
          of: (image, level) => (focus(image, level) === null || !image.share ? null : focus(image, level) / image.share),
        },
      );
    }
    return found;
  }

  const names = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === 'string' ? names.compare(a, b) : a - b);

  /** The images that fit all words, sorted; those without the figure come last, whichever way. */
  function arrange(run, { search, order, level, descending }) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (image) => [image.key, ...image.labels.map((label) => run.classes[label])].join('\n').toLowerCase();
    const fits = run.images.filter((image) => words.every((word) => text(image).includes(word)));
    const figures = new Map(fits.map((image) => [image, order.of(image, level)]));
    return fits.sort((a, b) => {
      const [one, other] = [figures.get(a), figures.get(b)];
      if (one === null || other === null) return (one === null) - (other === null) || a.position - b.position;
      return (descending ? -1 : 1) * compare(one, other) || a.position - b.position;
    });
  }

  /** The grid in an element. `link` gives the address of an image, `caption` what is said of it below its name. */
  function grid(element, link, caption) {
    const list = element.querySelector('ul');
    const tiles = new Map(); // place in the order: element
    let images = [];
    let current = null;
    let entry = 0; // the place that Tab leads to, as it should not lead through thousands; arrows go on from there

    let across = 1; // tiles in a row

    function show() {
      // All is measured before anything is changed: a browser lays out anew to measure what has changed.
      const first = Math.max(0, Math.floor(element.scrollTop / HEIGHT) - MARGIN) * across;
      const rows = Math.ceil(element.clientHeight / HEIGHT) + 2 * MARGIN + 1;
      const last = Math.min(images.length, first + rows * across);
      const added = document.createDocumentFragment();
      tiles.forEach((tile, place) => {
        if (place < first || place >= last) {
          tile.remove();
          tiles.delete(place);
        }
      });
      for (let place = first; place < last; place++) {
        if (!tiles.has(place)) {
          tiles.set(place, tile(place));
          added.append(tiles.get(place));
        }
      }
      list.append(added);
    }

    function tile(place) {
      const image = images[place];
      const item = document.createElement('li');
      const anchor = document.createElement('a');
      const name = document.createElement('span');
      const figure = document.createElement('small');
      item.style.width = `${100 / across}%`;
      item.style.height = `${HEIGHT}px`;
      item.style.left = `${(place % across) * 100 / across}%`;
      item.style.top = `${Math.floor(place / across) * HEIGHT}px`;
      item.setAttribute('aria-setsize', images.length);
      item.setAttribute('aria-posinset', place + 1);
      anchor.href = link(image);
      anchor.title = image.key;
      anchor.tabIndex = place === entry ? 0 : -1;
      if (image === current) anchor.setAttribute('aria-current', 'true');
      if (image.thumb !== null) {
        const picture = document.createElement('img');
        picture.alt = '';
        picture.decoding = 'async';
        picture.src = store.thumb(image.thumb);
        anchor.append(picture);
      }
      name.textContent = image.key.split('/').pop();
      figure.textContent = caption(image);
      anchor.append(name, figure);
      item.append(anchor);
      return item;
    }

    function renew() {
      tiles.forEach((item) => item.remove());
      tiles.clear();
      across = Math.max(1, Math.floor(element.clientWidth / WIDTH));
      list.style.height = `${Math.ceil(images.length / across) * HEIGHT}px`;
      show();
    }

    /** Show these images in this order. */
    function fill(found) {
      images = found;
      renew();
    }

    /** Mark an image as the one that is looked at, and scroll it into view. */
    function mark(image) {
      const isFocused = element.contains(document.activeElement);
      const place = images.indexOf(image);
      current = image;
      entry = Math.max(0, place);
      tiles.forEach((item, at) => {
        const anchor = item.querySelector('a');
        if (images[at] === image) anchor.setAttribute('aria-current', 'true');
        else anchor.removeAttribute('aria-current');
        anchor.tabIndex = at === entry ? 0 : -1;
      });
      if (place < 0) return;
      const top = Math.floor(place / across) * HEIGHT;
      if (top < element.scrollTop) element.scrollTop = top;
      else if (top + HEIGHT > element.scrollTop + element.clientHeight) {
        element.scrollTop = top + HEIGHT - element.clientHeight;
      }
      if (!isFocused) return;
      show();
      tiles.get(place).querySelector('a').focus({ preventScroll: true });
    }

    /** Renew the addresses, which name the settings. */
    function relink() {
      tiles.forEach((item, at) => { item.querySelector('a').href = link(images[at]); });
    }

    element.addEventListener('scroll', () => requestAnimationFrame(show), { passive: true });
    new ResizeObserver(renew).observe(element);
    return { fill, mark, relink };
  }

  return { arrange, grid, orders };
})();
