"""Detectors that draw whenever they predict."""
