'use strict';

/*
 * Image view: one level of an image in a large picture, or all of its levels in small ones; with two runs, A and B side
 * by side. Notes above it name what is missing; below each picture is its color bar.
 */
const imageView = (() => {
  const SMALL_SCREEN = matchMedia('(max-width: 860px), (max-height: 600px)'); // also a larger one, zoomed in
  const TILE_WIDTH = 190; // minimum, in pixels
  const section = dom.find('viewer');
  const place = dom.find('pictures');
  let run = null;
  let choose = null;
  let pictures = []; // on view

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
   * @returns the large pictures, as picture.ofPair() returns them; none with all levels
   */
  function show(shot, chosen, missing) {
    const all = pairs.of(shot);
    const why = chosen.all ? null : explanations.find(shot, chosen.why);
    const pair = why || all.find(({ a }) => a.name === chosen.level) || all[0];
    const groups = (chosen.all ? all : [pair].filter(Boolean))
      .map((one) => ({ pair: one, made: picture.ofPair(run, shot, one, chosen.all) }));
    pictures = groups.flatMap(({ made }) => made).map((one) => ({ ...one, bar: one.level && picture.colorBar() }));
    place.className = `${chosen.all ? 'many' : 'one'} of-${run.runs.length}`;
    place.replaceChildren(...(chosen.all ? groups.map((group) => tileOf(group, pair, shot))
      : pictures.map((one, number) => figureOf(one, number, shot))));
    pictures.forEach((one) => { if (one.bar) one.frame.after(one.bar.bar); });
    layOut();
    dom.find('notes').textContent = [...missing, ...notesOn(shot, pair, why ? pair.a.name : chosen.level)].join(' ');
    explanations.show(shot, chosen.all ? '' : chosen.why);
    if (!chosen.all && pictures.length) explanations.connect(pictures[0], shot, chosen.why);
    if (!chosen.all) pictures.forEach(hover.connect);
    dress(chosen);
    return large();
  }

  /** Place the small pictures in rows that are as full as can be. */
  function layOut() {
    const across = Math.max(1, Math.floor(place.clientWidth / (TILE_WIDTH * run.runs.length)));
    const rows = Math.ceil(place.children.length / across);
    place.style.setProperty('--across', Math.ceil(place.children.length / rows) || 1);
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
    explanations.clear();
  }

  function wordsOn({ letter, level }, shot) {
    const facts = level ? level.facts || `${contentOf(level, letter)}, stride ${level.stride} px` : reasonOf(shot);
    return [`${letter && `${letter}: `}${level ? `${level.explains ? 'Why ' : ''}${level.name}` : '–'}`, facts];
  }

  /** What a map is made of, such as "max of 256 channels". */
  function contentOf({ content, channels }, letter) {
    const reduction = run.reductions[letter === 'B' ? 1 : 0];
    return channels && typeof reduction === 'string' ? `${reduction} of ${content}` : content;
  }

  /** What the values of a map are. */
  function unitOf({ explains, channels }) {
    if (explains) return 'evidence, in no unit';
    return channels ? 'activation, in no unit' : 'probability';
  }

  /** Why run B has nothing beside a level of run A. */
  function reasonOf({ sides, resized }) {
    if (sides.length > 1) return 'nothing to compare with';
    return resized ? 'this image in another size' : 'no such image';
  }

  function figureOf(one, number, shot) {
    const [name, facts] = wordsOn(one, shot);
    return picture.captioned(one, run.runs.length > 1 ? [name, run.runs[number], facts] : [name, facts]);
  }

  function tileOf({ pair, made }, current, shot) {
    const tile = dom.element('div', 'pair');
    tile.append(...made.map((one) => picture.captioned(one, wordsOn(one, shot), () => choose(pair.a.name))));
    if (pair === current) tile.querySelectorAll('button').forEach((one) => one.setAttribute('aria-current', 'true'));
    return tile;
  }

  /** Sentences on what is missing. */
  function notesOn(shot, pair, level) {
    const words = [];
    if (!pair) words.push('No level of this image was saved.');
    else if (pair.a.name !== level) words.push(`This image has no level ${level}.`);
    if (run.levels.length === 1) words.push('The run has one level only.');
    if (!shot.sides[0].boxes.length) words.push('No boxes: neither predictions nor ground truth.');
    if (shot.photo === null) words.push('The image file could not be read.');
    if (shot.sides.some(({ cropped }) => cropped)) words.push('Hatched: not seen by the network.');
    const { interpolation } = run.settings;
    if (interpolation !== 'bilinear') words.push(`Drawn bilinearly here, not ${interpolation} as in the pictures.`);
    if (run.runs.length > 1 && shot.sides.length < 2) {
      words.push(shot.resized ? 'Run B has this image in another size.' : 'Run B has no such image.');
    }
    return words;
  }

  /** Apply the settings that need no painting: opacity (also of the strip), and which boxes are shown. */
  function dress({ alpha, pred, truth, labels, score, class: name }) {
    section.style.setProperty('--alpha', alpha);
    section.classList.toggle('no-pred', !pred);
    section.classList.toggle('no-truth', !truth);
    section.classList.toggle('no-labels', !labels);
    place.querySelectorAll('.box').forEach((box) => {
      const isLow = box.dataset.score !== '' && Number(box.dataset.score) < score;
      box.hidden = isLow || (name !== '' && box.dataset.name !== name);
    });
  }

  /** Paint the heat, and mark the view as painted, for programs that wait for it. See picture.js for `look`. */
  function paint(look) {
    pictures.forEach((one) => {
      one.paint(look);
      if (one.bar) one.bar.paint(look(), one.range(look()), unitOf(one.level));
    });
    place.dataset.painted = pictures.length;
  }

  return { clear, current, dress, large, paint, reveal, show, start };
})();
