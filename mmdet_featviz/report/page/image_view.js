'use strict';

/*
 * Image view: one level of an image in a large picture, or all of its levels in small ones; several runs side by side,
 * and on request the differences to run A below them. Notes above it name what is missing; below each picture is its
 * color bar.
 */
const imageView = (() => {
  const SMALL_SCREEN = matchMedia('(max-width: 860px), (max-height: 600px)'); // also a larger one, zoomed in
  const TILE_WIDTH = 190; // minimum, in pixels
  const PICTURE_WIDTH = 260; // of large pictures of several runs, minimum
  const section = dom.find('viewer');
  const place = dom.find('pictures');
  let run = null;
  let choose = null;
  let pictures = []; // on view
  let placed = []; // differences on view, and the figures with them: { figure, number }

  /** Begin. `onChoose` is called with the name of a level when its small picture is clicked. */
  function start(given, onChoose) {
    [run, choose] = [given, onChoose];
    section.classList.toggle('adds', run.settings.blend === 'add');
    new ResizeObserver(layOut).observe(section);
  }

  /**
   * Show a shot, not painted yet.
   *
   * @param shot - the data of a shot, from store.shot()
   * @param chosen - the settings
   * @param missing - sentences on what the settings name and is not there
   * @param similar - what similarity.find() found, shown in place of the level; null if nothing
   * @returns the large pictures, as picture.ofMatch() returns them; none with all levels
   */
  function show(shot, chosen, missing, similar) {
    const all = matches.of(shot);
    const why = chosen.all ? null : explanations.find(shot, chosen.why);
    const instead = why || (similar && [similar.level, ...shot.sides.slice(1).map(() => null)]);
    const match = instead || all.find(([first]) => first.name === chosen.level) || all[0];
    const groups = (chosen.all ? all : [match].filter(Boolean)).map((one) => ({ match: one, made: picturesOf(one, shot, chosen) }));
    pictures = groups.flatMap(({ made }) => made);
    placed = [];
    place.className = chosen.all ? 'many' : 'one';
    place.style.setProperty('--runs', run.runs.length);
    place.replaceChildren(...(chosen.all ? groups.map((group) => tileOf(group, match, shot))
      : pictures.map((one) => figureOf(one, shot))));
    pictures.forEach((one) => { if (one.bar) one.frame.after(one.bar.bar); });
    layOut();
    dom.find('notes').textContent = [...missing, ...notesOn(shot, match, instead ? match[0].name : chosen.level)].join(' ');
    explanations.show(shot, chosen.all ? '' : chosen.why);
    if (!chosen.all && !chosen.similarity && pictures.length) explanations.connect(pictures[0], shot, chosen.why);
    if (similar && !why) similarCells.outline(pictures[0], similar);
    if (!chosen.all) pictures.forEach(hover.connect);
    boxPanel.watch(large(), shot.sides);
    boxLabels.watch(large());
    dress(chosen);
    return large();
  }

  function picturesOf(match, shot, { all, difference }) {
    const made = [
      ...picture.ofMatch(run, shot, match, all),
      ...(difference ? picture.differences(run, shot, match, all) : []),
    ];
    return made.map((one) => ({ ...one, match, bar: hasValues(one.level) || one.isDifference ? picture.colorBar() : null }));
  }

  /** Whether the colors of a level stand for values; those of principal components do not. */
  const hasValues = (level) => level && !level.colors && !level.planes;

  /** Place the pictures in rows that are as full as can be, and a difference below its run if that has a column. */
  function layOut() {
    const runs = run.runs.length;
    const isMany = place.classList.contains('many');
    const count = isMany ? place.children.length : runs;
    const across = Math.max(1, Math.floor(place.clientWidth / (isMany ? TILE_WIDTH * runs : PICTURE_WIDTH)));
    const columns = Math.ceil(count / Math.ceil(count / across)) || 1;
    place.style.setProperty('--across', columns);
    placed.forEach(({ figure, number }) => { figure.style.gridColumn = isMany || columns === runs ? number + 1 : 'auto'; });
  }

  /** The large pictures on view; none with all levels. */
  const large = () => (place.classList.contains('one') ? pictures : []);

  /** What is to have the focus: the picture of the chosen level. */
  const current = () => place.querySelector('[aria-current], [tabindex]');

  /** On a small screen, where it may be below the list and the controls, scroll to the picture. */
  function reveal() {
    if (SMALL_SCREEN.matches && pictures.length) pictures[0].frame.scrollIntoView({ block: 'nearest' });
  }

  /** Show nothing. */
  function clear() {
    pictures = [];
    place.replaceChildren();
    place.dataset.painted = 0;
    dom.find('notes').textContent = '';
    typeLegend.show([]);
    boxLabels.watch([]);
    explanations.clear();
  }

  function wordsOn({ number, letter, level, isDifference }, shot) {
    if (isDifference) return [letter];
    const facts = level ? level.facts || `${contentOf(level, number)}, stride ${level.stride} px` : reasonOf(shot, number);
    return [`${letter && `${letter}: `}${level ? `${level.explains ? 'Why ' : ''}${level.name}` : '–'}`, facts];
  }

  /** What a map is made of, such as "max of 256 channels". */
  function contentOf({ content, channels }, number) {
    const reduction = run.reductions[number];
    return channels && typeof reduction === 'string' ? `${reduction} of ${content}` : content;
  }

  /** What the values of a map are. */
  function unitOf({ explains, isSimilarity, channels }) {
    if (isSimilarity) return 'cosine';
    if (explains) return 'evidence, in no unit';
    return channels ? 'activation, in no unit' : 'probability';
  }

  /** What the values of a difference are. */
  const differenceUnit = (match, look) => (picture.isShared(match, look) ? 'difference' : 'difference, each divided by its range');

  /** Why a run has nothing beside a level of run A. */
  function reasonOf({ sides, resized }, number) {
    if (sides[number]) return 'nothing to compare with';
    return resized[number] ? 'this image in another size' : 'no such image';
  }

  function figureOf(one, shot) {
    const [name, ...facts] = wordsOn(one, shot);
    const hasName = run.runs.length > 1 && !one.isDifference;
    return noted(one, picture.captioned(one, hasName ? [name, run.runs[one.number], ...facts] : [name, ...facts]));
  }

  function tileOf({ match, made }, current, shot) {
    const tile = dom.element('div', 'match');
    tile.append(...made.map((one) => noted(one, picture.captioned(one, wordsOn(one, shot), () => choose(match[0].name)))));
    if (match === current) tile.querySelectorAll('button').forEach((one) => one.setAttribute('aria-current', 'true'));
    return tile;
  }

  /** Note where the figure of a difference is to be placed. Returns the figure. */
  function noted({ number, isDifference }, figure) {
    if (isDifference) placed.push({ figure, number });
    return figure;
  }

  /** Sentences on what is missing. */
  function notesOn(shot, match, level) {
    const words = [];
    if (!match) words.push('No level of this image was saved.');
    else if (match[0].name !== level) words.push(`This image has no level ${level}.`);
    if (run.levels.length === 1) words.push('The run has one level only.');
    if (match && !hasValues(match[0])) {
      words.push('Principal components as red, green and blue: values and threshold are of the norm of all channels.');
    }
    if (!shot.sides[0].boxes.length) words.push('No boxes: neither predictions nor ground truth.');
    if (shot.photo === null) words.push('The image file could not be read.');
    if (shot.sides.some((side) => side && side.cropped)) words.push('Hatched: not seen by the network.');
    const { interpolation } = run.settings;
    if (interpolation !== 'bilinear') words.push(`Drawn bilinearly here, not ${interpolation} as in the pictures.`);
    shot.sides.forEach((side, number) => {
      if (!side) words.push(`Run ${dom.letter(number)} has ${shot.resized[number] ? 'this image in another size' : 'no such image'}.`);
    });
    return words;
  }

  /** Apply the settings that need no painting: opacity (also of the strip), and which boxes are shown. */
  function dress(chosen) {
    const { alpha, pred, truth, labels } = chosen;
    section.style.setProperty('--alpha', alpha);
    section.classList.toggle('no-pred', !pred);
    section.classList.toggle('no-truth', !truth);
    section.classList.toggle('no-labels', !labels);
    place.querySelectorAll('.box').forEach((box) => boxOutlines.dress(box, chosen));
    typeLegend.show(pictures.length ? pictures[0].boxes : [], chosen);
    boxPanel.dress(chosen);
  }

  /** Paint the heat, and mark the view as painted, for programs that wait for it. See picture.js for `look`. */
  function paint(look) {
    pictures.forEach((one) => {
      one.paint(look);
      if (!one.bar) return;
      if (one.isDifference) one.bar.paint({ table: one.table, threshold: 0 }, one.range(), differenceUnit(one.match, look()));
      else one.bar.paint(look(), one.range(look()), unitOf(one.level));
    });
    place.dataset.painted = pictures.length;
  }

  return { clear, current, dress, large, paint, reveal, show, start };
})();
