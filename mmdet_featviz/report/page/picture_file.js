'use strict';

/*
 * Picture file: the large pictures on view as one file, with the image, the heat and the boxes as they are shown: as PNG,
 * or as SVG, where outlines, labels and letters are shapes and text over an embedded PNG.
 */
const pictureFile = (() => {
  const GAP = 8; // between the pictures of runs, in pixels
  const LINE = 2; // width of an outline
  const HEIGHT = 16; // of a label
  const MARGIN = 4; // beside its text
  const LABEL = { color: '#fff', background: '#000', opacity: 0.72 };
  const FONT = { family: 'system-ui, sans-serif', size: 12 };
  const SVG = 'http://www.w3.org/2000/svg';
  const XLINK = 'http://www.w3.org/1999/xlink';

  /** A canvas of this size, and its context: { canvas, context }. */
  function canvasOf(width, height) {
    const canvas = dom.element('canvas');
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext('2d');
    context.font = `${FONT.size}px ${FONT.family}`;
    context.textBaseline = 'bottom';
    return { canvas, context };
  }

  const ruler = canvasOf(1, 1).context;

  /** Draw the image and the heat of a picture, with the upper left corner at `left`. */
  function drawHeat(context, { stage, isDifference }, left, [width, height], { alpha }, isAdded) {
    context.save();
    context.translate(left, 0);
    context.fillStyle = '#808080'; // as behind the heat on the page
    context.fillRect(0, 0, width, height);
    const image = stage.querySelector('img');
    const hasImage = image && image.naturalWidth;
    if (isDifference && hasImage) {
      context.fillStyle = '#fff';
      context.fillRect(0, 0, width, height);
      context.filter = 'grayscale(1) opacity(0.5)'; // as in report.css
    }
    if (hasImage) context.drawImage(image, 0, 0, width, height);
    context.filter = 'none';
    context.globalAlpha = isDifference ? 1 : alpha;
    if (isDifference && hasImage) context.globalCompositeOperation = 'multiply';
    else if (isAdded && !isDifference) context.globalCompositeOperation = 'lighter';
    context.drawImage(stage.querySelector('.heat'), 0, 0, width, height);
    context.restore();
  }

  /** The outlines on view of a picture as shapes: `lines` as lineOf() returns them, and `texts` as textsOf() does. */
  function shapesOf({ boxes }, size, { labels }) {
    const outlines = boxes.filter((box) => box.offsetWidth > 0);
    return {
      lines: outlines.flatMap((outline) => linesOf(outline, size)),
      texts: textsOf(boxOutlines.byScore(outlines), size, labels),
    };
  }

  /** The place of an outline in the file: [left, top, width, height]. */
  function rectOf({ style }, [width, height]) {
    const [left, across] = [style.left, style.width].map((text) => parseFloat(text) / 100 * width);
    const [top, down] = [style.top, style.height].map((text) => parseFloat(text) / 100 * height);
    return [left, top, across, down];
  }

  /** The lines of an outline: { rect, color, width, dashes }. */
  function linesOf(outline, size) {
    const rect = rectOf(outline, size);
    const line = boxOutlines.lineOf(outline, LINE);
    return [
      { rect, color: '#000', width: line.width + 2, dashes: [] },
      { rect, color: outline.style.getPropertyValue('--color'), ...line },
    ];
  }

  const extentOf = (text) => [ruler.measureText(text).width + 2 * MARGIN, HEIGHT];

  /** The letters and labels at outlines: { text, rect, look }, where `rect` is what the text stands on. */
  function textsOf(outlines, size, hasLabels) {
    const items = outlines.map((outline) => {
      const { letters, labels } = boxOutlines.textsOf(outline);
      const [left, top, width, height] = rectOf(outline, size);
      return { box: [left, top, left + width, top + height], letters, labels: hasLabels ? labels : [] };
    });
    const places = labelPlaces.place(items.map(({ box, letters, labels }) => (
      { box, letters: letters && extentOf(letters), labels: labels.map(extentOf) })), size);
    const textAt = (text, { left, top, right, bottom }, look) => ({ text, rect: [left, top, right - left, bottom - top], look });
    return places.flatMap(({ letters, label, choice }, number) => [
      letters && textAt(items[number].letters, letters, lettersLook(outlines[number])),
      label && textAt(items[number].labels[choice], label, LABEL),
    ].filter(Boolean));
  }

  const lettersLook = ({ style }) => ({ color: '#000', background: style.getPropertyValue('--color'), opacity: 1 });

  /** Draw the shapes of a picture on a canvas. */
  function drawShapes(context, { lines, texts }, left, size) {
    context.save();
    context.translate(left, 0);
    context.beginPath();
    context.rect(0, 0, ...size);
    context.clip();
    lines.forEach(({ rect, color, width, dashes }) => {
      context.setLineDash(dashes);
      context.strokeStyle = color;
      context.lineWidth = width;
      context.strokeRect(...rect);
    });
    texts.forEach(({ text, rect, look }) => {
      context.globalAlpha = look.opacity;
      context.fillStyle = look.background;
      context.fillRect(...rect);
      context.globalAlpha = 1;
      context.fillStyle = look.color;
      context.fillText(text, rect[0] + MARGIN, rect[1] + HEIGHT - 1);
    });
    context.restore();
  }

  /** An SVG element with attributes; those that are undefined are left out. */
  function svg(tag, attributes, ...children) {
    const made = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => { if (value !== undefined) made.setAttribute(name, value); });
    made.append(...children);
    return made;
  }

  const svgRect = ([x, y, width, height], attributes) => svg('rect', { x, y, width, height, ...attributes });

  /** The shapes of a picture as an SVG element, which cuts them off at its sides. */
  function svgOf({ lines, texts }, x, [width, height]) {
    return svg('svg', { x, width, height, overflow: 'hidden' }, ...lines.map((line) => svgRect(line.rect, {
      fill: 'none',
      stroke: line.color,
      'stroke-width': line.width,
      'stroke-dasharray': line.dashes.length ? line.dashes.join(' ') : undefined,
    })), ...texts.flatMap(({ text, rect, look }) =>
      [svgRect(rect, { fill: look.background, 'fill-opacity': look.opacity }), svgText(text, rect, look)]));
  }

  function svgText(text, [x, y, width], { color }) {
    return svg('text', {
      x: x + MARGIN,
      y: y + HEIGHT - 4, // the baseline
      textLength: width - 2 * MARGIN, // fonts differ
      lengthAdjust: 'spacingAndGlyphs',
      fill: color,
      'font-family': FONT.family,
      'font-size': FONT.size,
    }, text);
  }

  /**
   * Let the browser save the pictures.
   *
   * @param name - name of the file, with the ending `.png` or `.svg`
   * @param pictures - see picture.js
   * @param size - [width, height] of a picture in the file
   * @param chosen - the settings
   * @param isAdded - whether the heat is added to the image
   */
  function save(name, pictures, size, chosen, isAdded) {
    const file = name.replace(/[^\p{L}\p{N}._-]+/gu, '_');
    const lefts = pictures.map((_, number) => number * (size[0] + GAP));
    const [width, height] = [lefts[lefts.length - 1] + size[0], size[1]];
    const { canvas, context } = canvasOf(width, height);
    pictures.forEach((one, number) => drawHeat(context, one, lefts[number], size, chosen, isAdded));
    const shapes = pictures.map((one) => shapesOf(one, size, chosen));
    if (file.endsWith('.svg')) {
      const heat = svg('image', { width, height });
      heat.setAttributeNS(XLINK, 'xlink:href', canvas.toDataURL('image/png')); // href alone is not read everywhere
      const root = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}` }, heat);
      root.append(...shapes.map((one, number) => svgOf(one, lefts[number], size)));
      exports.save(file, new Blob([new XMLSerializer().serializeToString(root)], { type: 'image/svg+xml' }));
    } else {
      shapes.forEach((one, number) => drawShapes(context, one, lefts[number], size));
      canvas.toBlob((blob) => exports.save(file, blob));
    }
  }

  return { save };
})();
