"""Hooks for a runner of mmengine."""
