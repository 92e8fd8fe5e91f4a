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
   * The pictures of a match of levels: one for each run.
   *
   * @param run - the run
   * @param shot - the data of a shot, from store.shot()
   * @param match - one of matches.of(shot)
   * @param isSmall - whether to make small pictures
   * @param hasBoxes - whether to draw the boxes
   * @returns a list of { frame, stage, boxes, level, number, letter, size, range, paint }: the element, that inside it
   *   which grows with the zoom, the outlines of the boxes of the image, the level (null without a matching level), the
   *   number of the run and its letter ('' with one run), the size of the image, the value range with a look, and
   *   painting
   */
  function ofMatch(run, shot, match, isSmall, hasBoxes = true) {
    return match.map((level, number) => {
      const range = (look) => matches.range(run, shot, match, number, look);
      return make(run, shot, number, level, range, isSmall, hasBoxes);
    });
  }

  /**
   * The pictures of the differences to run A in a match, for each further run that has a level in it. Their entries are
   * those of ofMatch(), with `isDifference`, without a level, and `range` is that of the last painting.
   */
  function differences(run, shot, match, isSmall) {
    const others = match.map((_, number) => number).filter((number) => number && match[number]);
    return others.map((number) => makeDifference(run, shot, match, number, isSmall));
  }

  function makeDifference(run, shot, match, number, isSmall) {
    const letter = `${dom.letter(number)} − A`;
    const { frame, stage, canvas } = emptyPicture(shot, isSmall, `Difference ${letter}`);
    const table = heat.tableOf(run.difference);
    const ranged = (look) => [0, number].map((at) => matches.range(run, shot, match, at, look));
    let limits = [-1, 1];
    frame.classList.add('difference');
    function paint(look) {
      const [a, b] = [match[0], match[number]];
      [a, b].forEach(heat.decode);
      const now = look();
      const largest = heat.drawDifference(canvas, [a, b], isShared(match, now) ? null : ranged(now), shot.size, table);
      limits = [-largest, largest];
    }
    const range = () => limits;
    return { frame, stage, boxes: [], level: null, number, letter, size: shot.size, range, paint, table, isDifference: true };
  }

  /** Whether the values of a match are compared as they are. Explanations are not: scales of gradients differ. */
  const isShared = (match, { common }) => common && !match[0].explains;

  /** An image with an empty canvas over it: the elements { frame, stage, canvas }. */
  function emptyPicture(shot, isSmall, words) {
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
    canvas.setAttribute('aria-label', words);
    stage.append(canvas);
    frame.append(stage);
    return { frame, stage, canvas };
  }

  function make(run, shot, number, level, range, isSmall, hasBoxes) {
    const side = shot.sides[number] || { boxes: [] };
    const letter = run.runs.length > 1 ? dom.letter(number) : '';
    const { frame, stage, canvas } = emptyPicture(shot, isSmall, level ? `Heat of ${level.name}` : 'No heat');
    const boxes = dom.element('div', 'boxes');
    const outlineOf = (row, error = null) =>
      boxOutlines.make(run.classes[number], run.colors[number], row, shot.size, error);
    const outlines = hasBoxes ? side.boxes.map((row, place) => outlineOf(row, side.errors && side.errors[place])) : [];
    const isNew = (row) => !side.boxes.some((other) => String(other) === String(row));
    const explained = isSmall || !level || !level.explains ? [] : level.boxes.filter(isNew);
    boxes.append(...outlines, ...explained.map((row) => outlineOf(row)));
    stage.append(boxes);

    function paint(look) {
      if (!level) return;
      heat.decode(level);
      const now = look();
      const fades = run.settings.blend === 'fade' && shot.photo !== null;
      heat.draw(canvas, level, range(now), shot.size, now.table, now.threshold, now.range === 'max' && !level.isSimilarity, fades);
    }
    return { frame, stage, boxes: outlines, level, number, letter, size: shot.size, range, paint };
  }

  /** A figure of a picture and its caption, the first word strong. With `choose`, it is a button that calls it. */
  function captioned({ frame }, words, choose) {
    const figure = dom.element('figure');
    const caption = dom.element('figcaption');
    words.forEach((word, number) => caption.append(dom.element(number ? 'small' : 'strong', '', word)));
    if (choose) {
      const button = dom.button('', choose);
      button.append(frame, caption);
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

  return { captioned, colorBar, differences, isShared, ofMatch };
})();
