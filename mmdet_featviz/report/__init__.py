"""Report: an HTML page to browse, search and sort the images of a run, opened from disk without a server."""
