'use strict';

/*
 * Similar cells: below the picture, the most similar cells of other images as small crops; a click on one opens its
 * image there. The chosen cell is outlined in the picture.
 */
const similarCells = (() => {
  const MOST = 12;
  const SIDE = 112; // of a crop, in pixels
  const CONTEXT = 8; // cells across a crop, at least
  const SHARE = 0.2; // of the longer side of the image, at least
  const place = dom.find('similar');
  const list = place.querySelector('ul');
  let open = null;
  let turn = 0; // counts the searches, so that an old one ends

  /** Begin. `onOpen` is called with an image and a place in it. */
  function start(onOpen) {
    open = onOpen;
  }

  /** Show nothing but this sentence, and end a search; hidden without one. */
  function say(words = '') {
    turn++;
    place.hidden = !words;
    place.querySelector('p').textContent = words;
    list.replaceChildren();
  }

  /** Outline the chosen cell in a large picture. */
  function outline({ stage, size: [width, height] }, { cells, cell }) {
    const { left, top, right, bottom } = similarity.blockOf(cells, cell);
    const box = dom.element('div', 'cell');
    box.style.left = `${left / width * 100}%`;
    box.style.top = `${top / height * 100}%`;
    box.style.width = `${(right - left) / width * 100}%`;
    box.style.height = `${(bottom - top) / height * 100}%`;
    stage.append(box);
  }

  /**
   * Search for similar cells and list them.
   *
   * @param level - name of the level
   * @param images - the other images, by the number of the shot to search
   * @param chosen - what similarity.find() found
   */
  async function search(level, images, chosen) {
    const others = dom.count(images.size, 'other image');
    say(`Searching ${others} …`);
    const mine = turn;
    const found = await similarity.search(level, [...images.keys()], chosen, (searched) => {
      if (mine === turn) place.querySelector('p').textContent = `Searched ${searched} of ${others} …`;
      return mine === turn;
    });
    if (mine !== turn) return;
    say(found.length ? `The most similar cell of each of ${dom.count(found.length, 'other image')}${
      found.length > MOST ? `, the first ${MOST}` : ''}:` : 'No other image has cells to compare.');
    list.replaceChildren(...found.slice(0, MOST).map((one) => itemOf(one, images.get(one.cells.shot))));
  }

  function itemOf({ cells, cell, cosine }, image) {
    const item = dom.element('li');
    const button = dom.element('button');
    button.type = 'button';
    button.title = image.key;
    const canvas = dom.element('canvas');
    [canvas.width, canvas.height] = [SIDE, SIDE];
    canvas.setAttribute('aria-hidden', 'true');
    const name = dom.element('span', '', image.key.split('/').pop());
    button.append(canvas, name, dom.element('small', '', `cosine ${cosine.toFixed(2)}`));
    button.addEventListener('click', () => open(image, similarity.positionOf(cells, cell)));
    item.append(button);
    draw(canvas, cells, cell);
    return item;
  }

  /** Draw the image around a cell, and an outline of the cell. */
  function draw(canvas, cells, cell) {
    const { left, top, right, bottom } = similarity.blockOf(cells, cell);
    const [width, height] = cells.size;
    const side = Math.min(Math.max(width, height), Math.max(CONTEXT * Math.max(right - left, bottom - top), SHARE * Math.max(width, height)));
    const start = (from, to, length) => Math.min(Math.max((from + to - side) / 2, Math.min(0, length - side)), Math.max(0, length - side));
    const [x, y, scale] = [start(left, right, width), start(top, bottom, height), SIDE / side];
    const context = canvas.getContext('2d');
    const outlineCell = () => [['#000', 3], ['#fff', 1]].forEach(([color, line]) => {
      [context.strokeStyle, context.lineWidth] = [color, line];
      context.strokeRect((left - x) * scale, (top - y) * scale, (right - left) * scale, (bottom - top) * scale);
    });
    outlineCell();
    if (cells.photo === null) return;
    store.photo(cells.photo).then((url) => {
      const photo = new Image();
      photo.onload = () => {
        context.clearRect(0, 0, SIDE, SIDE);
        context.drawImage(photo, -x * scale, -y * scale, width * scale, height * scale);
        outlineCell();
      };
      photo.src = url;
    }, () => {}); // without the image, the outline stays
  }

  return { outline, say, search, start };
})();
