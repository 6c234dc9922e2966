"""The one error that ends a benchmark with a line for the user."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Its text names what went wrong, the thing it concerns and, where there is one, the way out."""
