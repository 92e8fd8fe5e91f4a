'use strict';

/*
 * Store: loads the data of single images when they are asked for, and keeps the latest.
 *
 * A page from disk may not fetch files, but it may run scripts: each file of data calls featviz.shot() with its number.
 */
const store = (() => {
  const KEPT = 24;
  const loaded = new Map(); // number: promise, the latest last
  const waiting = new Map(); // number: what takes the data

  /** The data of a shot, from its file if it is not at hand. */
  function shot(number) {
    const found = loaded.get(number) || load(number);
    loaded.delete(number);
    loaded.set(number, found);
    if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    return found;
  }

  function load(number) {
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      waiting.set(number, resolve);
      script.src = `data/${name(number)}.js`;
      script.onload = script.onerror = () => {
        script.remove();
        if (!waiting.delete(number)) return; // it has called receive()
        loaded.delete(number);
        reject(new Error(`${script.src} cannot be read: is the report's folder complete?`));
      };
      document.head.append(script);
    });
  }

  function receive(number, data) {
    const take = waiting.get(number);
    waiting.delete(number);
    if (take) take(data);
  }

  const name = (number) => String(number).padStart(6, '0');
  const photo = (number) => `photos/${name(number)}.jpg`;
  const thumb = (number) => `thumbs/${name(number)}.jpg`;

  return { photo, receive, shot, thumb };
})();
