"""What a leader knows of one follower, and how much it may send to it.

Three states (etcd raft, tracker/progress.go):

- PROBE: where the logs meet is not known.  One append at a time; an answer, or a heartbeat's answer when the
  append was lost, permits the next.
- REPLICATE: the logs match up to ``match_index``.  Appends are pipelined: ``next_index`` moves on as soon as
  something is sent, and what is in flight is bounded in messages and in bytes.
- SNAPSHOT: what the follower lacks is compacted away, and a snapshot up to ``pending_snapshot`` is under way.
  No appends until the driver reports how it went, or the follower turns out to be where the log can go on.
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """Appends sent and not yet answered: (last index, bytes), in order of index."""

    __slots__ = ("_max_bytes", "_max_messages", "_sent", "bytes")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._sent: deque[tuple[int, int]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        return len(self._sent) >= self._max_messages or self.bytes >= self._max_bytes

    def add(self, last_index: int, size: int) -> None:
        self._sent.append((last_index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """An answer for ``index`` also answers everything sent before it."""
        sent = self._sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def free_first_if_full(self) -> None:
        """Lets one more append through: the answers to all of them may have been lost."""
        if self.full:
            self.bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self.bytes = 0


class Progress:
    __slots__ = (
        "inflights",
        "match_index",
        "next_index",
        "pending_snapshot",
        "probe_sent",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(self, next_index: int, inflights: Inflights) -> None:
        self.state = ProgressState.PROBE
        self.match_index = 0  #: highest index known to be on the follower's disk; always < next_index
        self.next_index = next_index  #: the next append starts here
        self.inflights = inflights  #: empty in PROBE
        self.probe_sent = False  #: in PROBE: the one append is under way
        self.pending_snapshot = 0  #: in SNAPSHOT: the last index that the snapshot stands for
        self.sent_commit = 0  #: the commit index that was last sent along with an append
        self.recent_active = False  #: heard from since the last check of the quorum

    @property
    def paused(self) -> bool:
        if self.state is ProgressState.REPLICATE:
            return self.inflights.full
        return self.probe_sent or self.state is ProgressState.SNAPSHOT

    def become_probe(self) -> None:
        """Starts over behind what is known to match, or behind the snapshot: what is in flight counts as lost."""
        self.state = ProgressState.PROBE
        self.next_index = max(self.match_index, self.pending_snapshot) + 1
        self.pending_snapshot = 0
        self.probe_sent = False
        self.sent_commit = 0
        self.inflights.clear()

    def become_replicate(self) -> None:
        self.state = ProgressState.REPLICATE
        self.next_index = self.match_index + 1
        self.pending_snapshot = 0
        self.probe_sent = False
        self.inflights.clear()

    def become_snapshot(self, index: int) -> None:
        self.state = ProgressState.SNAPSHOT
        self.pending_snapshot = index
        self.probe_sent = False
        self.inflights.clear()

    def snapshot_sent(self, ok: bool) -> None:
        """The snapshot has arrived, or it has not: the log goes on behind it, or where it did.

        One probe is let through by the follower's next answer, of whatever kind: when the snapshot has arrived the
        follower is about to say so, and when it has not there is a pause before the next attempt.
        """
        if not ok:
            self.pending_snapshot = 0
        self.become_probe()
        self.probe_sent = True

    def sent_append(self, last_index: int, count: int, size: int, commit: int) -> None:
        self.sent_commit = commit
        if self.state is ProgressState.PROBE:
            self.probe_sent = True
        elif count:
            self.next_index = last_index + 1
            self.inflights.add(last_index, size)

    def matched(self, index: int, offset: int) -> bool:
        """The follower has confirmed ``index``; returns whether that was news.

        ``offset``: where the leader's log begins.  A follower that has reached it needs no snapshot (any more),
        whether it got it from the snapshot that was sent or otherwise.
        """
        news = index > self.match_index
        if news:
            self.match_index = index
            self.next_index = max(self.next_index, index + 1)
        if self.state is ProgressState.PROBE:
            if index >= self.match_index:
                self.become_replicate()
        elif self.state is ProgressState.REPLICATE:
            self.inflights.free_to(index)
        elif news and index >= offset:
            self.become_replicate()
        return news

    def rejected(self, prev_index: int, hint_index: int) -> bool:
        """The follower lacks the ``prev_index`` that was offered, and may match at ``hint_index``.

        Returns False for an answer to something long superseded, which must not move anything back.
        """
        if self.state is ProgressState.REPLICATE:
            if prev_index <= self.match_index:
                return False
            self.become_probe()
            return True
        if self.state is ProgressState.SNAPSHOT or prev_index != self.next_index - 1:
            return False
        self.next_index = max(min(prev_index, hint_index + 1), self.match_index + 1)
        self.probe_sent = False
        return True
