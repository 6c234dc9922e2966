"""What ``/v2/stats/self`` says about this node."""

import time
from datetime import UTC, datetime
from typing import Protocol

from common_raft.web.golang import json_text

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


class NodeStats(Protocol):
    """What a driver knows of itself."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def leader(self) -> int:
        """The leader's id; 0 when none is known."""

    @property
    def leader_seconds(self) -> float:
        """For how long that leader has been known to lead."""

    @property
    def appends_received(self) -> int:
        """Append messages taken as a follower."""

    @property
    def appends_sent(self) -> int:
        """Append messages sent as a leader."""


class SelfStats:
    """Renders a node's statistics; the node's start is this object's construction."""

    def __init__(self, node: NodeStats) -> None:
        self._node = node
        self._started = time.time_ns()

    def render(self) -> bytes:
        """The JSON object, as etcd orders it."""
        node, leader = self._node, self._node.leader
        state = "StateLeader" if leader == node.id else "StateFollower"
        led = int(node.leader_seconds * 10**9)
        since = _go_time(time.time_ns() - led) if leader else _NEVER
        uptime = go_duration(led) if leader else "0s"
        return (
            f'{{"name":"{json_text(node.name)}","id":"{node.id:x}","state":"{state}",'
            f'"startTime":"{_go_time(self._started)}",'
            f'"leaderInfo":{{"leader":"{leader:x}","uptime":"{uptime}","startTime":"{since}"}},'
            f'"recvAppendRequestCnt":{node.appends_received},"sendAppendRequestCnt":{node.appends_sent}}}'
        ).encode()


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
