"""Runs: writing and reading the output folder of a run: pictures, saved maps, manifest and run.json."""
