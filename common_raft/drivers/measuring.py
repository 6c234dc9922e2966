"""What a member measures of its dealings with the others: how long followers take, how much is sent.

An append's latency is the time from its leaving to the answer that it is on the follower's disk; one answer may stand
for several appends.  What was lost on the way, with its link, has failed.

All of this belongs to the thread, or the loop, that owns the core, and may be read in any.  An event loop's own time
is too coarse for it (uvloop's has steps of a millisecond).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import cast

from common_raft.core.messages import AppendEntries, AppendResponse, Heartbeat, HeartbeatResponse, Message
from common_raft.measures import Following, Rate

#: Appends to one follower whose answers are awaited; the core has fewer in flight.
_MAX_AWAITED = 1024


class Measuring:
    """``late_heartbeats``: as etcd, one for each follower whenever two ticks of a leader were more than two
    heartbeat intervals apart (server/etcdserver/raft.go, contention.TimeoutDetector).
    """

    def __init__(self, heartbeat_interval: float, now: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._late_after = 2 * heartbeat_interval
        self._ticked: float | None = None
        self._awaited: dict[int, deque[tuple[int, float]]] = {}  # last index, when it was sent
        self._asked: dict[int, float] = {}  # the oldest heartbeat without an answer
        self.followers: dict[int, Following] = {}
        self._sending, self._receiving = Rate(), Rate()
        self.appends_sent = self.appends_received = 0
        self.leader_changes = 0
        self.late_heartbeats = 0

    def sent(self, message: Message) -> None:
        """A message leaves."""
        if type(message) is AppendEntries:
            now = self._now()
            self.appends_sent += 1
            self._sending.add(now, _size(message))
            awaited = self._awaited.get(message.to)
            if awaited is None:
                awaited = self._awaited[message.to] = deque(maxlen=_MAX_AWAITED)
            awaited.append((message.prev_index + len(message.entries), now))
        elif type(message) is Heartbeat:
            self._asked.setdefault(message.to, self._now())

    def received(self, message: Message) -> None:
        """A message has come."""
        kind = type(message)
        if kind is AppendResponse:
            awaited = self._awaited.get(message.sender)
            if awaited:
                self._answered(cast(AppendResponse, message), awaited)
        elif kind is AppendEntries:
            self.appends_received += 1
            self._receiving.add(self._now(), _size(cast(AppendEntries, message)))
        elif kind is HeartbeatResponse:
            asked = self._asked.pop(message.sender, None)
            if asked is not None:
                self._of(message.sender).round_trips.observe(self._now() - asked)

    def _answered(self, message: AppendResponse, awaited: deque[tuple[int, float]]) -> None:
        """The answer is to the oldest; if it says that the entries are on the disk, to all up to them."""
        if message.rejected:
            awaited.popleft()
        elif awaited[0][0] <= message.index:
            now = self._now()
            observe = self._of(message.sender).latency.observe
            while awaited and awaited[0][0] <= message.index:
                observe(now - awaited.popleft()[1])

    def unreachable(self, peer: int) -> None:
        """What was on its way to ``peer`` is taken for lost."""
        self._asked.pop(peer, None)
        awaited = self._awaited.pop(peer, None)
        if awaited:
            self._of(peer).latency.failed += len(awaited)

    def leader_is(self, leader: int) -> None:
        """Another leader, or none (0); what was asked as the leader before is nobody's any more."""
        self.leader_changes += leader != 0
        self._awaited.clear()
        self._asked.clear()

    def rates(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Appends and their entries' bytes a second, sent and received."""
        now = self._now()
        return self._sending.per_second(now), self._receiving.per_second(now)

    def ticked(self, followers: int) -> None:
        """``followers``: those who get a heartbeat now; 0 on a node that does not lead."""
        now = self._now()
        if followers and self._ticked is not None and now - self._ticked > self._late_after:
            self.late_heartbeats += followers
        self._ticked = now if followers else None

    def _of(self, follower: int) -> Following:
        following = self.followers.get(follower)
        if following is None:
            following = self.followers[follower] = Following()
        return following


def _size(message: AppendEntries) -> int:
    """Bytes of its entries."""
    return sum([len(entry.data) for entry in message.entries])
