"""What the layers count while they work, as plain numbers; whoever shows them reads.

Counting costs an addition each, and nothing is put into words before somebody asks.  Each number has one thread that
changes it and may be read in any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

#: Messages over which a rate is taken (etcd, v2stats/queue.go).
RATE_MESSAGES = 200
#: A rate whose last message is older, in seconds, is nothing (the same file).
RATE_SECONDS = 1.0
#: What etcd says of a latency that was never measured (v2stats/leader.go): 1 << 63.
NO_MINIMUM = float(1 << 63)


def doubling(first: float, count: int) -> tuple[float, ...]:
    """Bounds of buckets, each twice the one before (client_golang's ExponentialBuckets)."""
    return tuple(first * 2**power for power in range(count))


#: etcd's buckets for what waits for the disk, in seconds: 1 ms to 8.192 s.
DISK_BOUNDS = doubling(0.001, 14)
#: etcd's for the way to a peer and back, in seconds: 0.1 ms to 3.2768 s.
ROUND_TRIP_BOUNDS = doubling(0.0001, 16)


class Histogram:
    """How many observations lie at or below each of ``bounds``, and above the one before; their sum.

    ``counts`` has one more for those above all bounds.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Latency:
    """Acknowledgements of one follower, in seconds; ``failed``: what was sent and will not be acknowledged."""

    __slots__ = ("_squares", "current", "failed", "maximum", "minimum", "succeeded", "total")

    def __init__(self) -> None:
        self.succeeded = self.failed = 0
        self.current = self.maximum = self.total = self._squares = 0.0
        self.minimum: float | None = None  #: until there is one

    def observe(self, seconds: float) -> None:
        self.succeeded += 1
        self.current = seconds
        self.total += seconds
        self._squares += seconds * seconds
        if seconds > self.maximum:
            self.maximum = seconds
        if self.minimum is None or seconds < self.minimum:
            self.minimum = seconds

    @property
    def average(self) -> float:
        return self.total / self.succeeded if self.succeeded else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        if not self.succeeded:
            return 0.0
        return sqrt(max(self._squares / self.succeeded - self.average**2, 0.0))


class Rate:
    """Messages and bytes a second, over the last few messages."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: deque[tuple[float, int]] = deque(maxlen=RATE_MESSAGES)

    def add(self, now: float, size: int) -> None:
        self._messages.append((now, size))

    def per_second(self, now: float) -> tuple[float, float]:
        """(messages, bytes); zeros when there was none for a second, or only one ever."""
        messages = list(self._messages)
        if not messages or now - messages[-1][0] > RATE_SECONDS:
            return 0.0, 0.0
        seconds = messages[-1][0] - messages[0][0]
        if seconds <= 0:
            return 0.0, 0.0
        return len(messages) / seconds, sum(size for _, size in messages) / seconds


@dataclass(slots=True)
class Traffic:
    """Between this node and one peer; bytes as they are on the wire."""

    sent_bytes: int = 0
    received_bytes: int = 0
    send_failures: int = 0  #: messages that were dropped, since there was no link or it took no more
    disconnected: int = 0  #: times that the link for sending ended
    connected: bool = False


@dataclass(slots=True)
class LogMeasures:
    """The log on the disk."""

    fsyncs: Histogram = field(default_factory=lambda: Histogram(DISK_BOUNDS))  #: of each batch, in seconds
    written_bytes: int = 0


@dataclass(slots=True)
class SnapshotMeasures:
    """Snapshots on the disk, in seconds."""

    fsyncs: Histogram = field(default_factory=lambda: Histogram(DISK_BOUNDS))
    saves: Histogram = field(
        default_factory=lambda: Histogram(DISK_BOUNDS)
    )  #: from first to last of writing one


@dataclass(slots=True)
class Following:
    """What a leader has measured of one follower."""

    latency: Latency = field(default_factory=Latency)  #: from an append to its being on the follower's disk
    round_trips: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIP_BOUNDS))  #: of heartbeats


@dataclass(slots=True, kw_only=True)
class Measurements:
    """A node as it is now.  What there is none of (a standalone service has no log) is None or empty."""

    committed: int  #: index of the last committed entry
    pending: int = 0  #: commands that wait for their outcome
    failed: int = 0  #: commands that ended without one
    failed_reads: int = 0  #: linearizable reads that could not be
    leader_changes: int = 0
    late_heartbeats: int = 0
    is_learner: bool = False
    restoring: bool = False
    log: LogMeasures | None = None
    snapshots: SnapshotMeasures | None = None
    traffic: Mapping[int, Traffic] = field(default_factory=dict)
    followers: Mapping[int, Following] = field(default_factory=dict)
    appends_sent: int = 0  #: as a leader
    appends_received: int = 0  #: as a follower
    sending: tuple[float, float] = (0.0, 0.0)  #: appends and their entries' bytes a second
    receiving: tuple[float, float] = (0.0, 0.0)
