"""Detectors that draw their feature maps whenever they predict."""
