"""What a simulated disk holds durably: the log, and which snapshots it has marked.

Which of them a starting node goes on from is decided here as `storage.recovery.recover` decides it for real files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common_raft.core import Entry, HardState, SnapshotMeta
from common_raft.storage.memory import MemoryStorage
from common_raft.storage.recovery import commit_at_least


class DiskDamaged(Exception):
    """A node must not start from what its disk holds."""


class SnapshotDamaged(DiskDamaged):
    """No sound snapshot stands for the entries that the log has dropped."""


class Durable(MemoryStorage):
    """``marks``: the snapshots that the log has marked, in that order, as far back as the log reaches."""

    __slots__ = ("marks",)

    def __init__(
        self,
        hard_state: HardState | None = None,
        first_index: int = 1,
        entries: Sequence[Entry] = (),
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        super().__init__(hard_state, first_index, entries, snapshot)
        self.marks = [] if snapshot is None else [snapshot]

    def mark_snapshot(self, snapshot: SnapshotMeta) -> None:
        super().mark_snapshot(snapshot)
        self.marks = [mark for mark in self.marks if mark != snapshot]
        self.marks.append(snapshot)
        self._forget_unreached()

    def purge(self, index: int) -> None:
        super().purge(index)
        self._forget_unreached()

    def _forget_unreached(self) -> None:
        self.marks = [mark for mark in self.marks if mark.index >= self.first_index - 1]

    def pass_over(self, is_sound: Callable[[SnapshotMeta], bool]) -> None:
        """Goes on from the newest mark whose file is sound, or from none where the log holds everything.

        What a damaged one stood for is committed all the same.  Raises SnapshotDamaged.
        """
        if not self.marks or is_sound(self.marks[-1]):
            return
        sound = [mark for mark in self.marks if is_sound(mark)]
        if not sound and self.first_index > 1:
            raise SnapshotDamaged(
                f"the snapshot up to {self.marks[-1].index} is damaged, and the log begins with {self.first_index}"
            )
        self.hard_state = commit_at_least(self.hard_state, self.marks[-1].index)
        self.snapshot = sound[-1] if sound else None
