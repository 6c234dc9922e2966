"""What ``/v2/stats/self`` says about this node."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from .golang import json_text

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


class AppendCounts(NamedTuple):
    """How many append messages this node has received as a follower and sent as a leader.

    ``leader_seconds`` is how long the present leader has led, if the driver knows.
    """

    received: int
    sent: int
    leader_seconds: float | None = None


class SelfStats:
    """Counts from its own construction.

    The leader's start is what ``counts`` tells or, failing that, when it was first seen here.
    """

    def __init__(self, name: str, node_id: int, counts: Callable[[], AppendCounts] | None = None) -> None:
        self._name = name
        self._id = node_id
        self._counts = counts
        self._started = time.time_ns()
        self._leader = 0
        self._leader_since = 0

    def render(self, leader: int) -> bytes:
        """The JSON object, as etcd orders it; ``leader`` is who leads now."""
        counts = self._counts() if self._counts else AppendCounts(0, 0)
        state = "StateLeader" if leader == self._id else "StateFollower"
        led = self._led(leader, counts)
        since = _go_time(time.time_ns() - led) if leader else _NEVER
        uptime = go_duration(led) if leader else "0s"
        return (
            f'{{"name":"{json_text(self._name)}","id":"{self._id:x}","state":"{state}",'
            f'"startTime":"{_go_time(self._started)}",'
            f'"leaderInfo":{{"leader":"{leader:x}","uptime":"{uptime}","startTime":"{since}"}},'
            f'"recvAppendRequestCnt":{counts.received},"sendAppendRequestCnt":{counts.sent}}}'
        ).encode()

    def _led(self, leader: int, counts: AppendCounts) -> int:
        """For how many nanoseconds ``leader`` has led."""
        if counts.leader_seconds is not None:
            return int(counts.leader_seconds * 10**9)
        if leader != self._leader:
            self._leader = leader
            self._leader_since = time.time_ns()
        return time.time_ns() - self._leader_since


def _go_time(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, without trailing zeros."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def go_duration(nanoseconds: int) -> str:
    """time.Duration's text: ``1h2m3.5s``, ``792.620356ms``."""
    if nanoseconds < 1000:
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    for unit, size in (("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 10**9)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(nanoseconds: int, size: int) -> str:
    whole, fraction = divmod(nanoseconds, size)
    digits = f"{fraction:0{len(str(size)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)
