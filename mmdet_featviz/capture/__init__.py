"""How feature maps are captured: hooks on layers, reduction to activation maps, tokens, strides."""
