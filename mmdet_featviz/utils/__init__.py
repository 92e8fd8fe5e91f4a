"""Checks of arguments, of the installed packages, and of checkpoints."""
