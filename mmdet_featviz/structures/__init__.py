"""Data of one image: activation maps, boxes, and where the image lies in the network's input."""
