"""Committed entries between a Ready and the state machine: taken apart, and put together for one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from common_raft.core import ConfChanges, Entry, EntryKind, decode_changes
from common_raft.drivers.envelope import split
from common_raft.drivers.proposals import Proposals
from common_raft.storage import SnapshotMark


class Work(NamedTuple):
    """What the machine applies in one call: ``batches`` and their ``sequences`` go together.

    ``applied``: the index of the last entry.  A leader's no-ops move it on without any batch.  ``changes`` of the
    configuration, by index, are the core's to apply, once the machine has been given the batches.
    """

    batches: list[tuple[bytes, bool]]
    sequences: list[int]
    applied: int
    changes: Sequence[tuple[int, ConfChanges]] = ()


def unpack(first_index: int, entries: Iterable[Entry], proposals: Proposals[object, object]) -> Work:
    """The batches of committed entries, each with whether a client of this node waits for it."""
    batches: list[tuple[bytes, bool]] = []
    sequences: list[int] = []
    changes: list[tuple[int, ConfChanges]] = []
    applied = first_index - 1
    for entry in entries:
        applied += 1
        if entry.kind is EntryKind.COMMANDS:
            for origin, sequence, payload in split(entry.data):
                batches.append((payload, proposals.is_waiting(origin, sequence)))
                sequences.append(sequence)
        elif entry.kind is EntryKind.CONFIGURATION:
            changes.append((applied, decode_changes(entry.data)))
    return Work(batches, sequences, applied, changes)


def together(works: Iterable[Work]) -> Work:
    """Several pieces of work, in their order, as one."""
    batches: list[tuple[bytes, bool]] = []
    sequences: list[int] = []
    changes: list[tuple[int, ConfChanges]] = []
    applied = 0
    for work in works:
        batches += work.batches
        sequences += work.sequences
        changes += work.changes
        applied = work.applied
    return Work(batches, sequences, applied, changes)


#: What a machine that is applied to beside has to do, in this order: a mark is that of a snapshot to start from.
Step: TypeAlias = Work | SnapshotMark


def take(steps: deque[Step], max_bytes: int) -> Step:
    """Takes the first step off; work with what follows on it, while the batches fit into ``max_bytes``."""
    first = steps.popleft()
    if isinstance(first, SnapshotMark):
        return first
    taken = [first]
    size = _size(first)
    while (
        steps and isinstance(following := steps[0], Work) and (size := size + _size(following)) <= max_bytes
    ):
        taken.append(following)
        steps.popleft()
    return together(taken)


def _size(work: Work) -> int:
    return sum(len(data) for data, _ in work.batches)
