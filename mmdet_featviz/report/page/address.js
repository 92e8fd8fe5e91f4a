'use strict';

/*
 * Address: keeps the settings in location.hash, as in #image=a/1&level=neck_0. Settings with their default value are
 * left out.
 */
const address = (() => {
  const PAUSE = 200; // milliseconds without new settings, before these are written
  let defaults = {};
  let choices = {};
  let onWrite = () => {};
  let lastHash = ''; // location.hash when it was last read or written
  let unwritten = null; // settings that the address does not have yet
  let timer = 0; // of the pause; 0 after it

  /**
   * Connect the settings with the address.
   *
   * @param given.defaults - settings.defaults()
   * @param given.choices - settings.choices(); other values in an address are ignored
   * @param given.onWrite - called after settings were written to the address
   * @param given.onChange - called with all settings when the user, a link or the browser's history changed the address
   */
  function start(given) {
    ({ defaults, choices, onWrite } = given);
    lastHash = location.hash;
    window.addEventListener('hashchange', () => {
      [lastHash, unwritten] = [location.hash, null];
      given.onChange(read());
    });
  }

  /** All settings: those in the address, defaults for the rest. */
  function read() {
    const values = { ...defaults };
    new URLSearchParams(location.hash.slice(1)).forEach((text, name) => {
      const value = parse(text, defaults[name]);
      if (value === undefined) return;
      const isValid = !choices[name] || choices[name].some(([one]) => one === value);
      values[name] = isValid ? value : defaults[name];
    });
    return values;
  }

  /** The value of a text, of the same type as the default; undefined if it has none. */
  function parse(text, usual) {
    if (typeof usual === 'string') return text;
    if (typeof usual === 'boolean') return text === '1';
    return typeof usual === 'number' && Number(text) >= 0 && Number(text) <= 1 ? Number(text) : undefined;
  }

  /** The hash of an address with these settings. */
  function link(chosen) {
    const params = new URLSearchParams();
    Object.keys(defaults).filter((name) => chosen[name] !== defaults[name]).forEach((name) => {
      params.set(name, typeof chosen[name] === 'boolean' ? Number(chosen[name]) : chosen[name]);
    });
    return `#${params}`;
  }

  /** A text as it comes back from an address, where characters that are not valid Unicode are replaced. */
  const roundTrip = (text) => new URLSearchParams([['', text]]).get('');

  /**
   * Write settings: now if none were written just before, else after a pause. Browsers stop or fail if the address is
   * written at each step of a slider or of a held key.
   */
  function writeSoon(chosen) {
    unwritten = chosen;
    if (!timer) write();
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = 0;
      write();
    }, PAUSE);
  }

  /** Write settings now, as a new step of the browser's history. */
  function push(chosen) {
    write(); // to the step before
    if (location.hash !== lastHash) return; // as in write()
    history.pushState(null, '', link(chosen));
    [lastHash, unwritten] = [location.hash, null];
    onWrite();
  }

  /** Write settings now. */
  function writeNow(chosen) {
    unwritten = chosen;
    write();
  }

  /** Write settings that still wait, now. */
  function write() {
    if (!unwritten || location.hash !== lastHash) return; // if it was changed, a hashchange event is on its way
    const hash = link(unwritten);
    unwritten = null;
    history.replaceState(null, '', hash);
    lastHash = location.hash;
    onWrite();
  }

  return { link, push, read, roundTrip, start, write, writeNow, writeSoon };
})();
