"""A simulated disk: writes queue up, become durable later and in order, and a crash loses the rest.

With a `Journal` it keeps what is durable as bytes besides, which can be torn and damaged; ``stored`` then is what the
disk *should* hold, for the invariants to compare.  The files of snapshots can be damaged, too: that a checksum tells
so is taken for granted here, and tested on real files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from common_raft.core import Entry, HardState, Message, SnapshotMeta
from common_raft.testing.durable import Durable
from common_raft.testing.journal import Journal, JournalRecord


class Write(NamedTuple):
    """One Ready's share for the disk, and what may be said once it is there."""

    number: int
    hard_state: HardState | None
    first_index: int
    entries: Sequence[Entry]
    messages: Sequence[Message]
    snapshot: SnapshotMeta | None = None

    @property
    def empty(self) -> bool:
        return self.hard_state is None and not self.entries and self.snapshot is None


class Disk:
    """What is durable (``stored``, and the ``files`` of snapshots), and what waits to become so (``queue``)."""

    __slots__ = ("busy", "damaged", "failing", "files", "journal", "queue", "stalled_until", "stored")

    def __init__(self, stored: Durable | None = None, journal: Journal | None = None) -> None:
        self.stored = stored if stored is not None else Durable()
        self.journal = journal
        #: A machine's state after the entry of this index and term; whole, since a file gets its name when it is.
        self.files: dict[tuple[int, int], Any] = {}
        self.damaged: set[tuple[int, int]] = set()  #: those of them that a checksum tells to be damaged
        self.queue: deque[Write] = deque()
        self.busy = False  #: whether a completion is on its way to the driver
        self.failing = False  #: the next fsync fails
        self.stalled_until = 0.0  #: nothing completes before

    def submit(self, write: Write) -> None:
        self.queue.append(write)

    def complete(self, count: int) -> list[Write]:
        """The first ``count`` writes of the queue become durable, as one group."""
        done = [self.queue.popleft() for _ in range(count)]
        self._store(done)
        return done

    def crash(self, survivors: int, torn: int = 0) -> None:
        """The power goes.  The first ``survivors`` writes had reached the disk, though nobody was told.

        The ``torn`` writes behind them were under way as one group, and got there in part.
        """
        self.complete(survivors)
        if torn and self.journal is not None:
            interrupted = [self.queue.popleft() for _ in range(torn)]
            records = self._records(interrupted)
            if records and self.journal.tear(records):
                self._remember(interrupted)
        self.queue.clear()
        self.busy = self.failing = False
        self.stalled_until = 0.0

    def recover(self) -> Durable:
        """What a starting node reads.  Raises DiskDamaged when it must not start.

        Files that nothing marks, and damaged ones that were passed over, are removed.
        """
        found = self.stored if self.journal is None else self.journal.read()
        found.pass_over(self.is_sound)
        self.stored.pass_over(self.is_sound)
        marked = {(mark.index, mark.term) for mark in found.marks if self.is_sound(mark)}
        self.files = {place: state for place, state in self.files.items() if place in marked}
        self.damaged.clear()
        return found

    def is_sound(self, snapshot: SnapshotMeta) -> bool:
        """Whether the file of ``snapshot`` is there, and its checksums are right."""
        place = snapshot.index, snapshot.term
        return place in self.files and place not in self.damaged

    def can_fall_back(self) -> bool:
        """Whether a node could start without the newest snapshot."""
        return self.stored.first_index == 1 or any(map(self.is_sound, self.stored.marks[:-1]))

    def damage_snapshot(self, random: Random) -> str | None:
        """Spoils the newest snapshot's file; says what it did, or None when there is no such file."""
        if not self.stored.marks or not self.is_sound(newest := self.stored.marks[-1]):
            return None
        place = newest.index, newest.term
        self.files[place] = None
        self.damaged.add(place)
        how = random.choice(("is torn", "has a bit flipped"))
        return f"the file of its snapshot up to {newest.index} {how}"

    def mark_snapshot(self, snapshot: SnapshotMeta) -> None:
        """The file of ``snapshot`` is there, and the log says so, durably."""
        self._store([Write(0, None, 0, (), (), snapshot)])

    def purge(self, index: int) -> None:
        """Drops the log's entries up to ``index``, and the files of snapshots that it does not reach back to then."""
        self.stored.purge(index)
        if self.journal is not None:
            self.journal.restart(self.stored)
        reached = self.stored.first_index - 1
        self.files = {place: state for place, state in self.files.items() if place[0] >= reached}

    def _store(self, writes: Sequence[Write]) -> None:
        self._remember(writes)
        if self.journal is not None:
            records = self._records(writes)
            if records:
                self.journal.append(records)

    def _remember(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if write.snapshot is not None:
                self.stored.mark_snapshot(write.snapshot)
            self.stored.append(write.hard_state, write.first_index, write.entries)

    @staticmethod
    def _records(writes: Sequence[Write]) -> list[JournalRecord]:
        return [
            (write.hard_state, write.first_index, write.entries, write.snapshot)
            for write in writes
            if not write.empty
        ]

    @property
    def last_index(self) -> int:
        return self.stored.first_index + len(self.stored.entries) - 1

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry of ``term`` at ``index`` is durable; every disk holds (0, 0)."""
        position = index - self.stored.first_index
        if position < 0:
            return True
        return position < len(self.stored.entries) and self.stored.entries[position].term == term
