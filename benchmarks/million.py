"""What a million keys ask of a node: to start again, to hold them, to take snapshots of them, to catch up with them.

The targets run side by side and go through each part in turn:

- They are filled with flat keys, each with a value of its own, and what a node holds more than when it was empty is
  divided by the keys, once each node has taken a snapshot of all of them.
- A follower is killed and started again: when does it give the right value of the key that was written last?
- Users PUT and GET while snapshots are taken.  What they waited for in the meantime is told apart from the rest by
  what the nodes' logs say of when they began and ended.
- A follower is down while all keys are written once more.  From its start until it has all of that, and a write made
  now is there at once: how much does the cluster serve meanwhile?
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import median

import psutil

from benchmarks import snapshot_logs
from benchmarks.cluster import Cluster
from benchmarks.compare import Fleet, Tell
from benchmarks.crowd import Answers, Crowd, Next
from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.snapshot_logs import Taking
from benchmarks.statistics import quantile
from benchmarks.targets import Target

VALUE_BYTES = 100
#: Connections that write all keys.
WRITERS = 192
#: Between two looks at a node, in seconds: how exactly times are known.
EVERY = 0.01
#: Longer than any start, snapshot or catching up should take, in seconds.
AT_MOST = 300.0
#: Where snapshots are slow in coming, those that came within so many seconds will do.
WATCHED_AT_MOST = 200.0
#: Before memory is looked at and before a node is killed, in seconds.
SETTLE = 3.0

RESTART, MEMORY, PAUSES, CATCH_UP = "restart", "memory", "pauses", "catch-up"
PARTS = (RESTART, MEMORY, PAUSES, CATCH_UP)
#: What parts take of a target with a million keys, in seconds, for a forecast.
FILL_ESTIMATE = 100.0
ESTIMATES = {RESTART: 12.0, MEMORY: 30.0, PAUSES: 90.0, CATCH_UP: 140.0}


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    keys: int = 1_000_000
    restarts: int = 3
    users: int = 24
    snapshots: int = 2  #: that each node takes while users wait
    seconds: float = 10.0  #: of throughput before a node is killed, and of latencies at least

    def turns(self, parts: Collection[str]) -> list[str]:
        """The parts in their order, a restart as often as is asked for."""
        return [
            part for part in PARTS if part in parts for _ in range(self.restarts if part == RESTART else 1)
        ]


@dataclass(slots=True)
class Found:
    """Of one target; None and empty where a part was left out.  Times in seconds; memory in bytes of a node, the
    mean of all.

    ``errors``: answers that were errors, in all parts; a write of all keys repeats what failed.
    """

    target: str
    keys: int
    starts: list[str] = field(default_factory=list)
    fill: float | None = None
    restarts: list[float] = field(default_factory=list)
    empty: float = 0.0
    full: float | None = None
    pauses: dict[str, Waits] = field(default_factory=dict)
    snapshots: list[float] = field(default_factory=list)  #: how long each took under load
    catch_up: CatchUp | None = None
    errors: int = 0

    @property
    def restart(self) -> float | None:
        return median(self.restarts) if self.restarts else None

    @property
    def bytes_a_key(self) -> float | None:
        return None if self.full is None else (self.full - self.empty) / self.keys


@dataclass(frozen=True, slots=True)
class Waits:
    """What users waited for, in seconds."""

    requests: int
    p50: float
    p99: float
    p999: float
    longest: float


@dataclass(frozen=True, slots=True)
class CatchUp:
    """``before``, ``without``, ``during``: requests a second with all nodes, with one down, and while it catches up.

    ``received``: snapshots that came to it meanwhile.
    """

    before: float
    without: float
    during: float
    seconds: float
    received: int


def prepared(target: Target, snapshot_count: int | None) -> Target:
    """The target, so that its nodes say when they take snapshots; after so many entries, unless by default."""
    command = [each for each in target.command if each not in ("--log-level", "warn")]
    if snapshot_count is not None:
        command += ["--snapshot-count", str(snapshot_count)]
    return replace(target, command=tuple(command))


def estimate(targets: Sequence[Target], size: Size, parts: Collection[str]) -> float:
    """Seconds."""
    each = FILL_ESTIMATE + sum(ESTIMATES[part] for part in size.turns(parts))
    return each * len(targets) * size.keys / 1_000_000


def measure(targets: Sequence[Target], size: Size, parts: Collection[str], tell: Tell) -> list[Found]:
    """Take the targets through ``parts``.

    :raises BenchmarkError: a cluster does not start, takes no more writes, or does not get done within AT_MOST
    """
    stations: list[_Station] = []
    with Fleet() as fleet:
        for target in targets:
            cluster = fleet.running(target)
            assert isinstance(cluster, Cluster)
            stations.append(_Station(cluster, size))
        carry_out = {
            RESTART: _Station.restart,
            MEMORY: _Station.weigh,
            PAUSES: _Station.pauses,
            CATCH_UP: _Station.catch_up,
        }
        for station in stations:
            tell(f"filling {station.found.target}", 0)
            station.fill()
            tell("", FILL_ESTIMATE * size.keys / 1_000_000)
        for part in size.turns(parts):
            for station in stations:
                tell(f"{part}: {station.found.target}", 0)
                carry_out[part](station)
                tell("", ESTIMATES[part] * size.keys / 1_000_000)
    return [station.found for station in stations]


class _Station:
    """One target's cluster, and what has been found of it."""

    def __init__(self, cluster: Cluster, size: Size) -> None:
        self._cluster = cluster
        self._size = size
        self._generation = 0  # how often all keys have been written
        self.found = Found(cluster.target.name, size.keys, cluster.commands)
        self.found.empty = self._memory()

    # --- the parts --------------------------------------------------------------------------------------------

    def fill(self) -> None:
        self.found.fill = self._write_all(self._cluster.endpoints)

    def restart(self) -> None:
        follower = self._follower()
        time.sleep(SETTLE)
        self._cluster.kill(follower)
        began = time.monotonic()
        self._cluster.launch(follower)
        last = self._size.keys - 1
        self._until_seen(follower, key(last), value(last, self._generation))
        self.found.restarts.append(time.monotonic() - began)

    def weigh(self) -> None:
        """All nodes at a moment when each has taken a snapshot with all keys in it."""
        since = time.time()
        crowd = Crowd(self._cluster.endpoints, WRITERS, self._writes())
        with crowd.running():
            self._until(lambda: min(map(len, self._taken(since).values())) > 0, crowd)
        time.sleep(SETTLE)
        self.found.full = self._memory()

    def pauses(self) -> None:
        size, since = self._size, time.time()
        crowd = Crowd(self._cluster.endpoints, size.users, self._mixed())
        with crowd.running() as answers:
            self._until(lambda: self._watched(since), crowd)
        self.found.errors += answers.errors
        takings = [each for those in self._taken(since).values() for each in those]
        self.found.snapshots = [each.ended - each.began for each in takings]
        self.found.pauses = told_apart(answers, takings)

    def _watched(self, since: float) -> bool:
        """Whether enough snapshots were taken, or no more are waited for."""
        seconds = time.time() - since
        enough = min(map(len, self._taken(since).values())) >= self._size.snapshots
        return seconds >= (self._size.seconds if enough else WATCHED_AT_MOST)

    def catch_up(self) -> None:
        size, follower = self._size, self._follower()
        left = [each for each in self._cluster.endpoints if each != follower]
        before = self._throughput(left)
        self._cluster.kill(follower)
        self._write_all(left)
        without = self._throughput(left)
        crowd = Crowd(left, size.users, self._mixed())
        with crowd.running() as answers:
            time.sleep(1.0)
            began = time.time()
            self._cluster.launch(follower)
            self._until_level(follower, left[0], crowd)
            ended = time.time()
        self.found.errors += answers.errors
        self.found.catch_up = CatchUp(
            before,
            without,
            answers.rate(began, ended),
            ended - began,
            snapshot_logs.received(self._cluster.log(follower), began),
        )

    # --- what they are made of --------------------------------------------------------------------------------

    def _write_all(self, endpoints: Sequence[str]) -> float:
        """Each key gets a new value, the last key at the very end; returns the seconds."""
        self._generation += 1
        numbers = iter(range(self._size.keys - 1))
        began = time.monotonic()

        def following(_: int) -> bytes | None:
            number = next(numbers, None)
            return None if number is None else put(number, self._generation)

        self.found.errors += Crowd(endpoints, WRITERS, following, persistent=True).run().errors
        last = iter([put(self._size.keys - 1, self._generation)])
        Crowd(endpoints[:1], 1, lambda _: next(last, None), persistent=True).run()
        return time.monotonic() - began

    def _throughput(self, endpoints: Sequence[str]) -> float:
        crowd = Crowd(endpoints, self._size.users, self._mixed())
        with crowd.running() as answers:
            time.sleep(1.0)
            began = time.time()
            time.sleep(self._size.seconds)
            ended = time.time()
        self.found.errors += answers.errors
        return answers.rate(began, ended)

    def _mixed(self) -> Next:
        """PUT and GET in turn, of any key but the last."""
        others = self._size.keys - 1
        turns: dict[int, bool] = {}

        def following(user: int) -> bytes:
            turns[user] = not turns.get(user, False)
            number = int(random.random() * others)
            return put(number, self._generation) if turns[user] else get(number)

        return following

    def _writes(self) -> Next:
        """PUTs of any key but the last, without an end."""
        others = self._size.keys - 1
        return lambda _: put(int(random.random() * others), self._generation)

    def _follower(self) -> str:
        leader = self._cluster.leader()
        if leader is None:
            raise BenchmarkError(f"{self.found.target}: no node says that it leads")
        return next(each for each in reversed(self._cluster.endpoints) if each != leader)

    def _memory(self) -> float:
        processes = [psutil.Process(pid) for pids in self._cluster.pids.values() for pid in pids]
        return float(sum(each.memory_info().rss for each in processes)) / len(self._cluster.pids)

    def _taken(self, since: float) -> dict[str, list[Taking]]:
        """The snapshots of each node that began since a moment and have ended."""
        return {
            endpoint: [
                each for each in snapshot_logs.taken(self._cluster.log(endpoint)) if each.began >= since
            ]
            for endpoint in self._cluster.endpoints
        }

    def _until_level(self, follower: str, source: str, crowd: Crowd) -> None:
        """Until a write that is made through ``source`` is at the follower within a second."""
        for number in count():
            marked = f"{self._generation}-{number}"
            with NodeClient(source) as client:
                while client.put("mark", marked).status >= 500:
                    crowd.check()
            written = time.monotonic()
            self._until_seen(follower, "mark", marked, crowd)
            if time.monotonic() - written < 1.0:
                return

    def _until_seen(self, endpoint: str, name: str, expected: str, crowd: Crowd | None = None) -> None:
        self._until(lambda: _seen(endpoint, name) == expected, crowd, EVERY)

    def _until(self, condition: Callable[[], bool], crowd: Crowd | None, every: float = 0.25) -> None:
        """:raises BenchmarkError: it is not so within AT_MOST, or a node has ended, or the crowd."""
        deadline = time.monotonic() + AT_MOST
        while not condition():
            if crowd is not None:
                crowd.check()
            self._cluster.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.found.target} did not get done within {AT_MOST:g} s")
            time.sleep(every)


