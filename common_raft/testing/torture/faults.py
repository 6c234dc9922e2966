"""What can be done to a running cluster: a table, and schedules made of it.

A fault is a context manager: it begins when it is entered and ends when it is left.  It chooses its nodes with the
random numbers that it is given, and raises NotNow where there is nothing to choose from.  To add one, write it and
put it into ``FAULTS``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import permutations, product
from random import Random
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from common_raft.testing.processes import NodeProcess
from common_raft.testing.proxy import ProxiedCluster, State
from common_raft.testing.torn_log import tear
from common_raft.testing.torture.members import NotNow, Operator

Links: TypeAlias = list[tuple[str, str]]  #: who says something, and to whom


class Stage:
    """A cluster as faults see it.  ``away``: the names of nodes that a fault has killed or stopped."""

    def __init__(self, cluster: ProxiedCluster, command: Sequence[str]) -> None:
        """``command`` starts a node, but for etcd's flags."""
        self.cluster = cluster
        self.members = Operator(cluster, command)
        self.away: set[str] = set()

    def choose(self, rng: Random) -> NodeProcess:
        """A node that is there: the leader in half of the cases, as far as one says that it is.

        Raises NotNow, and RuntimeError when a node has ended by itself.
        """
        nodes = [node for node in self.cluster.nodes if node.name not in self.away and node.alive_or_raise()]
        if not nodes:
            raise NotNow
        chosen = rng.choice(nodes)
        if rng.random() < 0.5:
            return next((node for node in nodes if node.state() == "StateLeader"), chosen)
        return chosen

    @contextmanager
    def taking(self, nodes: Sequence[NodeProcess]) -> Iterator[None]:
        """Keeps other faults away from the processes of these nodes.  Raises NotNow when one has them."""
        names = {node.name for node in nodes}
        if names & self.away or not all(node.alive_or_raise() for node in nodes):
            raise NotNow
        self.away |= names
        try:
            yield
        finally:
            self.away -= names

    def between(self, some: Sequence[str], others: Sequence[str]) -> Links:
        return [(sender, receiver) for sender, receiver in product(some, others) if sender != receiver]

    def others(self, node: NodeProcess) -> list[str]:
        return [each.name for each in self.cluster.nodes if each is not node]

    @contextmanager
    def cut(self, links: Links, rng: Random) -> Iterator[None]:
        """Holds these links, or breaks them.  A link that two faults have cut passes once either has ended."""
        proxy = self.cluster.proxy
        proxy.set(links, rng.choice([State.HELD, State.BROKEN]))
        try:
            yield
        finally:
            proxy.set(links)


@contextmanager
def kill(stage: Stage, rng: Random) -> Iterator[None]:
    """SIGKILL; started again at the end."""
    node = stage.choose(rng)
    with stage.taking([node]):
        node.kill()
        yield
        node.start()


@contextmanager
def restart(stage: Stage, rng: Random) -> Iterator[None]:
    """SIGTERM; started again at the end."""
    node = stage.choose(rng)
    with stage.taking([node]):
        node.send_signal(signal.SIGTERM)
        yield
        # One that has just been started is ended by the signal.
        if node.stop_by_itself() not in (0, -signal.SIGTERM):
            raise RuntimeError(f"{node.name} did not stop in order; its log:\n{node.log.read_text()}")
        node.start()


@contextmanager
def kill_all(stage: Stage, _: Random) -> Iterator[None]:
    """SIGKILL for all nodes at once."""
    nodes = stage.cluster.nodes
    with stage.taking(nodes):
        for node in nodes:
            node.send_signal(signal.SIGKILL)
        for node in nodes:
            node.kill()
        yield
        for node in nodes:
            node.start()


@contextmanager
def tear_log(stage: Stage, rng: Random) -> Iterator[None]:
    """SIGKILL in the middle of a write to the log: a part of the next one is there at the restart."""
    node = stage.choose(rng)
    with stage.taking([node]):
        node.kill()
        assert node.data_dir is not None
        tear(node.data_dir, rng)
        yield
        node.start()


@contextmanager
def pause(stage: Stage, rng: Random) -> Iterator[None]:
    """SIGSTOP; SIGCONT at the end."""
    node = stage.choose(rng)
    with stage.taking([node]):
        node.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            node.send_signal(signal.SIGCONT)


