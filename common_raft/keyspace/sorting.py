"""Sorting many keys without doing much at a time, so that whoever else needs the interpreter gets it in between."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from common_raft.keyspace.store import MAX_PLAIN, rank

#: So many keys are looked at, or sorted, in one step: each takes less than two milliseconds.
STEP = 2048
#: Every so-manieth key is in the sample that the buckets' bounds are taken from, and every eighth of those is a
#: bound: buckets come out at about ``STEP`` keys, rarely at twice that.
_STRIDE = STEP // 8

_SortKey = Callable[[str], str | bytes]


def in_steps(keys: Collection[str]) -> Iterator[list[str]]:
    """All of ``keys``, which are different and stay as they are, in the order of their ``rank``, in pieces.

    Many pieces at the beginning are empty: they stand for work that has been done.
    """
    sort_key: _SortKey = str
    for step in _steps(keys):
        if not _sorts_as_text(step):
            sort_key = _rank_of
            break
        yield []
    yield from _sorted(keys, sort_key)


def _sorted(keys: Collection[str], sort_key: _SortKey) -> Iterator[list[str]]:
    """A sample sort: into buckets between keys of a sample, then each bucket by itself."""
    if len(keys) <= 2 * STEP:
        yield sorted(keys, key=None if sort_key is str else sort_key)
        return
    sample: list[str | bytes] = []
    for step in _steps(keys):
        sample += map(sort_key, step[::_STRIDE])
        yield []
    bounds = sorted(sample)[::8]
    buckets: list[list[str]] = [[] for _ in range(len(bounds) + 1)]
    for step in _steps(keys):
        for key in step:
            buckets[bisect_right(bounds, sort_key(key))].append(key)
        yield []
    del sample
    buckets.reverse()
    while buckets:
        yield from _sorted(buckets.pop(), sort_key)


def _steps(keys: Collection[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while step := list(islice(rest, STEP)):
        yield step


def _sorts_as_text(keys: list[str]) -> bool:
    """Whether text compares as its ``rank`` does: UTF-8 keeps the order of code points, but for lone surrogates."""
    if max(map(len, keys)) * 4 > MAX_PLAIN:
        return False
    try:
        "".join(keys).encode()
    except UnicodeEncodeError:
        return False
    return True


def _rank_of(key: str) -> bytes:
    return rank(key.encode("utf-8", "surrogateescape"))
