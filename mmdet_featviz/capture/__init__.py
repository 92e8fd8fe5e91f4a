"""Capture of feature maps: hooks on chosen layers, reduction to activation maps, tokens, strides."""
