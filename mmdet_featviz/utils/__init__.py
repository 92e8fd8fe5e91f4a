"""Helpers: checks of arguments and installed packages, loading of checkpoints, parts of messages."""
