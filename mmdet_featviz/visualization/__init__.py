"""How maps become pictures: ranges, colors, overlays, sheets, boxes."""
