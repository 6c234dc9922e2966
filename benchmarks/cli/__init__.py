"""The command line: what to measure is read from the flags, measured, written and shown."""

from benchmarks.cli.entry import main

__all__ = ["main"]
