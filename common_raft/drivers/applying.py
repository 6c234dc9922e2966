"""Committed entries between a Ready and the state machine: taken apart, and put together for one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from common_raft.core import Entry, EntryKind
from common_raft.drivers.envelope import split
from common_raft.drivers.proposals import Proposals


class Work(NamedTuple):
    """What the machine applies in one call: ``batches`` and their ``sequences`` go together.

    ``applied``: the index of the last entry.  A leader's no-ops move it on without any batch.
    """

    batches: list[tuple[bytes, bool]]
    sequences: list[int]
    applied: int


def unpack(first_index: int, entries: Iterable[Entry], proposals: Proposals[object, object]) -> Work:
    """The batches of committed entries, each with whether a client of this node waits for it."""
    batches: list[tuple[bytes, bool]] = []
    sequences: list[int] = []
    applied = first_index - 1
    for entry in entries:
        applied += 1
        if entry.kind is EntryKind.COMMANDS:
            for origin, sequence, payload in split(entry.data):
                batches.append((payload, proposals.is_waiting(origin, sequence)))
                sequences.append(sequence)
    return Work(batches, sequences, applied)


def together(works: Iterable[Work]) -> Work:
    """Several pieces of work, in their order, as one."""
    batches: list[tuple[bytes, bool]] = []
    sequences: list[int] = []
    applied = 0
    for work in works:
        batches += work.batches
        sequences += work.sequences
        applied = work.applied
    return Work(batches, sequences, applied)


def take(works: deque[Work], max_bytes: int) -> Work:
    """Takes the first pieces of work off, as one: at least one, then while their batches fit into ``max_bytes``."""
    taken = [works.popleft()]
    size = _size(taken[0])
    while works and (size := size + _size(works[0])) <= max_bytes:
        taken.append(works.popleft())
    return together(taken)


def _size(work: Work) -> int:
    return sum(len(data) for data, _ in work.batches)
