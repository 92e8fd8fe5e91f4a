'use strict';

/* Viewer: pictures of heat over a photo, with boxes; each can be painted again without being made again. */
const viewer = (() => {
  const SMALL = 320;

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Outlines in parts of the picture's size, so that they grow and shrink with it. */
  function outline(run, [left, top, right, bottom, label, score], [width, height]) {
    const box = element('div', score === null ? 'box truth' : 'box');
    const name = run.classes[label] === undefined ? String(label) : run.classes[label];
    const colour = score === null ? [255, 255, 255] : run.colours[label] || [255, 255, 0];
    box.style.left = `${left / width * 100}%`;
    box.style.top = `${top / height * 100}%`;
    box.style.width = `${(right - left) / width * 100}%`;
    box.style.height = `${(bottom - top) / height * 100}%`;
    box.style.setProperty('--colour', `rgb(${colour.join(' ')})`);
    // Words stay inside the picture.
    box.classList.toggle('right', left > 0.7 * width);
    box.classList.toggle('high', top < 0.06 * height);
    box.classList.toggle('low', bottom > 0.94 * height);
    box.dataset.score = score === null ? '' : score;
    box.append(element('span', '', score === null ? name : `${name} ${score.toFixed(2)}`));
    return box;
  }

  /**
   * A picture: photo, heat of a level of one side, boxes.
   *
   * `shot` is the data of an image, `side` one of its sides, `level` one of the side's levels; null leaves the heat
   * out. `rangeOf` gives the range that is drawn. Paint takes what gives the look, and asks for it when the map is
   * decoded: it may have changed meanwhile.
   */
  function picture(run, shot, side, level, rangeOf, small) {
    const frame = element('div', 'picture');
    const canvas = element('canvas', 'heat');
    const scale = small ? Math.min(1, SMALL / Math.max(...shot.canvas)) : 1;
    [canvas.width, canvas.height] = shot.canvas.map((length) => Math.max(1, Math.round(length * scale)));
    frame.style.setProperty('--ratio', shot.size[0] / shot.size[1]);
    if (shot.photo !== null) {
      const photo = element('img');
      photo.alt = '';
      photo.src = store.photo(shot.photo);
      frame.append(photo);
    }
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', level ? `Heat of ${level.name}` : 'No such level');
    frame.append(canvas);
    const boxes = element('div', 'boxes');
    if (!small) boxes.append(...side.boxes.map((row) => outline(run, row, shot.size)));
    frame.append(boxes);

    async function paint(look) {
      if (!level) return;
      await heat.decode(level);
      const { table, threshold } = look();
      heat.draw(canvas, level, rangeOf(), shot.size, table, threshold);
    }
    return { frame, canvas, level, shot, paint };
  }

  /** A picture with a caption; with `choose`, a button. */
  function captioned(made, words, choose) {
    const figure = element('figure');
    const caption = element('figcaption');
    words.forEach((word, number) => caption.append(element(number ? 'small' : 'strong', '', word)));
    if (choose) {
      const button = element('button');
      button.type = 'button';
      button.append(made.frame, caption);
      button.addEventListener('click', choose);
      figure.append(button);
    } else {
      figure.append(made.frame, caption);
    }
    return { figure, caption };
  }

  /** A bar of the colours with the values at its ends. */
  function colourBar() {
    const bar = element('div', 'legend');
    const low = element('span');
    const high = element('span');
    const canvas = element('canvas');
    [canvas.width, canvas.height] = [256, 1];
    canvas.setAttribute('aria-hidden', 'true');
    bar.append(low, canvas, high);
    function paint(look, range) {
      const context = canvas.getContext('2d');
      const picture = context.createImageData(256, 1);
      new Uint32Array(picture.data.buffer).set(look.table);
      for (let grey = 0; grey < 255 * look.threshold; grey++) picture.data[4 * grey + 3] = 60;
      context.putImageData(picture, 0, 0);
      [low.textContent, high.textContent] = range.map(short);
    }
    return { bar, paint };
  }

  const short = (value) => String(Number(value.toPrecision(4)));

  return { captioned, colourBar, element, picture, short };
})();
