"""Reports of a ``results.Summary``: a table for the terminal, plots, a page."""
