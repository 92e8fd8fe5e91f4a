"""APIs: look(), the feature visualizer, and inference on images and videos without a data set."""
