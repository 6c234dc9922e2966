"""One run: a cluster of real processes, concurrent clients, a schedule of faults from a seed, and the verdict.

The seed decides which faults come when, which nodes they choose (but for who leads) and what the clients ask.  When
things happen inside the processes it does not decide, so that a run that failed may have to be repeated a few times.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from common_raft.testing.key_values import Get, KeyOperation, KeyValueModel, save_history
from common_raft.testing.linearizability import Undecided, check
from common_raft.testing.processes import NodeProcess
from common_raft.testing.proxy import ProxiedCluster
from common_raft.testing.torture.clients import Client, ask
from common_raft.testing.torture.faults import FAULTS, Planned, Stage, plan
from common_raft.testing.torture.members import NotNow

#: Elections in a fifth of the default's time, and snapshots every second or so: there are many of both.
QUICK = ("--heartbeat-interval", "20", "--election-timeout", "200", "--snapshot-count", "50")
#: Members may come and go while others are away; all who are away come back.
FLAGS = (*QUICK, "--strict-reconfig-check", "false")
KEYS = 5
#: New keys after so many seconds: what is to be judged together stays small.
KEYS_LAST = 5
CLIENTS = 6
#: Until every node serves again when all faults have ended, and until all have applied the same.
RECOVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """``command`` starts a node, but for etcd's flags; the history of a run that failed is left in ``directory``."""

    command: Sequence[str]
    directory: Path
    seed: int
    seconds: float = 10.0
    nodes: int = 3
    clients: int = CLIENTS
    faults: Sequence[str] = tuple(FAULTS)
    flags: Sequence[str] = FLAGS


@dataclass
class Outcome:
    """What was done in a run in which nothing was wrong."""

    history: list[KeyOperation]
    done: Counter[str] = field(default_factory=Counter)  #: faults, by name
    judged_in: float = 0.0  #: seconds

    @property
    def acknowledged(self) -> int:
        return sum(each.output is not None and not isinstance(each.input, Get) for each in self.history)

    @property
    def unknown(self) -> int:
        return sum(each.returned is None for each in self.history)

    def __str__(self) -> str:
        faults = ", ".join(f"{number} {name}" for name, number in sorted(self.done.items()))
        return (
            f"{len(self.history)} operations, {self.acknowledged} writes answered, {self.unknown} outcomes "
            f"unknown; faults: {faults or 'none'}; judged in {self.judged_in:.1f} s: linearizable"
        )


class TortureFailed(AssertionError):
    """What went wrong, with all that is needed to try again."""


def torture(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Runs once.

    :param tell: is told what happens
    :raises TortureFailed: an answer was wrong or lost, or the cluster did not recover; the history is in a file
    """
    rng = Random(settings.seed)
    planned = plan(rng, settings.seconds, settings.faults)
    outcome = Outcome([])
    problems: list[str] = []
    cause: Exception | None = None
    try:
        _run(settings, rng, planned, outcome, tell)
    except Exception as error:  # whatever it is, it happened with this seed, and the history may say why
        problems.append(f"{type(error).__name__}: {error}")
        cause = error
    problems += _judge(outcome)
    if problems:
        raise TortureFailed(_report(settings, planned, outcome, problems)) from cause
    return outcome


def _judge(outcome: Outcome) -> list[str]:
    began = time.monotonic()
    try:
        violation = check(outcome.history, KeyValueModel())
    except Undecided as error:
        return [str(error)]
    finally:
        outcome.judged_in = time.monotonic() - began
    return [str(violation)] if violation is not None else []


def _report(settings: Settings, planned: Sequence[Planned], outcome: Outcome, problems: Sequence[str]) -> str:
    file = settings.directory / f"history-{settings.seed}.jsonl"
    save_history(file, outcome.history)
    lines = [
        f"seed {settings.seed}, {settings.nodes} nodes, {settings.seconds:g} s:",
        *problems,
        f"the history is in {file}; the schedule was:",
        *map(str, planned),
    ]
    return "\n".join(lines)


def _run(
    settings: Settings,
    rng: Random,
    planned: Sequence[Planned],
    outcome: Outcome,
    tell: Callable[[str], None],
) -> None:
    began = time.monotonic()

    def keys() -> list[str]:
        turn = int(time.monotonic() - began) // KEYS_LAST
        return [f"k{turn}-{number}" for number in range(KEYS)]

    cluster = ProxiedCluster(settings.command, settings.directory, settings.nodes, settings.flags)
    with cluster:
        clients = [
            Client(f"c{number}", cluster.nodes, keys, Random(rng.getrandbits(32)))
            for number in range(settings.clients)
        ]
        with _running(clients, outcome):
            stage = Stage(cluster, settings.command)
            outcome.done = _carry_out(planned, stage, settings.seconds, tell)
        cluster.wait_ready(RECOVERY_SECONDS)
        stage.members.tidy_up(RECOVERY_SECONDS)
        used = sorted({operation.key for operation in outcome.history})
        for node in cluster.nodes:
            outcome.history += [_read(node, key) for key in used]
        _check_replicas(cluster.nodes, used)
    if not outcome.acknowledged:
        raise RuntimeError("no write was ever answered")


@contextmanager
def _running(clients: Sequence[Client], outcome: Outcome) -> Iterator[None]:
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
        outcome.history = sorted(
            (operation for client in clients for operation in client.history), key=lambda each: each.invoked
        )
    for client in clients:
        if client.problem is not None:
            raise client.problem


def _carry_out(
    planned: Sequence[Planned], stage: Stage, seconds: float, tell: Callable[[str], None]
) -> Counter[str]:
    """Begins and ends every fault at its time; returns how many of each there were."""
    done: Counter[str] = Counter()
    began = time.monotonic()
    ends: list[tuple[float, int, ExitStack]] = []

    def wait_until(at: float) -> None:
        """Ends what ends before then."""
        while ends and ends[0][0] <= at:
            end, _, under_way = heapq.heappop(ends)
            _sleep(began + end)
            under_way.close()
        _sleep(began + at)

    with ExitStack() as all_of_them:
        for number, each in enumerate(planned):
            wait_until(each.begin)
            under_way = all_of_them.enter_context(ExitStack())
            try:
                under_way.enter_context(FAULTS[each.fault].begin(stage, Random(each.seed)))
            except NotNow:
                continue
            tell(str(each))
            done[each.fault] += 1
            heapq.heappush(ends, (each.end, number, under_way))
        wait_until(seconds)
    return done


def _sleep(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


def _read(node: NodeProcess, key: str) -> KeyOperation:
    """What a node says in the end."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        operation = ask(f"end-{node.name}", node, key, Get(), timeout=10)
        if operation is not None:
            return operation
        if time.monotonic() > deadline:
            raise TimeoutError(f"{node.name} did not answer a linearizable read within {RECOVERY_SECONDS} s")


def _check_replicas(nodes: Sequence[NodeProcess], keys: Sequence[str]) -> None:
    """All nodes have the same: what each one's own state says of each key.  Raises RuntimeError."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    for key in keys:
        # A write whose outcome is not known may still be on its way.
        while len(set((found := _replicas(nodes, key)).values())) > 1:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nodes differ in key {key}: {found}")
            time.sleep(0.1)


def _replicas(nodes: Sequence[NodeProcess], key: str) -> dict[str, str]:
    """What each node's own state says of a key."""
    return {node.name: str(node.ask("GET", f"/v2/keys/{key}").json.get("node")) for node in nodes}
