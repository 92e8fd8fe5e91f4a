"""Evaluation: how well heatmaps match boxes, and how two runs differ."""
