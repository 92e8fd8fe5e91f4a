'use strict';

/*
 * Label places: where the labels of boxes and the letters of their types stand, so that they cover no other, as in the
 * pictures of the hook: see free_place() in Python. It uses no other script of the page.
 */
const labelPlaces = (() => {
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const touches = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  /** Left and top of a label above the box, below its upper side, below the box, above its lower side. */
  const corners = ([left, top, right, bottom], [width, height]) =>
    [top - height, Math.max(top, 0), bottom, bottom - height].flatMap((y) => [[left, y], [right - width, y]]);

  /** Left and top of letters beside the box, at its upper and its lower side. */
  const sides = ([left, top, right, bottom], [width, height]) =>
    [top, bottom - height].flatMap((y) => [[right, y], [left - width, y]]);

  /** The area { left, top, right, bottom } of a text at each of these spots, moved sideways into the picture. */
  const areasAt = (spots, [width, height], size) => spots.map(([x, y]) => {
    const left = clamp(x, 0, Math.max(0, size[0] - width));
    return { left, top: y, right: left + width, bottom: y + height };
  });

  /** The first area that is inside the picture and covers nothing that is taken; undefined if there is none. */
  const free = (areas, size, taken) => areas.find((area) => area.top >= 0 && area.right <= size[0] && area.bottom <= size[1]
    && !taken.some((other) => touches(area, other)));

  /** The area of a label at a box, null if there is no place. */
  const labelAt = (box, text, size, taken) => free(areasAt(corners(box, text), text, size), size, taken) || null;

  /** The area of letters at a box: they tell its type, so if there is no free place they cover others. */
  function lettersAt(box, text, size, taken) {
    const areas = areasAt(sides(box, text), text, size);
    const top = clamp(areas[0].top, 0, Math.max(0, size[1] - text[1]));
    return free(areas, size, taken) || { ...areas[0], top, bottom: top + text[1] };
  }

  /**
   * Place the texts of boxes; those that come first choose first, and letters before labels.
   *
   * @param items - of each box { box, letters, labels }: its [left, top, right, bottom] in the picture, the
   *   [width, height] of its letters (null without any), and those of its label, from the longest text to the shortest
   * @param size - [width, height] of the picture
   * @returns of each box { letters, label, choice }: areas, null for what has no place or is outside of the picture, and
   *   the index of the text of the label
   */
  function place(items, size) {
    const taken = [];
    const take = (area) => {
      if (area) taken.push(area);
      return area;
    };
    const isInside = ([left, top, right, bottom]) => right > 0 && bottom > 0 && left < size[0] && top < size[1];
    const letters = items.map(({ box, letters: text }) => (text && isInside(box) ? take(lettersAt(box, text, size, taken)) : null));
    return items.map(({ box, labels }, number) => {
      for (let choice = 0; isInside(box) && choice < labels.length; choice++) {
        const label = take(labelAt(box, labels[choice], size, taken));
        if (label) return { letters: letters[number], label, choice };
      }
      return { letters: letters[number], label: null, choice: null };
    });
  }

  return { place };
})();
