"""How long a cluster takes no writes when its leader is killed: from SIGKILL to the next acknowledged write.

The targets run side by side and lose their leaders in turn.  From the moment of the kill on a new PUT is sent through
each node that is left every few milliseconds, and the first that is acknowledged counts.  One patient client would
measure something else: a write that was handed to the dead leader is lost, and its client waits until it gives up.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.cluster import Cluster
from benchmarks.compare import Fleet, Tell
from benchmarks.errors import BenchmarkError
from benchmarks.statistics import quantile
from benchmarks.targets import Target

#: Between two PUTs through one node, in seconds: how exactly the end of an outage is known.
EVERY = 0.01
#: Longer than any outage; a PUT waits for no longer either.
AT_MOST = 15.0
#: A cluster is left alone for so long before each kill, so that it falls anywhere between two heartbeats.
SETTLE = (0.5, 1.5)
#: What one kill takes in all, in seconds, for a forecast.
KILL_ESTIMATE = 5.0

KEY = "failover"


@dataclass(frozen=True, slots=True)
class Outage:
    """One kill: ``through`` is the node that acknowledged the first write, ``seconds`` after the kill."""

    target: str
    number: int
    seconds: float
    through: str


def with_times(target: Target, heartbeat_interval: int, election_timeout: int) -> Target:
    """The target with these times, in milliseconds."""
    flags = ("--heartbeat-interval", str(heartbeat_interval), "--election-timeout", str(election_timeout))
    return replace(target, command=(*target.command, *flags))


def estimate(targets: Sequence[Target], kills: int) -> float:
    """Seconds."""
    return KILL_ESTIMATE * len(targets) * kills


def measure(targets: Sequence[Target], kills: int, tell: Tell) -> list[Outage]:
    """Kill each target's leader ``kills`` times, the targets in turn.

    :raises BenchmarkError: a cluster does not start, or does not take writes again
    """
    outages: list[Outage] = []
    with Fleet() as fleet:
        for target in targets:
            fleet.running(target)
        for number in range(1, kills + 1):
            for target in targets:
                tell(f"kill {number} of {kills}: {target.name}", 0)
                cluster = fleet.running(target)
                assert isinstance(cluster, Cluster)
                outages.append(_kill_leader(cluster, number))
                tell("", KILL_ESTIMATE)
    return outages


def _kill_leader(cluster: Cluster, number: int) -> Outage:
    time.sleep(random.uniform(*SETTLE))
    leader = cluster.leader()
    if leader is None:
        raise BenchmarkError(f"{cluster.target.name}: no node says that it leads")
    left = [endpoint for endpoint in cluster.endpoints if endpoint != leader]
    seconds, through = asyncio.run(outage(left, lambda: cluster.kill(leader)))
    cluster.restart(leader)
    return Outage(cluster.target.name, number, seconds, through)


async def outage(left: Sequence[str], kill: Callable[[], None]) -> tuple[float, str]:
    """Seconds from ``kill`` to the first write that is acknowledged, and the endpoint, one of ``left``, that did.

    :raises BenchmarkError: none is within AT_MOST
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    kill()
    waiting: set[asyncio.Task[tuple[float, str] | None]] = set()
    try:
        while loop.time() - began < AT_MOST:
            waiting |= {loop.create_task(_put(endpoint)) for endpoint in left}
            done, waiting = await asyncio.wait(waiting, timeout=EVERY)
            acknowledged = [told for told in (task.result() for task in done) if told is not None]
            if acknowledged:
                at, through = min(acknowledged)
                return at - began, through
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    raise BenchmarkError(f"no write was acknowledged within {AT_MOST:g} s by {', '.join(left)}")


async def _put(endpoint: str) -> tuple[float, str] | None:
    """When the write was acknowledged, and the endpoint; None if it was not."""
    place = urlsplit(endpoint)
    body = "value=v"
    request = (
        f"PUT /v2/keys/{KEY} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    writer: asyncio.StreamWriter | None = None
    try:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(request.encode())
        line = await reader.readline()
        at = asyncio.get_running_loop().time()
    except OSError:
        return None
    finally:
        if writer is not None:
            writer.transport.abort()
    return (at, endpoint) if line.split()[1:2] in ([b"200"], [b"201"]) else None


def write(output: Path, facts: dict[str, str], command: str, outages: Sequence[Outage]) -> None:
    """:raises BenchmarkError: the results cannot be written."""
    found = {"command": command, "environment": facts, "outages": [asdict(each) for each in outages]}
    try:
        (output / "failover.json").write_text(json.dumps(found, indent=1) + "\n")
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def rows(outages: Sequence[Outage]) -> list[tuple[str, int, list[float]]]:
    """For each target its name, the number of kills, and median, p90, shortest and longest outage in seconds."""
    found = []
    for target in dict.fromkeys(each.target for each in outages):
        seconds = [each.seconds for each in outages if each.target == target]
        found.append(
            (target, len(seconds), [median(seconds), quantile(seconds, 0.9), min(seconds), max(seconds)])
        )
    return found


def show(outages: Sequence[Outage], console: Console) -> None:
    table = Table(title="From SIGKILL of the leader to the next acknowledged write, in seconds")
    for column in ("target", "kills", "median", "p90", "shortest", "longest"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for target, kills, seconds in rows(outages):
        table.add_row(target, str(kills), *(f"{each:.2f}" for each in seconds))
    console.print(table)
