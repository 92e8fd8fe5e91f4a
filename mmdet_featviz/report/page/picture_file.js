'use strict';

/*
 * Picture file: the large pictures on view as one file, with the image, the heat and the boxes as they are shown: as PNG,
 * or as SVG, where outlines and labels are shapes and text over an embedded PNG.
 */
const pictureFile = (() => {
  const GAP = 8; // between the pictures of runs, in pixels
  const LINE = 2; // width of an outline
  const LABEL = { height: 16, margin: 4, color: '#fff', background: '#000', opacity: 0.72 };
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

  /** The outlines on view of a picture as shapes: { lines, rect, text, label }, see shapeOf(). */
  function shapesOf({ boxes }, size, { labels }) {
    return boxes.filter((box) => box.offsetWidth > 0).map((box) => shapeOf(box, size, labels));
  }

  /**
   * An outline as shapes.
   *
   * @returns { lines, rect, text, label }: the lines along `rect`, as { color, width, dashes }; the text, which may be
   *   empty, and `label`, what it stands on. Both rectangles are [left, top, width, height]
   */
  function shapeOf(box, [width, height], hasLabel) {
    const { style } = box;
    const isTruth = box.classList.contains('truth');
    const [left, across] = [style.left, style.width].map((text) => parseFloat(text) / 100 * width);
    const [top, down] = [style.top, style.height].map((text) => parseFloat(text) / 100 * height);
    const line = boxOutlines.lineOf(box, LINE);
    const lines = [
      { color: '#000', width: line.width + 2, dashes: [] },
      { color: style.getPropertyValue('--color'), ...line },
    ];
    const text = hasLabel ? box.querySelector('span').textContent : '';
    const wide = ruler.measureText(text).width + 2 * LABEL.margin;
    const x = Math.max(0, Math.min(left, width - wide));
    const y = Math.min(height, Math.max(LABEL.height, isTruth ? top + down + LABEL.height : top)) - LABEL.height;
    return { lines, rect: [left, top, across, down], text, label: [x, y, wide, LABEL.height] };
  }

  /** Draw the shapes of a picture on a canvas. */
  function drawShapes(context, shapes, left, size) {
    context.save();
    context.translate(left, 0);
    context.beginPath();
    context.rect(0, 0, ...size);
    context.clip();
    shapes.forEach(({ lines, rect, text, label }) => {
      lines.forEach(({ color, width, dashes }) => {
        context.setLineDash(dashes);
        context.strokeStyle = color;
        context.lineWidth = width;
        context.strokeRect(...rect);
      });
      if (!text) return;
      const [x, y] = label;
      context.globalAlpha = LABEL.opacity;
      context.fillStyle = LABEL.background;
      context.fillRect(...label);
      context.globalAlpha = 1;
      context.fillStyle = LABEL.color;
      context.fillText(text, x + LABEL.margin, y + LABEL.height - 1);
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
  function svgOf(shapes, x, [width, height]) {
    return svg('svg', { x, width, height, overflow: 'hidden' }, ...shapes.flatMap(({ lines, rect, text, label }) => [
      ...lines.map((line) => svgRect(rect, {
        fill: 'none',
        stroke: line.color,
        'stroke-width': line.width,
        'stroke-dasharray': line.dashes.length ? line.dashes.join(' ') : undefined,
      })),
      ...(text ? [svgRect(label, { fill: LABEL.background, 'fill-opacity': LABEL.opacity }), svgText(text, label)] : []),
    ]));
  }

  function svgText(text, [x, y, width]) {
    return svg('text', {
      x: x + LABEL.margin,
      y: y + LABEL.height - 4, // the baseline
      textLength: width - 2 * LABEL.margin, // fonts differ
      lengthAdjust: 'spacingAndGlyphs',
      fill: LABEL.color,
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
