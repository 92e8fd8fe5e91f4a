"""Models that draw by themselves."""
