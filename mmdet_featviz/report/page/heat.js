'use strict';

/*
 * Heat: turns the map of a level into pixels and values of an image. It uses no other script of the page.
 *
 * A level is what level_data() in Python returns: the values of the cells, a matrix from image coordinates to columns
 * and rows of the map, and the bounds of the area that the network saw, in columns and rows. A level of principal
 * components also has the colors of its cells.
 */
const heat = (() => {
  const SLACK = 1e-9; // in cells, for positions exactly on the edge
  const FARTHEST = 1e9; // as in the Python drawing: beyond, the error of a position would become visible

  const LINES = 40; // of the hatching, along the longer side of a picture

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /** Decode the cells of a level from base64 into the numbers `level.values`, once, and its colors to `level.planes`. */
  function decode(level) {
    if (level.values) return;
    level.values = numbersIn(level.cells);
    delete level.cells;
    if (level.colors) level.planes = level.colors.map((plane) => ({ values: numbersIn(plane) }));
    delete level.colors;
  }

  function numbersIn(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const view = new DataView(bytes.buffer); // the bytes are little-endian on every machine
    return Float32Array.from({ length: bytes.length / 4 }, (_, cell) => view.getFloat32(4 * cell, true));
  }

  /**
   * The cells scaled so that the range becomes 0 to 1; 0 if not finite or the range is empty. Values outside the range
   * stay outside: they are cut after the interpolation, as before it that would move the edges of the heat. But if
   * `isPositive`, negative cells are 0.
   */
  function unitsOf({ values }, [low, high], isPositive) {
    const unit = (value) => clamp((value - low) / (high - low), -FARTHEST, FARTHEST);
    return Float64Array.from(values, (value) =>
      (high > low && Number.isFinite(value) ? unit(isPositive ? Math.max(value, 0) : value) : 0));
  }

  /** The position of an image point in columns and rows of the map; `seen` is whether the network saw the point. */
  function locate(level, x, y) {
    const m = level.matrix;
    const w = m[6] * x + m[7] * y + m[8];
    const column = (m[0] * x + m[1] * y + m[2]) / w;
    const row = (m[3] * x + m[4] * y + m[5]) / w;
    const [left, top, right, bottom] = level.bounds;
    const seen = w > 0 && column >= left - SLACK && column <= right + SLACK && row >= top - SLACK && row <= bottom + SLACK;
    return { column, row, seen };
  }

  /** The cells before and after a position, and the fraction of the way between them. */
  function split(position, cells) {
    const inside = clamp(position, 0, cells - 1);
    const before = Math.min(Math.floor(inside), Math.max(cells - 2, 0));
    return { before, after: Math.min(before + 1, cells - 1), part: inside - before };
  }

  const mix = (a, b, part) => (part === 0 ? a : part === 1 ? b : a + (b - a) * part);

  /** The bilinear interpolation of cells at a position. */
  function sample(cells, level, column, row) {
    const across = split(column, level.columns);
    const down = split(row, level.rows);
    const line = (at) => mix(
      cells[at * level.columns + across.before], cells[at * level.columns + across.after], across.part);
    return mix(line(down.before), line(down.after), down.part);
  }

  /** The value at an image point. NaN if it is not finite, null if the network did not see the point. */
  function valueAt(level, x, y) {
    const { column, row, seen } = locate(level, x, y);
    if (!seen) return null;
    const value = sample(level.values, level, column, row);
    return Number.isFinite(value) ? value : NaN;
  }

  const isSeparable = (m) => !m[1] && !m[3] && !m[6] && !m[7];

  /** The heat of each pixel of a picture (width, height) of an image (size), not cut; NaN if not seen by the network. */
  function spread(level, units, size, [width, height]) {
    const heats = new Float64Array(width * height).fill(NaN);
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

  /** Fill `heats` for a matrix that keeps rows as rows: interpolate down each column of cells, then along each line. */
  function spreadLines(level, units, heats, xs, ys) {
    const across = xs.map((x) => locate(level, x, ys[0]).column);
    const spots = across.map((column) => split(column, level.columns));
    const [first, last] = seenOf(level, 0, across);
    const before = Int32Array.from(spots, (spot) => spot.before);
    const after = Int32Array.from(spots, (spot) => spot.after);
    const part = Float64Array.from(spots, (spot) => spot.part);
    const line = new Float64Array(level.columns);
    const down = ys.map((y) => locate(level, xs[0], y).row);
    const [top, bottom] = seenOf(level, 1, down);
    for (let i = top; i < bottom; i++) {
      const spot = split(down[i], level.rows);
      for (let cell = 0; cell < level.columns; cell++) {
        line[cell] = mix(units[spot.before * level.columns + cell], units[spot.after * level.columns + cell], spot.part);
      }
      for (let j = first; j < last; j++) heats[i * xs.length + j] = mix(line[before[j]], line[after[j]], part[j]);
    }
  }

  /** Which of these monotonic positions the network saw: index of the first, and index after the last. */
  function seenOf(level, axis, positions) {
    const [low, high] = [level.bounds[axis] - SLACK, level.bounds[axis + 2] + SLACK];
    const seen = positions.map((position) => position >= low && position <= high);
    return seen.includes(true) ? [seen.indexOf(true), seen.lastIndexOf(true) + 1] : [0, 0];
  }

  /** The pixels of the lines over what the network did not see, as in the Python drawing; 0 between them. */
  function hatching(width, height) {
    const [light, dark] = new Uint32Array(Uint8Array.of(255, 255, 255, 255, 0, 0, 0, 255).buffer);
    const period = Math.max(8, Math.round(Math.max(width, height) / LINES));
    const line = Math.max(1, Math.floor(period / 8));
    return (at) => {
      const diagonal = (at % width + Math.floor(at / width)) % period;
      return diagonal < line ? light : diagonal < 2 * line ? dark : 0;
    };
  }

  /**
   * Draw a level over the whole canvas, in the colors of `table`; transparent below the threshold (0–1). What the
   * network did not see is hatched. With `isPositive`, negative cells are 0. With `fades`, colors are as opaque as they
   * are hot. Principal components have their own colors, and the threshold is one of the norm.
   */
  function draw(canvas, level, range, size, table, threshold, isPositive, fades) {
    const { width, height } = canvas;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    const spreadOut = (units) => spread(level, units, size, [width, height]);
    const heats = spreadOut(unitsOf(level, range, isPositive));
    const planes = (level.planes || []).map((plane) => spreadOut(unitsOf(plane, [0, 1])));
    const unseen = hatching(width, height);
    for (let at = 0; at < heats.length; at++) {
      const value = clamp(heats[at], 0, 1);
      // Round down, as the Python drawing does.
      const gray = Math.floor(value * 255);
      if (value >= threshold) {
        const rgb = planes.map((plane) => Math.floor(clamp(plane[at], 0, 1) * 255));
        pixels[at] = table[gray];
        if (rgb.length) picture.data.set(rgb, 4 * at);
        if (fades) picture.data[4 * at + 3] = rgb.length ? Math.max(...rgb) : gray;
      }
      if (Number.isNaN(value)) pixels[at] = unseen(at);
    }
    context.putImageData(picture, 0, 0);
  }

  /**
   * Draw level `b` minus level `a` over the whole canvas, in the colors of `table`, whose middle is zero. What one of
   * the networks did not see is hatched.
   *
   * @param ranges - those of a and b, to divide each by its own first; null for the difference of the values
   * @returns the largest difference, whatever its sign, which the ends of the table stand for; 1 without any
   */
  function drawDifference(canvas, [a, b], ranges, size, table) {
    const { width, height } = canvas;
    const [one, other] = [a, b].map((level, number) => {
      const [low] = level.range; // what values that are not finite count as
      const heats = spread(level, unitsOf(level, ranges ? ranges[number] : [low, low + 1]), size, [width, height]);
      return ranges ? heats.map((value) => clamp(value, 0, 1)) : heats.map((value) => value + low);
    });
    const differences = other.map((value, at) => value - one[at]);
    const largest = differences.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0) || 1;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    const unseen = hatching(width, height);
    differences.forEach((value, at) => {
      pixels[at] = Number.isNaN(value) ? unseen(at) : table[Math.floor((value / largest + 1) / 2 * 255)];
    });
    context.putImageData(picture, 0, 0);
    return largest;
  }

  /** The table of a colormap, for draw(): 256 canvas pixels. `text` is 256 RGB colors in base64. */
  function tableOf(text) {
    const rgb = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const rgba = Uint8Array.from({ length: 1024 }, (_, at) => (at % 4 < 3 ? rgb[3 * Math.floor(at / 4) + at % 4] : 255));
    return new Uint32Array(rgba.buffer);
  }

  return { decode, draw, drawDifference, isSeparable, locate, tableOf, valueAt };
})();
