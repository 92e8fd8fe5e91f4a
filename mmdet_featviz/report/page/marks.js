'use strict';

/*
 * Marks: which images the reader has marked, and notes on them. The browser keeps them for this page, if it lets pages
 * from disk keep anything; they are in no file until they are exported.
 */
const marks = (() => {
  const PLACE = `featviz marks ${location.pathname}`;
  const button = dom.find('mark');
  const field = dom.find('note');
  let notes = new Map(); // of marked images: {key: note, '' without one}
  let image = null; // on view
  let onChange = () => {};

  /** Begin. `given` is called after each change. */
  function start(given) {
    onChange = given;
    notes = read();
    button.addEventListener('click', flip);
    field.addEventListener('input', () => change(() => notes.set(image.key, field.value)));
  }

  function read() {
    try {
      const entries = JSON.parse(localStorage.getItem(PLACE)) || [];
      return new Map(entries.map(([key, note]) => [String(key), String(note)]));
    } catch (error) { // nothing can be kept, or another page wrote something else there
      return new Map();
    }
  }

  function change(action) {
    action();
    try {
      localStorage.setItem(PLACE, JSON.stringify([...notes]));
    } catch (error) { /* they last as long as the page is open */ }
    show(image);
    onChange();
  }

  /** Mark the image on view, or remove its mark and note. */
  function flip() {
    if (image) change(() => (notes.has(image.key) ? notes.delete(image.key) : notes.set(image.key, '')));
  }

  /** Show the mark and note of an image. */
  function show(given) {
    image = given;
    const isMarked = image !== null && notes.has(image.key);
    button.textContent = isMarked ? '★' : '☆';
    button.setAttribute('aria-pressed', isMarked);
    if (image && field.value !== noteOf(image)) field.value = noteOf(image);
  }

  const has = ({ key }) => notes.has(key);
  const noteOf = ({ key }) => notes.get(key) || '';

  return { flip, has, noteOf, show, start };
})();
