"""What a person calls: look(), the visualizer, inference on images."""
