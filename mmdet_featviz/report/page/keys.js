'use strict';

/* Keys: what keys do on the page. It keeps no state. */
const keys = (() => {
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const ZOOMS = { '+': 1, '=': 1, '-': -1, 0: 0 };
  const FLIPS = { a: 'all', p: 'pred', g: 'truth', l: 'labels', d: 'difference', s: 'similarity' };

  /**
   * Listen to keys.
   *
   * @param page.levels - returns the names of the levels of the image on view, null if none is loaded
   * @param page.level - returns the name of the chosen level
   * @param page.choose - called with the name of a level
   * @param page.go - called with 1 for the next image, -1 for the previous one, and whether the key is held down
   * @param page.rowSteps - returns how many images a key goes on by in the gallery, undefined if it is no such key
   * @param page.flip - called with the name of a setting to turn on or off
   * @param page.canFlip - returns whether the user can change a setting, by name
   * @param page.mark - called to mark the image on view, or to remove its mark
   * @param page.zoom - called with 1 to zoom in, -1 to zoom out, 0 to show the whole image
   * @param page.move - called with steps across and down (-1, 0, 1) to move the mark
   */
  function start(page) {
    const search = dom.find('search');
    document.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === 'Escape' && event.target === search) {
        event.preventDefault(); // which would empty the field
        search.blur();
      }
      if (event.target.closest('input:not([type=checkbox]), select, .scroll')) return;
      const action = event.key === '/' ? () => search.focus() : actionOf(page, event);
      if (!action) return;
      event.preventDefault();
      action();
    });
  }

  /** What a key does, as a function; null if nothing, so that the browser handles it. */
  function actionOf(page, { key, shiftKey, target, repeat }) {
    const [across, down] = ARROWS[key] || [0, 0];
    const steps = target.closest('#grid') && !shiftKey ? page.rowSteps(key) : undefined;
    if (steps !== undefined) return () => page.go(steps, repeat);
    if (across && !shiftKey) return () => page.go(across, repeat); // also away from an image whose file is missing
    const levels = page.levels();
    if (!levels) return null;
    if (key in ARROWS && shiftKey) return () => page.move(across, down);
    // Beyond the first and the last level, arrows scroll the page.
    if (key in ARROWS) return toLevel(page, levels[levels.indexOf(page.level()) + down]);
    if (/^[1-9]$/.test(key)) return toLevel(page, levels[Number(key) - 1]);
    if (key === 'm') return page.mark;
    if (key in ZOOMS) return () => page.zoom(ZOOMS[key]);
    return key in FLIPS && page.canFlip(FLIPS[key]) ? () => page.flip(FLIPS[key]) : null;
  }

  const toLevel = (page, name) => (name === undefined ? null : () => page.choose(name));

  return { start };
})();
