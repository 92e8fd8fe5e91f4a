"""Models: mmdet's detectors as siblings that draw by themselves."""
