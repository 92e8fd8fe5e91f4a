"""Engine: draws feature maps from within mmengine's runner."""
