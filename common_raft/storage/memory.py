"""A log in memory, for tests and simulations: what is appended is "durable" as long as the object lives."""

from __future__ import annotations

from collections.abc import Sequence

from common_raft.core.messages import Entry, HardState, SnapshotMeta


class MemoryStorage:
    """Fits the core's ``Stored``: a simulated node that crashes starts again from the same object.

    ``entries[0]`` has index ``first_index``.  Appending follows the rules of the log on disk, ``Wal.append``.
    """

    __slots__ = ("entries", "first_index", "hard_state", "snapshot")

    def __init__(
        self,
        hard_state: HardState | None = None,
        first_index: int = 1,
        entries: Sequence[Entry] = (),
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        self.hard_state = HardState() if hard_state is None else hard_state
        self.first_index = first_index
        self.entries = list(entries)
        self.snapshot = snapshot

    @property
    def last_index(self) -> int:
        """Index of the last entry; ``first_index - 1`` while there is none."""
        return self.first_index + len(self.entries) - 1

    def append(self, hard_state: HardState | None, first_index: int, entries: Sequence[Entry]) -> None:
        """Take a new hard state (``None``: as before); ``entries`` replace everything from ``first_index`` on.

        No entries: the log stays as it is, whatever ``first_index`` says.  Raises ValueError on a gap.
        """
        if entries:
            if not self.first_index <= first_index <= self.last_index + 1:
                raise ValueError(
                    f"entries from {first_index} on do not fit a log of {self.first_index} to {self.last_index}"
                )
            del self.entries[first_index - self.first_index :]
            self.entries.extend(entries)
        if hard_state is not None:
            self.hard_state = hard_state

    def mark_snapshot(self, snapshot: SnapshotMeta) -> None:
        """A snapshot stands for all entries up to its index.

        A log that does not hold the last of them, in the same term, is replaced: it goes on behind the snapshot.
        """
        self.snapshot = snapshot
        if self.first_index == snapshot.index + 1:
            return
        place = snapshot.index - self.first_index
        if not 0 <= place < len(self.entries) or self.entries[place].term != snapshot.term:
            self.first_index, self.entries = snapshot.index + 1, []

    def purge(self, index: int) -> None:
        """Drops the entries up to ``index``.  Raises ValueError unless the snapshot stands for them."""
        held = 0 if self.snapshot is None else self.snapshot.index
        if index > held:
            raise ValueError(f"cannot drop entries up to {index}: the snapshot ends at {held}")
        dropped = min(max(0, index - self.first_index + 1), len(self.entries))
        del self.entries[:dropped]
        self.first_index += dropped
