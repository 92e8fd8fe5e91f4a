'use strict';

/*
 * Store: loads the data of shots on demand, and keeps the most recently used. A shot is one pass over an image in one
 * epoch.
 *
 * A page opened from disk may not fetch files, but may run scripts: each data file calls featviz.shot() with its number
 * and data.
 */
const store = (() => {
  const KEPT = 24; // shots, in addition to those of one image
  const loaded = new Map(); // number: promise of the data; the most recently used is last
  const waiting = new Map(); // number: function that takes the data, for files being loaded
  let kept = KEPT;

  /** Make room for `count` shots of one image at once: the strip shows them all. */
  function keep(count) {
    kept = KEPT + count;
  }

  /** The data of a shot, as a promise; loads its file if needed. Rejects if the file cannot be read. */
  function shot(number) {
    const found = loaded.get(number) || load(number);
    loaded.delete(number);
    loaded.set(number, found);
    // Keep those being loaded, so that no file is requested twice.
    const old = [...loaded.keys()].filter((one) => !waiting.has(one));
    old.slice(0, Math.max(0, loaded.size - kept)).forEach((one) => loaded.delete(one));
    return found;
  }

  function load(number) {
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      waiting.set(number, resolve);
      script.src = `data/${name(number)}.js`;
      script.onload = script.onerror = () => {
        script.remove();
        if (waiting.get(number) !== resolve) return; // it called receive(), and may already be loading again
        waiting.delete(number);
        loaded.delete(number);
        reject(new Error(`${script.src} cannot be read: is the report's folder complete?`));
      };
      document.head.append(script);
    });
  }

  /** Take the data of a shot; data files call it as featviz.shot(). */
  function receive(number, data) {
    const take = waiting.get(number);
    waiting.delete(number);
    if (take) take({ ...data, number });
  }

  const name = (number) => String(number).padStart(6, '0');

  /** The path of an image file, and of its thumbnail. */
  const imagePath = (number) => `photos/${name(number)}.jpg`;
  const thumbPath = (number) => `thumbs/${name(number)}.jpg`;

  return { imagePath, keep, receive, shot, thumbPath };
})();
