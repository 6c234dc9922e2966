"""A log in memory, for tests and simulations: what is appended is "durable" as long as the object lives."""

from __future__ import annotations

from collections.abc import Sequence

from common_raft.core.messages import Entry, HardState


class MemoryStorage:
    """Fits the core's ``Stored``: a simulated node that crashes starts again from the same object.

    ``entries[0]`` has index ``first_index``.  Appending follows the rules of the log on disk, ``Wal.append``.
    """

    __slots__ = ("entries", "first_index", "hard_state")

    def __init__(
        self,
        hard_state: HardState | None = None,
        first_index: int = 1,
        entries: Sequence[Entry] = (),
    ) -> None:
        self.hard_state = HardState() if hard_state is None else hard_state
        self.first_index = first_index
        self.entries = list(entries)

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
