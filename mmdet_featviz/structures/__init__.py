"""Data of one image: activation maps, boxes, and where the image is in the input of the network."""
