"""What the flags' values may be.

Each function is a ``type=`` of argparse: it returns the value or says what is wrong with it.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

MOST = 100_000  # of anything: more is a slip of the finger
MOST_NODES = 9  # etcd advises seven at most; more than these say nothing about one machine
FEWEST_KEYS, MOST_KEYS = 1_000, 9_999_999  # keys are written with seven digits


def number(text: str) -> int:
    """A positive whole number."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
    return int(text)


def cluster_size(text: str) -> int:
    """A number of nodes that may form a cluster on one machine."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_NODES:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST_NODES}")
    return int(text)


def many(text: str) -> int:
    """A number of keys: what a test fills in a moment, up to what fits into memory."""
    if not text.isdecimal() or not FEWEST_KEYS <= int(text) <= MOST_KEYS:
        raise ArgumentTypeError(f"{text!r} is not a whole number from {FEWEST_KEYS} to {MOST_KEYS}")
    return int(text)


def percent(text: str) -> int:
    """A share that leaves something."""
    if not text.isdecimal() or int(text) > 99:
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 to 99")
    return int(text)


def numbers(text: str) -> tuple[int, ...]:
    """Positive whole numbers, each once, ascending."""
    return tuple(sorted({number(part.strip()) for part in text.split(",")}))


def names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Some of the ``known`` names, each once, in the order given."""

    def parse(text: str) -> tuple[str, ...]:
        found = dict.fromkeys(part.strip() for part in text.split(","))
        for name in found:
            if name not in known:
                raise ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return tuple(found)

    return parse


def urls(text: str) -> tuple[str, ...]:
    """Nodes as http://host:port, without a path."""
    found = tuple(part.strip().rstrip("/") for part in text.split(","))
    for url in found:
        try:
            parts = urlsplit(url)
            good = parts.scheme == "http" and parts.hostname and parts.port and not parts.path
        except ValueError:
            good = False
        if not good:
            raise ArgumentTypeError(f"{url!r} is not of the form http://host:port")
    return found


def files(text: str) -> tuple[Path, ...]:
    """Files that are there, each once."""
    found = tuple(dict.fromkeys(Path(part.strip()) for part in text.split(",")))
    for file in found:
        if not file.is_file():
            raise ArgumentTypeError(f"{str(file)!r}: no such file")
    return found
