'use strict';

/*
 * Store: loads the data of shots and images on demand, and keeps the most recently used. A shot is one pass over an
 * image in one epoch.
 *
 * A page opened from disk may not fetch files, nor save a picture that it drew from image files, but it may run scripts:
 * each file in data calls featviz.shot() with its number and data, and each in photos featviz.photo() with its number
 * and a JPEG file in base64, and so on. A page that is one file has the same data in it, as JSON in elements with these
 * names.
 */
const store = (() => {
  const KEPT = 24; // files, in addition to those of one image
  const CELL_FILES = 200; // of cells, of about a megabyte

  const name = (folder, number) => `${folder}/${String(number).padStart(6, '0')}`;
  const embedded = (folder, number) => dom.find(name(folder, number));
  const urlOf = (jpeg) => `data:image/jpeg;base64,${jpeg}`;

  /**
   * A loader of the numbered data in a folder: { keep, get, receive }.
   *
   * @param folder - name of the folder
   * @param finish - makes what get() promises of the data and their number
   */
  function loaderOf(folder, finish) {
    const loaded = new Map(); // number: promise of the data; the most recently used is last
    const waiting = new Map(); // number: function that takes the data, for files being loaded
    let kept = KEPT;

    function keep(count) {
      kept = KEPT + count;
    }

    function get(number) {
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
        const block = embedded(folder, number);
        if (block) {
          resolve(finish(JSON.parse(block.textContent), number));
          return;
        }
        const script = document.createElement('script');
        waiting.set(number, resolve);
        script.src = `${name(folder, number)}.js`;
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

    function receive(number, data) {
      const take = waiting.get(number);
      waiting.delete(number);
      if (take) take(finish(data, number));
    }

    return { get, keep, receive };
  }

  const shots = loaderOf('data', (data, number) => ({ ...data, number }));
  const photos = loaderOf('photos', urlOf);
  const boxes = loaderOf('boxes', (data) => data);
  const contrasts = loaderOf('contrasts', (data) => data);
  const cells = loaderOf('cells', (entries) => entries.map((one) =>
    ({ ...one, codes: Int8Array.from(atob(one.codes), (sign) => sign.charCodeAt(0)) })));
  cells.keep(CELL_FILES);

  /** Make room for `count` shots of one image at once: the strip shows them all. */
  function keep(count) {
    shots.keep(count);
    photos.keep(count);
  }

  /** The URL of a thumbnail. */
  function thumb(number) {
    const block = embedded('thumbs', number);
    return block ? urlOf(JSON.parse(block.textContent)) : `${name('thumbs', number)}.jpg`;
  }

  // shot, photo, cells, boxes, contrasts: the data of a shot, the URL of an image, the entries of a file of cells, the map
  // of boxes and the contrasts of objects (both number 0), as promises that are rejected if the file cannot be read.
  // receive, receivePhoto and so on take them; the files call these as featviz.shot(), featviz.photo() and so on.
  return {
    boxes: boxes.get, cells: cells.get, contrasts: contrasts.get, keep, photo: photos.get, receive: shots.receive,
    receiveBoxes: boxes.receive, receiveCells: cells.receive, receiveContrasts: contrasts.receive,
    receivePhoto: photos.receive, shot: shots.get, thumb,
  };
})();
