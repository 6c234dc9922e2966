"""What ``/v2/stats/self`` says about this node."""

import time
from typing import Protocol

from common_raft.measures import Measurements
from common_raft.web.golang import go_time, json_number, json_text

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

    def measurements(self) -> Measurements: ...


class SelfStats:
    """Renders a node's statistics; the node's start is this object's construction."""

    def __init__(self, node: NodeStats) -> None:
        self._node = node
        self._started = time.time_ns()

    def render(self) -> bytes:
        """The JSON object, as etcd orders it."""
        node, leader, measured = self._node, self._node.leader, self._node.measurements()
        state = "StateLeader" if leader == node.id else "StateFollower"
        led = int(node.leader_seconds * 10**9)
        since = go_time(time.time_ns() - led) if leader else _NEVER
        uptime = go_duration(led) if leader else "0s"
        return (
            f'{{"name":"{json_text(node.name)}","id":"{node.id:x}","state":"{state}",'
            f'"startTime":"{go_time(self._started)}",'
            f'"leaderInfo":{{"leader":"{leader:x}","uptime":"{uptime}","startTime":"{since}"}},'
            f'"recvAppendRequestCnt":{measured.appends_received},{_rates("recv", measured.receiving)}'
            f'"sendAppendRequestCnt":{measured.appends_sent},{_rates("send", measured.sending)}'.rstrip(",")
            + "}"
        ).encode()


def _rates(direction: str, rates: tuple[float, float]) -> str:
    """What is 0 is left out."""
    fields = zip(("PkgRate", "BandwidthRate"), rates, strict=True)
    return "".join(f'"{direction}{name}":{json_number(rate)},' for name, rate in fields if rate)


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
