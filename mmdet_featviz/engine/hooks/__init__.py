"""Hooks for mmengine's runner."""
