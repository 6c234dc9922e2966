"""The log of one node, in memory, and how far it has been written, committed and applied.

Indexes start at 1 (paper, figure 2).  These marks order as

    applied <= handed_out <= min(committed, persisted)        and        persisted <= written <= last_index

where *written* is what a Ready has given to the disk and *persisted* what the disk has confirmed.  Entries up to
``committed`` never change; everything behind it may be replaced by a leader of a later term.
``(offset, offset_term)`` is the position just before the first entry: (0, 0) for a log that was never compacted.
What lies there and before is in a snapshot (paper, section 7), and ``offset <= applied``, except while the state
machine is being restored from a snapshot, the node's own or one of the leader's: nothing is handed out until it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from common_raft.core.errors import Compacted, LogDamaged
from common_raft.core.messages import Entry

#: Entries handed out and not applied yet.  They stay in the log until then, so that this bounds no memory; it keeps
#: what a slow state machine takes in one go small enough for it to report progress.
MAX_APPLYING = 1024


class RaftLog:
    __slots__ = (
        "_entries",
        "applied",
        "committed",
        "handed_out",
        "last_index",
        "offset",
        "offset_term",
        "persisted",
        "truncations",
        "written",
    )

    def __init__(self, first_index: int, entries: Sequence[Entry], offset_term: int = 0) -> None:
        self._entries = list(entries)
        self.offset = first_index - 1
        self.offset_term = offset_term
        self.last_index = self.offset + len(self._entries)  # asked for dozens of times for each entry
        self.written = self.persisted = self.last_index
        self.committed = self.handed_out = self.applied = self.offset
        self.truncations = 0  #: how many times a leader's entries have replaced others

    @property
    def first_index(self) -> int:
        return self.offset + 1

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.offset_term

    def entry(self, index: int) -> Entry:
        """The entry at ``index``; IndexError outside of first_index ... last_index."""
        position = index - self.offset - 1
        if position < 0 or index > self.last_index:
            raise IndexError(f"no entry {index}: the log holds {self.first_index} to {self.last_index}")
        return self._entries[position]

    def term(self, index: int) -> int:
        """The term of the entry at ``index``, which may also be the offset; IndexError elsewhere."""
        return self.offset_term if index == self.offset else self.entry(index).term

    def holds(self, index: int, term: int) -> bool:
        """Whether the log has an entry of ``term`` at ``index`` (the consistency check, paper section 5.3)."""
        return self.offset <= index <= self.last_index and self.term(index) == term

    def slice(self, low: int, high: int) -> list[Entry]:
        """Entries ``low`` to ``high``, both included."""
        return self._entries[low - self.offset - 1 : high - self.offset]

    def slice_within(self, low: int, high: int, max_bytes: int) -> tuple[list[Entry], int]:
        """The first of these that fit into ``max_bytes``, one at least, and how many bytes of data they hold."""
        start, stop = low - self.offset - 1, high - self.offset
        total = 0
        for position in range(start, stop):
            size = len(self._entries[position].data)
            if total + size > max_bytes and position > start:
                stop = position
                break
            total += size
        return self._entries[start:stop], total

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log is at least as up to date as this one (paper, section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds a leader's own entries: a leader never overwrites its log (paper, figure 3: append-only)."""
        self._extend(entries)

    def _extend(self, entries: Sequence[Entry]) -> None:
        self._entries.extend(entries)
        self.last_index += len(entries)

    def merge(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """Takes a leader's entries behind ``prev_index``; returns the index of the last one, None on a mismatch.

        Only what conflicts is cut off: a delayed message must not shorten a log that is further on (paper,
        figure 2, AppendEntries rule 3; PySyncObj and others truncate always, and lose acknowledged entries).
        """
        if not self.holds(prev_index, prev_term):
            return None
        last_new = prev_index + len(entries)
        for position, entry in enumerate(entries):
            index = prev_index + 1 + position
            if index > self.last_index or self.term(index) != entry.term:
                self._truncate_from(index)
                self._extend(entries[position:])
                break
        return last_new

    def _truncate_from(self, index: int) -> None:
        if index > self.last_index:
            return
        if index <= self.committed:
            raise LogDamaged(
                f"entry {index} conflicts with a leader's, but is committed (commit index {self.committed}): "
                "the cluster's logs contradict each other; stop this node and rebuild it from the others"
            )
        del self._entries[index - self.first_index :]
        self.last_index = index - 1
        self.written = min(self.written, index - 1)
        self.persisted = min(self.persisted, index - 1)
        self.truncations += 1

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """The last position at or before ``index`` whose term is at most ``term``, as (index, term of it).

        Whatever lies behind it cannot match a log that has ``term`` at ``index``, since terms only grow along
        a log.  Both sides use this to skip a whole term in one round trip (etcd raft's findConflictByTerm; the
        paper's end of section 5.3 hints at it).  Behind the offset nothing is known: then the term is 0.
        """
        index = min(index, self.last_index)
        while index >= max(self.offset, 1) and self.term(index) > term:
            index -= 1
        return (index, self.term(index)) if index >= self.offset else (index, 0)

    def commit_to(self, index: int) -> bool:
        """Moves the commit index forward; returns whether it moved.  It never moves back."""
        if index <= self.committed:
            return False
        if index > self.last_index:
            raise LogDamaged(
                f"commit index {index} lies beyond the end of this log ({self.last_index}): entries that this "
                "node once acknowledged are gone from its disk; remove the member and add it again"
            )
        self.committed = index
        return True

    def compact(self, index: int) -> None:
        """Drops the entries up to ``index``, which are applied, and in a snapshot; what is gone already stays so."""
        if index <= self.offset:
            return
        if index > self.applied:
            raise ValueError(
                f"cannot drop entries up to {index}: only those up to {self.applied} are applied"
            )
        term = self.term(index)
        del self._entries[: index - self.offset]
        self.offset, self.offset_term = index, term

    def restore(self, index: int, term: int) -> None:
        """A snapshot replaces the whole log: it is on this node's disk, and the log begins behind it.

        Writes of before that are under way say nothing about this log.  ``applied`` follows when the state machine
        has been restored.
        """
        self._entries = []
        self.offset, self.offset_term, self.last_index = index, term, index
        self.committed = self.handed_out = self.written = self.persisted = index
        self.truncations += 1

    def begin_behind(self, applied: int) -> None:
        """At a start: the state machine has only seen what comes up to ``applied``, and the log begins later.

        It is restored from the snapshot that stands there, and `resume_at` says when.
        """
        self.applied = applied

    def applied_to(self, index: int) -> None:
        """The state machine has seen everything up to ``index``, which was handed out.

        Raises ValueError elsewhere: what was not handed out cannot be applied, and nothing is taken back (`resume_at`
        is for a state machine that is found elsewhere).
        """
        if not self.applied <= index <= self.handed_out:
            raise ValueError(
                f"entry {index} cannot be the last one applied: that is one from {self.applied}, the last so far, "
                f"to {self.handed_out}, the last handed out"
            )
        self.applied = index

    @property
    def restoring(self) -> bool:
        """Whether the state machine has yet to be restored from a snapshot."""
        return self.applied < self.offset

    def unwritten(self) -> tuple[int, list[Entry]]:
        """What no Ready has given to the disk yet, as (first index, entries)."""
        return self.written + 1, self._entries[self.written - self.offset :]

    def persisted_to(self, index: int, truncations: int) -> None:
        """The disk has confirmed a write that reached up to ``index`` when the log had been cut so many times.

        When it has been cut again since, the disk may hold other entries there by now: the write that replaces
        them is behind this one in the disk's queue, and its confirmation will tell.
        """
        if index > self.persisted and truncations == self.truncations:
            self.persisted = index

    def resume_at(self, applied: int) -> None:
        """The state machine keeps its own state, and has seen everything up to ``applied``: go on behind it.

        Whatever was handed out behind ``applied`` is handed out again.  Raises LogDamaged when the log ends before
        that, and Compacted when it begins behind it.
        """
        if applied > self.persisted:
            raise LogDamaged(
                f"the state machine has applied entry {applied}, but this log ends at {self.persisted}: they do not "
                "belong together; start with the log and the state of the same node, or with neither"
            )
        if applied < self.offset:
            raise Compacted(
                f"the state machine has applied entry {applied}, but this log begins behind {self.offset}: "
                "restore a snapshot first"
            )
        self.commit_to(applied)
        self.handed_out = self.applied = applied

    @property
    def can_apply(self) -> bool:
        """Whether `to_apply` has something: it waits while too much that was handed out is not applied yet."""
        return (
            self.handed_out < min(self.committed, self.persisted)
            and self.handed_out - self.applied < MAX_APPLYING
            and self.applied >= self.offset
        )

    def to_apply(self, max_bytes: int) -> tuple[int, list[Entry]]:
        """What is committed, on this node's disk, and not yet handed out, as (first index, entries)."""
        low = self.handed_out + 1
        if not self.can_apply:
            return low, []
        return low, self.slice_within(low, min(self.committed, self.persisted), max_bytes)[0]
