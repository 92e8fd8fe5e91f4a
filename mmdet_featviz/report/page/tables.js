'use strict';

/* Tables: a table of texts and elements. */
const tables = (() => {
  /**
   * A table.
   *
   * @param title - its caption
   * @param heads - heads of the columns, '' for none; no line of heads if empty
   * @param rows - of each row its head and its cells
   */
  function make(title, heads, rows) {
    const table = dom.element('table');
    table.append(dom.element('caption', '', title));
    if (heads.length) table.createTHead().append(lineOf(heads.map((text) => (text === '' ? cell('') : head('col', text)))));
    const body = dom.element('tbody');
    body.append(...rows.map(([name, ...contents]) => lineOf([head('row', name), ...contents.map(cell)])));
    table.append(body);
    return table;
  }

  function lineOf(cells) {
    const line = dom.element('tr');
    line.append(...cells);
    return line;
  }

  function head(scope, text) {
    const made = dom.element('th', '', text);
    made.scope = scope;
    return made;
  }

  function cell(content) {
    const made = dom.element('td');
    made.append(content);
    return made;
  }

  return { make };
})();
