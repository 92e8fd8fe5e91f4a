"""Focus computed pixel by pixel, to test against."""

import math


def focus_by_hand(heat, corners, ignored, seen, tolerance):
    """Energy, share and hit of a heatmap, pixel by pixel in Python's own floats."""

    def holds(box, x, y):
        return box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]

    pixels = []
    for y in range(heat.shape[0]):
        for x in range(heat.shape[1]):
            inside = any(holds(box, x, y) for box in corners)
            if seen[y, x] and (inside or not any(holds(box, x, y) for box in ignored)):
                pixels.append((float(heat[y, x]), x, y, inside))
    lowest = min(value for value, *_ in pixels)
    energy = sum(value - lowest for value, _, _, inside in pixels if inside)
    _, peak_x, peak_y, _ = max(pixels)
    everywhere = [(x, y) for y in range(heat.shape[0]) for x in range(heat.shape[1])]
    in_boxes = [(x, y) for x, y in everywhere if any(holds(box, x, y) for box in corners)]
    hit = any(math.hypot(peak_x - x, peak_y - y) <= tolerance for x, y in in_boxes)
    total = sum(value - lowest for value, *_ in pixels)
    return energy / total, sum(inside for *_, inside in pixels) / len(pixels), float(hit)
