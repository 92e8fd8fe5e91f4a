"""The report: a page in which a run is searched, sorted and viewed, opened from disk."""
