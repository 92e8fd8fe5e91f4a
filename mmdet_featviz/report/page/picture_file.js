'use strict';

/* Picture file: the large pictures on view as one PNG file, with the image, the heat and the boxes as they are shown. */
const pictureFile = (() => {
  const GAP = 8; // between the pictures of runs, in pixels
  const LINE = 2; // width of an outline
  const FONT = '12px system-ui, sans-serif';

  /** Draw one picture, with its upper left corner at `left`. */
  function draw(context, { stage, boxes, isDifference }, left, [width, height], { alpha, labels }, isAdded) {
    context.save();
    context.translate(left, 0);
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
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
    context.globalAlpha = 1;
    context.globalCompositeOperation = 'source-over';
    boxes.filter((box) => box.offsetWidth > 0).forEach((box) => drawBox(context, box, [width, height], labels));
    context.restore();
  }

  function drawBox(context, box, [width, height], hasLabel) {
    const { style } = box;
    const [left, across] = [style.left, style.width].map((text) => parseFloat(text) / 100 * width);
    const [top, down] = [style.top, style.height].map((text) => parseFloat(text) / 100 * height);
    const line = boxOutlines.lineOf(box, LINE);
    context.setLineDash([]);
    context.strokeStyle = '#000';
    context.lineWidth = line.width + 2;
    context.strokeRect(left, top, across, down);
    context.setLineDash(line.dashes);
    context.strokeStyle = style.getPropertyValue('--color');
    context.lineWidth = line.width;
    context.strokeRect(left, top, across, down);
    if (!hasLabel) return;
    context.font = FONT;
    context.textBaseline = 'bottom';
    const text = box.querySelector('span').textContent;
    const wide = context.measureText(text).width + 8;
    const x = Math.max(0, Math.min(left, width - wide));
    const y = Math.min(height, Math.max(16, box.classList.contains('truth') ? top + down + 16 : top));
    context.fillStyle = 'rgb(0 0 0 / 72%)';
    context.fillRect(x, y - 16, wide, 16);
    context.fillStyle = '#fff';
    context.fillText(text, x + 4, y - 1);
  }

  /**
   * Let the browser save the pictures.
   *
   * @param name - name of the file, without its ending
   * @param pictures - see picture.js
   * @param size - [width, height] of a picture in the file
   * @param chosen - the settings
   * @param isAdded - whether the heat is added to the image
   */
  function save(name, pictures, [width, height], chosen, isAdded) {
    const canvas = dom.element('canvas');
    [canvas.width, canvas.height] = [pictures.length * (width + GAP) - GAP, height];
    const context = canvas.getContext('2d');
    pictures.forEach((one, number) => draw(context, one, number * (width + GAP), [width, height], chosen, isAdded));
    canvas.toBlob((blob) => exports.save(`${name.replace(/[^\p{L}\p{N}._-]+/gu, '_')}.png`, blob));
  }

  return { save };
})();