@contextmanager
def isolate(stage: Stage, rng: Random) -> Iterator[None]:
    """One node hears nobody, and nobody hears it."""
    node = stage.choose(rng)
    others = stage.others(node)
    with stage.cut(
        stage.between([node.name], others) + stage.between(others, [node.name]),
        rng,
    ):
        yield


@contextmanager
def deafen(stage: Stage, rng: Random) -> Iterator[None]:
    """One node hears nobody, and all hear it."""
    node = stage.choose(rng)
    with stage.cut(stage.between(stage.others(node), [node.name]), rng):
        yield


@contextmanager
def mute(stage: Stage, rng: Random) -> Iterator[None]:
    """Nobody hears one node, and it hears all."""
    node = stage.choose(rng)
    with stage.cut(stage.between([node.name], stage.others(node)), rng):
        yield


@contextmanager
def cut_one_way(stage: Stage, rng: Random) -> Iterator[None]:
    """What one node says to one other is lost."""
    node = stage.choose(rng)
    with stage.cut([(node.name, rng.choice(stage.others(node)))], rng):
        yield


@contextmanager
def split(stage: Stage, rng: Random) -> Iterator[None]:
    """Two groups that do not hear each other."""
    names = [node.name for node in stage.cluster.nodes]
    rng.shuffle(names)
    middle = rng.randrange(1, len(names))
    some, others = names[:middle], names[middle:]
    with stage.cut(stage.between(some, others) + stage.between(others, some), rng):
        yield


@contextmanager
def slow_down(stage: Stage, rng: Random) -> Iterator[None]:
    """Each link takes a time of its own for everything."""
    links = [*permutations([node.name for node in stage.cluster.nodes], 2)]
    for link in links:
        stage.cluster.proxy.set([link], delay=rng.uniform(0, 0.05))
    try:
        yield
    finally:
        stage.cluster.proxy.set(links)


@contextmanager
def replace(stage: Stage, rng: Random) -> Iterator[None]:
    """Another member comes; at the end it goes again, or one of the others does."""
    new = stage.members.add(stage.choose(rng))
    new.start()
    with stage.taking([new]):
        yield
        # Who joins must name the members as they are, and so they stay until then.
        if rng.random() < 0.7 and stage.members.has_joined(new):
            with suppress(NotNow):
                other = stage.choose(rng)
                with stage.taking([other]):
                    stage.members.remove(other)
                    return
        stage.members.remove(new)


class Fault(NamedTuple):
    begin: Callable[[Stage, Random], AbstractContextManager[None]]
    weight: int  #: how often it is chosen


FAULTS: dict[str, Fault] = {
    "kill": Fault(kill, 4),
    "kill-all": Fault(kill_all, 1),
    "tear-log": Fault(tear_log, 2),
    "pause": Fault(pause, 3),
    "isolate": Fault(isolate, 2),
    "deafen": Fault(deafen, 2),
    "mute": Fault(mute, 2),
    "cut-one-way": Fault(cut_one_way, 2),
    "split": Fault(split, 2),
    "slow-down": Fault(slow_down, 1),
    "restart": Fault(restart, 3),
    "replace": Fault(replace, 3),
}


class Planned(Struct, frozen=True):
    """A fault from ``begin`` to ``end``, in seconds from the start; ``seed`` is for its own choices."""

    fault: str
    begin: float
    end: float
    seed: int

    def __str__(self) -> str:
        return f"{self.begin:7.2f} to {self.end:7.2f} s  {self.fault}"


#: Seconds between the beginnings of two faults, and how long one lasts: some are alone and some overlap.
BETWEEN = (0.3, 1.4)
LASTING = (0.3, 1.5)


def plan(rng: Random, seconds: float, faults: Sequence[str]) -> list[Planned]:
    """A schedule in which each of ``faults`` comes once, and then as often as its weight says."""
    planned: list[Planned] = []
    at = rng.uniform(*BETWEEN)
    turn = rng.sample(faults, len(faults))
    while at < seconds:
        if not turn:
            turn = [name for name in faults for _ in range(FAULTS[name].weight)]
            rng.shuffle(turn)
        end = min(at + rng.uniform(*LASTING), seconds)
        planned.append(Planned(turn.pop(), round(at, 3), round(end, 3), rng.getrandbits(32)))
        at += rng.uniform(*BETWEEN)
    return planned
