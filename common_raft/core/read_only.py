"""ReadIndex: reads that see every write acknowledged before they began, without an entry in the log (thesis 6.4).

The leader notes its commit index, then makes sure that it still was the leader *after* the read had arrived: a
majority must answer a heartbeat that was sent later than that.  Heartbeats carry the number of a round, answers
return it; all reads that arrive while a round is under way share the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from common_raft.core.quorum import committed_index


@dataclass(frozen=True, slots=True)
class PendingRead:
    round: int
    index: int  #: the commit index when the read arrived
    sender: int  #: who asked: a follower or the leader itself
    context: int  #: the asker's own name for the read


class ReadRounds:
    __slots__ = ("_answered", "_confirmed", "_self_id", "_voters", "_waiting", "current")

    def __init__(self, self_id: int, voters: Collection[int]) -> None:
        self._self_id = self_id
        self._voters = voters
        self._waiting: deque[PendingRead] = deque()
        self._answered: dict[int, int] = dict.fromkeys(voters, 0)
        self._confirmed = 0
        self.current = 0  #: the round that heartbeats carry now

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, index: int, sender: int, context: int) -> bool:
        """Notes a read; returns whether a new round must be sent out now (else it shares the next one)."""
        idle = self._confirmed == self.current
        # The current round's heartbeats left before this read came: only a later round can confirm it.
        self._waiting.append(PendingRead(self.current + 1, index, sender, context))
        if idle:
            self.current += 1
        return idle

    def answered(self, voter: int, round_: int) -> tuple[list[PendingRead], bool]:
        """A voter answered ``round_``: returns the reads this confirms, and whether a new round must go out."""
        if round_ > self.current or round_ <= self._answered.get(voter, round_):
            return [], False
        self._answered[voter] = round_
        return self.confirm()

    def confirm(self) -> tuple[list[PendingRead], bool]:
        """What a majority has confirmed by now; the leader itself agrees with its own current round."""
        self._answered[self._self_id] = self.current
        confirmed = committed_index(self._answered[voter] for voter in self._voters)
        if confirmed <= self._confirmed:
            return [], False
        self._confirmed = confirmed
        done = []
        while self._waiting and self._waiting[0].round <= confirmed:
            done.append(self._waiting.popleft())
        another = bool(self._waiting) and confirmed == self.current
        if another:
            self.current += 1
        return done, another
