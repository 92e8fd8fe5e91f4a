"""Drawing of pictures from activation maps: value ranges, colors, overlays, sheets, boxes, text."""
