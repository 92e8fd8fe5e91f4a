'use strict';

/*
 * Store: loads the data of single images when they are asked for, and keeps the latest.
 *
 * A page from disk may not fetch files, but it may run scripts: each file of data calls featviz.shot() with its number.
 */
const store = (() => {
  const KEPT = 24; // beside those of one image
  const loaded = new Map(); // number: promise, the latest last
  const waiting = new Map(); // number: what takes the data
  let kept = KEPT;

  /** Keep the shots of an image together, however many they are: its strip shows them all. */
  function keep(count) {
    kept = KEPT + count;
  }

  /** The data of a shot, from its file if it is not at hand. */
  function shot(number) {
    const found = loaded.get(number) || load(number);
    loaded.delete(number);
    loaded.set(number, found);
    // What is on its way stays, so that it is not sent for twice.
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
        if (waiting.get(number) !== resolve) return; // it has called receive(), and may be sent for again by now
        waiting.delete(number);
        loaded.delete(number);
        reject(new Error(`${script.src} cannot be read: is the report's folder complete?`));
      };
      document.head.append(script);
    });
  }

  function receive(number, data) {
    const take = waiting.get(number);
    waiting.delete(number);
    if (take) take({ ...data, number });
  }

  const name = (number) => String(number).padStart(6, '0');
  const photo = (number) => `photos/${name(number)}.jpg`;
  const thumb = (number) => `thumbs/${name(number)}.jpg`;

  return { keep, photo, receive, shot, thumb };
})();
