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

  /** A number as text, with at most four significant digits. */
  const short = (value) => String(Number(value.toPrecision(4)));

  return { element, find, short };
})();
