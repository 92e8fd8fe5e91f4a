'use strict';

/*
 * Explanations: why a box is there. Buttons below the picture name the explained boxes, and a click on such a box in a
 * large picture does the same as its button.
 *
 * An explanation is a level, see heat.js, with more entries: see explanation_data() in Python.
 */
const explanations = (() => {
  const place = dom.find('why');
  let choose = () => {};

  /** Begin. `onChoose` is called with the id of an explanation, or '' to return to the level. */
  function start(onChoose) {
    choose = onChoose;
  }

  /** The explanation with this id and those of the same box in other runs, as a match; null if there is none. */
  function find({ sides: [first, ...others] }, id) {
    const own = first.explanations.find((one) => one.id === id);
    const partner = (side, at) => (side && side.explanations.find((one) => one.id === own.partners[at])) || null;
    return own ? [own, ...others.map(partner)] : null;
  }

  /** Show the buttons of a shot; the button of the explanation `id` is pressed. */
  function show({ sides }, id) {
    const all = sides[0].explanations;
    place.hidden = !all.length;
    const buttons = all.map((one) => {
      const button = dom.button(one.name, () => choose(one.id === id ? '' : one.id));
      button.title = one.facts;
      button.setAttribute('aria-pressed', one.id === id);
      return button;
    });
    const words = dom.element('span', '', 'Why is it there?');
    dom.keepFocus(place, () => place.replaceChildren(words, ...buttons), (number) => buttons[number]);
  }

  /** Show no buttons. */
  function clear() {
    place.hidden = true;
    place.replaceChildren();
  }

  /** Let a click on an explained box of a large picture choose its explanation; of several, the smallest box. */
  function connect({ frame, boxes }, { sides }, id) {
    const clickable = sides[0].explanations.flatMap((one) => one.clicks.map((index) => ({ one, box: boxes[index] })));
    clickable.forEach(({ one, box }) => {
      box.classList.add('explained');
      box.classList.toggle('chosen', one.id === id);
    });
    frame.addEventListener('click', (event) => {
      const hit = hover.boxAt(clickable.map(({ box }) => box), event);
      const found = clickable.find(({ box }) => box === hit);
      if (found) choose(found.one.id === id ? '' : found.one.id);
    });
  }

  return { clear, connect, find, show, start };
})();
