'use strict';

/*
 * Heat: from an 8-bit map of cells to pixels and values on a photo. Knows nothing of the page.
 *
 * A level is what report.level_data() wrote: a grey PNG (0 is not finite, 1 to 255 are low to high), a matrix from
 * photo coordinates to columns and rows of the map, and the bounds, in columns and rows, of what the network saw.
 */
const heat = (() => {
  const STEPS = 254;

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Read the bytes of a level's map into `level.grey`, once. */
  async function decode(level) {
    if (level.grey) return level;
    const image = new Image();
    image.src = `data:image/png;base64,${level.png}`;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = level.columns;
    canvas.height = level.rows;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, level.columns, level.rows).data;
    level.grey = Uint8Array.from({ length: level.rows * level.columns }, (_, cell) => pixels[4 * cell]);
    delete level.png;
    return level;
  }

  /** Value of each of the 256 bytes. */
  function valuesOf(level) {
    const step = (level.high - level.low) / STEPS;
    return Float64Array.from({ length: 256 }, (_, byte) => (byte ? level.low + (byte - 1) * step : NaN));
  }

  /** Heat 0 to 1 of each cell: a range is cut and scaled; what is not finite, and an empty range, are zero. */
  function unitsOf(level, [low, high]) {
    const ofByte = valuesOf(level).map((value) =>
      high > low && !Number.isNaN(value) ? clamp((value - low) / (high - low), 0, 1) : 0);
    return Float64Array.from(level.grey, (byte) => ofByte[byte]);
  }

  /** Where a point of the photo lies among columns and rows, and whether the network saw it. */
  function locate(level, x, y) {
    const m = level.matrix;
    const w = m[6] * x + m[7] * y + m[8];
    const column = (m[0] * x + m[1] * y + m[2]) / w;
    const row = (m[3] * x + m[4] * y + m[5]) / w;
    const [left, top, right, bottom] = level.bounds;
    const slack = 1e-9;
    const seen = w > 0 && column >= left - slack && column <= right + slack && row >= top - slack && row <= bottom + slack;
    return { column, row, seen };
  }

  /** A position between cells as the cell before and the part of the way to the next. */
  function split(position, cells) {
    const inside = clamp(position, 0, cells - 1);
    const before = Math.min(Math.floor(inside), Math.max(cells - 2, 0));
    return { before, after: Math.min(before + 1, cells - 1), part: inside - before };
  }

  const mix = (a, b, part) => (part === 0 ? a : part === 1 ? b : a + (b - a) * part);

  /** Interpolate cells bilinearly. */
  function sample(cells, level, column, row) {
    const across = split(column, level.columns);
    const down = split(row, level.rows);
    const line = (at) => mix(
      cells[at * level.columns + across.before], cells[at * level.columns + across.after], across.part);
    return mix(line(down.before), line(down.after), down.part);
  }

  /** The value at a point of the photo; NaN where it is not finite, null where the network did not look. */
  function valueAt(level, x, y) {
    const { column, row, seen } = locate(level, x, y);
    if (!seen) return null;
    const ofByte = valuesOf(level);
    return sample(Float64Array.from(level.grey, (byte) => ofByte[byte]), level, column, row);
  }

  const isSeparable = (m) => !m[1] && !m[3] && !m[6] && !m[7];

  /** Heat 0 to 1 of each pixel of a picture (width, height) of a photo (size); 0 where the network did not look. */
  function spread(level, range, size, [width, height]) {
    const units = unitsOf(level, range);
    const heats = new Float64Array(width * height);
    const xs = Array.from({ length: width }, (_, i) => (i + 0.5) * size[0] / width);
    const ys = Array.from({ length: height }, (_, i) => (i + 0.5) * size[1] / height);
    if (isSeparable(level.matrix)) {
      spreadLines(level, units, heats, xs, ys);
    } else {
      ys.forEach((y, i) => xs.forEach((x, j) => {
        const { column, row, seen } = locate(level, x, y);
        if (seen) heats[i * width + j] = sample(units, level, column, row);
      }));
    }
    return heats;
  }

  /** The same where rows stay rows: first along the columns of cells, then along the line. */
  function spreadLines(level, units, heats, xs, ys) {
    const spot = (x, y) => locate(level, x, y);
    const columns = xs.map((x) => ({ ...split(spot(x, ys[0]).column, level.columns), seen: isBetween(level, 0, spot(x, ys[0]).column) }));
    const line = new Float64Array(level.columns);
    ys.forEach((y, i) => {
      const { row } = spot(xs[0], y);
      if (!isBetween(level, 1, row)) return;
      const { before, after, part } = split(row, level.rows);
      for (let cell = 0; cell < level.columns; cell++) {
        line[cell] = mix(units[before * level.columns + cell], units[after * level.columns + cell], part);
      }
      columns.forEach((at, j) => {
        if (at.seen) heats[i * xs.length + j] = mix(line[at.before], line[at.after], at.part);
      });
    });
  }

  const isBetween = (level, axis, position) =>
    position >= level.bounds[axis] - 1e-9 && position <= level.bounds[axis + 2] + 1e-9;

  /** Draw a level over the whole canvas, transparent below the threshold (0 to 1). */
  function draw(canvas, level, range, size, table, threshold) {
    const { width, height } = canvas;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const picture = context.createImageData(width, height);
    const pixels = picture.data;
    spread(level, range, size, [width, height]).forEach((value, at) => {
      const grey = Math.floor(value * 255); // cut off, as the hook does it
      pixels[4 * at] = table[3 * grey];
      pixels[4 * at + 1] = table[3 * grey + 1];
      pixels[4 * at + 2] = table[3 * grey + 2];
      pixels[4 * at + 3] = value < threshold ? 0 : 255;
    });
    context.putImageData(picture, 0, 0);
  }

  /** A colour map of 256 RGB colours from base64. */
  const tableOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

  return { decode, draw, tableOf, valueAt };
})();
