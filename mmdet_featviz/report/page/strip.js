'use strict';

/* Strip: small pictures of one level in all epochs, or in all passes over an image. */
const strip = (() => {
  const place = dom.find('strip');
  let run = null;
  let choose = null;
  let complain = null;
  let pictures = []; // those whose data is loaded
  let isFocused = false; // the focus was in the strip, and goes to the current picture when that is loaded

  /**
   * Begin.
   *
   * @param given.run - the run
   * @param given.onChoose - called with the label of a shot when its picture is clicked
   * @param given.onError - called with an error if the data of a shot cannot be loaded
   */
  function start(given) {
    run = given.run;
    [choose, complain] = [given.onChoose, given.onError];
  }

  /**
   * Show the shots of an image; each is loaded and painted on its own. The strip is hidden with fewer than two.
   *
   * @param shots - the shots of an image: [[number, label], ...]
   * @param current - number of the shot to mark
   * @param level - name of the level
   * @param look - see picture.js
   */
  function show(shots, current, level, look) {
    isFocused = place.contains(document.activeElement) || (isFocused && document.activeElement === document.body);
    pictures = [];
    place.replaceChildren();
    place.hidden = shots.length < 2;
    if (place.hidden) return;
    shots.forEach(([number, label]) => {
      const spot = dom.element('div', '', label);
      place.append(spot);
      load(spot, number, label, number === current, level, look)
        .catch((error) => { if (spot.isConnected) complain(error); });
    });
  }

  async function load(spot, number, label, isCurrent, level, look) {
    const shot = await store.shot(number);
    const match = matches.of(shot).find(([first]) => first.name === level);
    if (!match || !spot.isConnected) return;
    const [made] = picture.ofMatch(run, shot, match, true, false);
    const figure = picture.captioned(made, [label || 'first pass'], () => choose(label));
    spot.replaceWith(figure);
    if (isCurrent) {
      const button = figure.querySelector('button');
      button.setAttribute('aria-current', 'true');
      if (isFocused && document.activeElement === document.body) button.focus({ preventScroll: true });
      isFocused = false;
      place.scrollLeft = figure.offsetLeft - place.offsetLeft; // the last of many epochs is far to the right
    }
    pictures.push(made);
    made.paint(look);
  }

  /** Show nothing. */
  const clear = () => show([]);

  /** Paint the heat of the pictures that are loaded. */
  const paint = (look) => pictures.forEach((one) => one.paint(look));

  return { clear, paint, show, start };
})();
