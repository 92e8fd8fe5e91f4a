"""Measurements of the package itself: its speed, its memory, and the model zoo that it covers."""
