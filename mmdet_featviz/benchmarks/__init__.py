"""Benchmarks: time and memory of drawing, placement of heat, and coverage of the model zoo."""