def told_apart(answers: Answers, takings: Sequence[Taking]) -> dict[str, Waits]:
    """What users waited for ``during`` snapshots of any node, and ``without``; neither where there was none."""
    during: list[float] = []
    without: list[float] = []
    spans = merged(takings)
    place = 0
    for ended, took in zip(answers.ended, answers.took, strict=True):
        while place < len(spans) and spans[place].ended < ended - took:
            place += 1
        within = place < len(spans) and spans[place].began <= ended
        (during if within else without).append(took)
    return {name: waits(each) for name, each in (("during", during), ("without", without)) if each}


def merged(takings: Sequence[Taking]) -> list[Taking]:
    """What overlaps as one, in order."""
    found: list[Taking] = []
    for each in sorted(takings):
        if found and each.began <= found[-1].ended:
            found[-1] = Taking(found[-1].began, max(found[-1].ended, each.ended))
        else:
            found.append(each)
    return found


def waits(took: Sequence[float]) -> Waits:
    ordered = sorted(took)
    return Waits(len(ordered), *(quantile(ordered, share) for share in (0.5, 0.99, 0.999, 1.0)))


def key(number: int) -> str:
    return f"k{number:07d}"


def value(number: int, generation: int) -> str:
    return f"{generation}-{number:07d}-".ljust(VALUE_BYTES, "v")


def put(number: int, generation: int) -> bytes:
    body = "value=" + value(number, generation)
    return (
        f"PUT /v2/keys/{key(number)} HTTP/1.1\r\nHost: node\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def get(number: int) -> bytes:
    return f"GET /v2/keys/{key(number)} HTTP/1.1\r\nHost: node\r\n\r\n".encode()


def _seen(endpoint: str, name: str) -> str | None:
    """What the node gives for the key; None while it does not answer, or does not have it."""
    with NodeClient(endpoint) as client:
        try:
            told: str | None = client.get(name).body.get("node", {}).get("value")
        except BenchmarkError:
            return None
    return told
