'use strict';

/* Controls: the fields and buttons that show and change the settings. The id of a field is the name of its setting. */
const controls = (() => {
  const FIELDS = ['level', 'colormap', 'range', 'alpha', 'threshold', 'score', 'all', 'pred', 'truth', 'labels', 'common',
    'difference', 'similarity',
    'search', 'class', 'type', 'size', 'mechanism', 'marked', 'sort', 'maplevel', 'mapcolor'];

  /**
   * Fill the lists and connect the fields.
   *
   * @param given.run - the run; what it has none of is disabled
   * @param given.choices - settings.choices()
   * @param given.onChange - called with the changed settings
   * @param given.flip - called with the name of a setting to turn on or off
   * @param given.go - called with 1 for the next image, -1 for the previous one
   */
  function start({ run, choices, onChange, flip, go }) {
    Object.entries(choices).forEach(([name, pairs]) => {
      dom.find(name).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
    });
    FIELDS.forEach((name) => {
      // In some browsers, and with browser drivers, lists send only a change event.
      ['input', 'change'].forEach((kind) => {
        dom.find(name).addEventListener(kind, () => onChange({ [name]: valueOf(dom.find(name)) }));
      });
    });
    dom.find('direction').addEventListener('click', () => flip('down'));
    dom.find('previous').addEventListener('click', () => go(-1));
    dom.find('next').addEventListener('click', () => go(1));
    dom.find('zoom').querySelectorAll('button').forEach((button) => {
      button.addEventListener('click', () => zoom.by(Number(button.value)));
    });
    dom.find('all').disabled = run.levels.length < 2;
    ['common', 'difference'].forEach((name) => {
      dom.find(name).disabled = run.runs.length < 2;
      dom.find(name).parentElement.hidden = run.runs.length < 2;
    });
    dom.find('similarity').disabled = !similarity.isKnown();
    dom.find('similarity').parentElement.hidden = !similarity.isKnown();
    dom.find('truth').disabled = !orders.hasTruth(run);
    dom.find('filters').hidden = !run.errors;
    dom.find('gallery').classList.toggle('filtered', run.errors !== null);
  }

  function valueOf(field) {
    if (field.type === 'checkbox') return field.checked;
    return field.type === 'range' ? Number(field.value) : field.value;
  }

  /** Show these settings; the buttons for the previous and the next image are enabled as gallery.ends() returns. */
  function show(chosen, { hasPrevious, hasNext }) {
    FIELDS.forEach((name) => {
      const field = dom.find(name);
      if (field.type === 'checkbox') field.checked = chosen[name];
      else if (field.value !== String(chosen[name])) field.value = chosen[name];
      const output = document.querySelector(`output[for=${name}]`);
      if (output) output.textContent = chosen[name].toFixed(2);
    });
    dom.find('direction').textContent = chosen.down ? '↓' : '↑';
    dom.find('direction').setAttribute('aria-pressed', chosen.down);
    // Not `disabled`, which would take the focus from a button that is pressed until the end.
    dom.find('previous').setAttribute('aria-disabled', !hasPrevious);
    dom.find('next').setAttribute('aria-disabled', !hasNext);
  }

  /** Whether the user can change a setting. */
  const isEnabled = (name) => !dom.find(name).disabled;

  return { isEnabled, show, start };
})();
