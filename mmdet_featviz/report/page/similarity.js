'use strict';

/*
 * Similarity: how similar cells are to a chosen one, as the cosine of the angle between their vectors.
 *
 * A file of cells has, for one level of several shots, what CellFiles in Python writes: { shot, photo, size, fit, rows,
 * columns, matrix, bounds, codes }, with the place of the cells as heat.js takes it and their vectors cell by cell, which
 * can be compared if `fit` is the same: those of other epochs have other components. The settings
 * `similarity` and `at` say whether cells are compared, and the place of the chosen one as "x,y" in pixels of the image.
 */
const similarity = (() => {
  const SIZE = 16; // numbers of a vector
  let run = null;

  function start(given) {
    run = given;
  }

  /** Whether the run has cells to compare. */
  const isKnown = () => Object.keys(run.cells).length > 0;

  /** The chosen place, {x, y}, in an image of this size; null without one. */
  function placeIn([width, height], { similarity: isOn, at }) {
    const [, x, y] = at.match(/^(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)$/) || [];
    return isOn && x !== undefined && Number(x) <= width && Number(y) <= height ? { x: Number(x), y: Number(y) } : null;
  }

  /** A place as the setting `at`. */
  const textOf = ({ x, y }) => [x, y].map((value) => Number(value.toFixed(1))).join(',');

  /** The files of a level with some of these shots, by their numbers. */
  const filesOf = (level, shots) => (run.cells[level] || { files: [] }).files
    .filter(([, first, last]) => shots.some((shot) => shot >= first && shot <= last)).map(([file]) => file);

  /** The cells of a level in a shot, as a promise; null if there are none. */
  async function cellsOf(level, shot) {
    const [file] = filesOf(level, [shot]);
    const entries = file === undefined ? [] : await store.cells(file);
    return entries.find((one) => one.shot === shot) || null;
  }

  /** The number of the cell whose position is nearest to a place; null if the network did not see the place. */
  function cellAt(cells, { x, y }) {
    const { column, row, seen } = heat.locate(cells, x, y);
    const nearest = (position, count) => Math.min(Math.max(roundEven(position), 0), count - 1);
    return seen ? nearest(row, cells.rows) * cells.columns + nearest(column, cells.columns) : null;
  }

  /** Rounded as Python does: a place between two cells belongs to the even one. */
  function roundEven(value) {
    const below = Math.floor(value);
    return value - below === 0.5 ? below + (below % 2) : Math.round(value);
  }

  const vectorOf = ({ codes }, cell) => codes.subarray(cell * SIZE, (cell + 1) * SIZE);

  /** The cosine of each cell with a vector; 0 where one of them is zero. */
  function cosines({ codes }, vector) {
    const found = new Float64Array(codes.length / SIZE);
    const own = vector.reduce((sum, value) => sum + value * value, 0);
    for (let cell = 0; cell < found.length; cell++) {
      let [dot, square] = [0, 0];
      for (let number = 0; number < SIZE; number++) {
        const value = codes[cell * SIZE + number];
        dot += value * vector[number];
        square += value * value;
      }
      found[cell] = square && own ? dot / Math.sqrt(square * own) : 0;
    }
    return found;
  }

  /** Where the corner or middle of a cell is in the image: column and row may be fractions. */
  function toImage({ matrix: [a, b, c, d, e, f, g, h, i] }, column, row) {
    // The inverse of the matrix, but for its determinant, which is in all three.
    const x = (e * i - f * h) * column + (c * h - b * i) * row + (b * f - c * e);
    const y = (f * g - d * i) * column + (a * i - c * g) * row + (c * d - a * f);
    const w = (d * h - e * g) * column + (b * g - a * h) * row + (a * e - b * d);
    return { x: x / w, y: y / w };
  }

  /** The place of a cell, inside the image: its position may be beyond a side. */
  function positionOf(cells, cell) {
    const { x, y } = toImage(cells, cell % cells.columns, Math.floor(cell / cells.columns));
    const inside = (value, length) => Math.min(Math.max(value, 0), length);
    return { x: inside(x, cells.size[0]), y: inside(y, cells.size[1]) };
  }

  /** The rectangle around a cell, { left, top, right, bottom } in pixels of the image. */
  function blockOf(cells, cell) {
    const [column, row] = [cell % cells.columns, Math.floor(cell / cells.columns)];
    const corners = [-0.5, 0.5].flatMap((down) => [-0.5, 0.5].map((across) => toImage(cells, column + across, row + down)));
    const [xs, ys] = [corners.map(({ x }) => x), corners.map(({ y }) => y)];
    return { left: Math.min(...xs), top: Math.min(...ys), right: Math.max(...xs), bottom: Math.max(...ys) };
  }

  /** Whether a cell counts: with a homography, some are beside the image. */
  function counts(cells, cell) {
    if (heat.isSeparable(cells.matrix)) return true;
    const { x, y } = toImage(cells, cell % cells.columns, Math.floor(cell / cells.columns));
    return x >= 0 && y >= 0 && x <= cells.size[0] && y <= cells.size[1];
  }

  /** The most similar cell of a shot: { cells, cell, cosine }; null if none has a direction. */
  function best(cells, vector) {
    let found = null;
    cosines(cells, vector).forEach((cosine, cell) => {
      if (found && cosine <= found.cosine) return;
      if (counts(cells, cell) && vectorOf(cells, cell).some(Boolean)) found = { cells, cell, cosine };
    });
    return found;
  }

  /**
   * Compare all cells of a shot with the chosen one.
   *
   * @returns a promise of { level, cells, cell }: the cosines as a level, see heat.js, and the chosen cell; null
   *   without a place, without cells or where the network did not see the place
   */
  async function find(shot, chosen) {
    const place = placeIn(shot.size, chosen);
    const cells = place && await cellsOf(chosen.level, shot.number);
    const cell = cells && cellAt(cells, place);
    if (cell === null) return null;
    const { x, y } = positionOf(cells, cell);
    const level = {
      ...cells,
      values: cosines(cells, vectorOf(cells, cell)),
      range: [-1, 1],
      name: `Similarity in ${chosen.level}`,
      facts: `cosine of the first ${SIZE} principal components with the cell at x ${Math.floor(x)} px, y ${Math.floor(y)} px`,
      isSimilarity: true,
    };
    return { level, cells, cell };
  }

  /**
   * The most similar cell of each of these shots, the most similar first, as a promise.
   *
   * @param level - name of the level
   * @param shots - numbers of the shots
   * @param chosen - cells of a shot and the number of the chosen one, { cells, cell }
   * @param onStep - called after each file with the number of shots so far; returns whether to go on
   */
  async function search(level, shots, chosen, onStep) {
    const vector = vectorOf(chosen.cells, chosen.cell);
    const wanted = new Set(shots);
    const found = [];
    let searched = 0;
    for (const file of filesOf(level, shots)) {
      const entries = (await store.cells(file)).filter(({ shot }) => wanted.has(shot));
      const alike = entries.filter(({ fit }) => fit === chosen.cells.fit);
      found.push(...alike.map((cells) => best(cells, vector)).filter(Boolean));
      searched += entries.length;
      if (!onStep(searched)) break;
      await new Promise((resolve) => { setTimeout(resolve); }); // the page stays usable
    }
    return found.sort((a, b) => b.cosine - a.cosine);
  }

  /** The size of the cells of a level, of all images, in megabytes. */
  const megabytes = (level) => (run.cells[level] || { bytes: 0 }).bytes / 1e6;

  return { blockOf, find, isKnown, megabytes, placeIn, positionOf, search, start, textOf };
})();
