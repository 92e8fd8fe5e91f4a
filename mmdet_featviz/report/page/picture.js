'use strict';

/*
 * Picture: an image with the heat of a level and boxes over it. It can be painted again without being made again.
 *
 * Painting takes a function `look` that returns { table, threshold, range }: the table of the colormap, the threshold
 * (0–1) and the setting "range". It is called at each painting, as the settings may have changed meanwhile.
 */
const picture = (() => {
  const SMALL = 400; // longest side of a small picture, in pixels

  /**
   * The pictures of a pair of levels: one, or two if the run is compared with another.
   *
   * @param run - the run
   * @param shot - the data of a shot, from store.shot()
   * @param pair - one of pairs.of(shot)
   * @param isSmall - whether to make small pictures
   * @param hasBoxes - whether to draw the boxes
   * @returns a list of { frame, stage, boxes, level, letter, size, range, paint }: the element, that inside it which
   *   grows with the zoom, the outlines of the boxes of
   *   the image, the level (null without a matching level), 'A' or 'B' ('' with one run), the size of the image, the
   *   value range with a look, and painting
   */
  function ofPair(run, shot, pair, isSmall, hasBoxes = true) {
    return run.runs.map((_, number) => {
      const range = (look) => pairs.range(run, shot, pair, number, look);
      return make(run, shot, number, number ? pair.b : pair.a, range, isSmall, hasBoxes);
    });
  }

  function make(run, shot, number, level, range, isSmall, hasBoxes) {
    const side = shot.sides[number] || { boxes: [] };
    const letter = run.runs.length > 1 ? 'AB'[number] : '';
    const frame = dom.element('div', 'picture');
    const stage = dom.element('div', 'stage');
    const canvas = dom.element('canvas', 'heat');
    const scale = isSmall ? Math.min(1, SMALL / Math.max(...shot.canvas)) : 1;
    [canvas.width, canvas.height] = shot.canvas.map((length) => Math.max(1, Math.round(length * scale)));
    frame.style.setProperty('--ratio', shot.size[0] / shot.size[1]);
    if (shot.photo !== null) {
      const image = dom.element('img');
      image.alt = '';
      store.photo(shot.photo).then((url) => { image.src = url; }, () => { frame.classList.add('no-image'); });
      stage.append(image);
    }
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', level ? `Heat of ${level.name}` : 'No heat');
    stage.append(canvas);
    const boxes = dom.element('div', 'boxes');
    const outlineOf = (row) => outline(run.classes[number], run.colors[number], row, shot.size);
    const outlines = hasBoxes ? side.boxes.map(outlineOf) : [];
    const isNew = (row) => !side.boxes.some((other) => String(other) === String(row));
    const explained = isSmall || !level || !level.explains ? [] : level.boxes.filter(isNew);
    boxes.append(...outlines, ...explained.map(outlineOf));
    stage.append(boxes);
    frame.append(stage);

    function paint(look) {
      if (!level) return;
      heat.decode(level);
      const now = look();
      const fades = run.settings.blend === 'fade' && shot.photo !== null;
      heat.draw(canvas, level, range(now), shot.size, now.table, now.threshold, now.range === 'max', fades);
    }
    return { frame, stage, boxes: outlines, level, letter, size: shot.size, range, paint };
  }

  /** The outline of a box, placed in percent of the picture, so that it grows and shrinks with it. */
  function outline(classes, colors, [left, top, right, bottom, label, score], [width, height]) {
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
    box.append(dom.element('span', '', score === null ? name : `${name} ${score.toFixed(2)}`));
    return box;
  }

  /** A figure of a picture and its caption, the first word strong. With `choose`, it is a button that calls it. */
  function captioned({ frame }, words, choose) {
    const figure = dom.element('figure');
    const caption = dom.element('figcaption');
    words.forEach((word, number) => caption.append(dom.element(number ? 'small' : 'strong', '', word)));
    if (choose) {
      const button = dom.element('button');
      button.type = 'button';
      button.append(frame, caption);
      button.addEventListener('click', choose);
      figure.append(button);
    } else {
      figure.append(frame, caption);
    }
    return figure;
  }

  /** A bar of the colors: the element `bar`, and `paint` with a look, the values at its ends and what they are. */
  function colorBar() {
    const bar = dom.element('div', 'legend');
    const low = dom.element('span');
    const high = dom.element('span');
    const unit = dom.element('small');
    const canvas = dom.element('canvas');
    [canvas.width, canvas.height] = [256, 1];
    canvas.setAttribute('aria-hidden', 'true');
    bar.append(low, canvas, high, unit);
    function paint({ table, threshold }, range, words) {
      const context = canvas.getContext('2d');
      const colors = context.createImageData(256, 1);
      new Uint32Array(colors.data.buffer).set(table);
      for (let gray = 0; gray < 255 * threshold; gray++) colors.data[4 * gray + 3] = 60;
      context.putImageData(colors, 0, 0);
      [low.textContent, high.textContent] = range.map(dom.short);
      unit.textContent = words;
    }
    return { bar, paint };
  }

  return { captioned, colorBar, ofPair };
})();
