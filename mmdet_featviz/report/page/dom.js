'use strict';

/* Dom: helpers for elements and the texts in them. */
const dom = (() => {
  /** The element with this id. */
  const find = (id) => document.getElementById(id);

  /** A new element. `className` and `text` are optional. */
  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** A new button with a text, which may be empty; a click on it calls `onClick`. */
  function button(text, onClick) {
    const made = element('button', '', text);
    made.type = 'button';
    made.addEventListener('click', onClick);
    return made;
  }

  /** A number as text, with at most four significant digits. */
  const short = (value) => String(Number(value.toPrecision(4)));

  /** The letter of a run of a comparison, by its number. */
  const letter = (number) => String.fromCharCode(65 + number);

  /** A number with its noun. */
  const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

  /**
   * Make the content of an element anew with `build`. If the focus was in it, it moves to the element that `find`
   * returns; it is called with the number of the button that had the focus, -1 if it was none.
   */
  function keepFocus(place, build, find) {
    const focused = document.activeElement;
    const isInside = place.contains(focused);
    const number = isInside ? [...place.querySelectorAll('button')].indexOf(focused) : -1;
    build();
    const next = isInside && !place.contains(document.activeElement) ? find(number) : null;
    if (next) next.focus({ preventScroll: true });
  }

  return { button, count, element, find, keepFocus, letter, short };
})();
