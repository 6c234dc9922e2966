"""A simulated disk: writes queue up, become durable later and in order, and a crash loses the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from common_raft.core import Entry, HardState, Message
from common_raft.storage.memory import MemoryStorage


class Write(NamedTuple):
    """One Ready's share for the disk, and what may be said once it is there."""

    number: int
    hard_state: HardState | None
    first_index: int
    entries: Sequence[Entry]
    messages: Sequence[Message]

    @property
    def empty(self) -> bool:
        return self.hard_state is None and not self.entries


class Disk:
    """What is durable (``stored``), and what waits to become so (``queue``)."""

    __slots__ = ("busy", "queue", "stored")

    def __init__(self, stored: MemoryStorage | None = None) -> None:
        self.stored = stored if stored is not None else MemoryStorage()
        self.queue: deque[Write] = deque()
        self.busy = False  #: whether a completion is on its way to the driver

    def submit(self, write: Write) -> None:
        self.queue.append(write)

    def complete(self, count: int) -> list[Write]:
        """The first ``count`` writes of the queue become durable, as one group."""
        done = [self.queue.popleft() for _ in range(count)]
        for write in done:
            self._store(write)
        return done

    def crash(self, survivors: int) -> None:
        """The power goes.  The first ``survivors`` writes had reached the disk, though nobody was told."""
        self.complete(survivors)
        self.queue.clear()
        self.busy = False

    def _store(self, write: Write) -> None:
        if not write.empty:
            self.stored.append(write.hard_state, write.first_index, write.entries)

    @property
    def last_index(self) -> int:
        return self.stored.first_index + len(self.stored.entries) - 1

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry of ``term`` at ``index`` is durable; every disk holds (0, 0)."""
        position = index - self.stored.first_index
        if position < 0:
            return True
        return position < len(self.stored.entries) and self.stored.entries[position].term == term
