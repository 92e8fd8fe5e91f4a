"""Measures of heatmaps: inside boxes, between two runs, over a data set."""
