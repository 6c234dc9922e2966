"""What a seed has in store for a cluster: sizes, limits, clients, faults and how often.

Each seed switches some kinds of fault on and leaves others out ("swarm testing"): a run in which everything
fails all the time rarely gets far enough to reach the interesting states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from common_raft.core import Config
from common_raft.testing.network import CALM, Conditions


class Fault(Enum):
    """What can befall a cluster, apart from what links do to single messages."""

    CRASH = "crash"  #: a process dies; what was not durable is gone; it starts again later
    PAUSE = (
        "pause"  #: a process stops (SIGSTOP, a long GC) and goes on later with all that has come meanwhile
    )
    SPLIT = "split"  #: some nodes cannot talk to the others, both ways
    ONE_WAY = "one-way"  #: one direction of a link is cut
    CAMPAIGN = "campaign"  #: an election timer goes off early
    UNREACHABLE = "unreachable"  #: the transport reports a peer as unreachable, rightly or not


class Request(Enum):
    """What clients and operators ask for."""

    PROPOSE = "propose"
    READ = "read"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Weather:
    """All times are in nominal ticks; intervals are means."""

    nodes: int = 3
    election_tick: int = 5
    limits: Mapping[str, int | bool] = field(default_factory=dict)  #: further fields of `core.Config`
    conditions: Conditions = CALM
    faults: Mapping[Fault, float] = field(default_factory=dict)  #: kind -> weight; empty: none happen
    fault_interval: float = 10.0
    fault_length: float = 10.0
    requests: Mapping[Request, float] = field(default_factory=lambda: {Request.PROPOSE: 1.0})
    request_interval: float = 1.0
    disk_delay: float = 0.2  #: a group of writes becomes durable after 0 ... this
    apply_delay: float = 0.0
    batching: float = 0.0  #: probability that a driver lets more input come before it takes a Ready
    clock_drift: float = (
        0.0  #: a node's tick lasts 1 - drift ... 1 + drift nominal ones, drawn anew at each start
    )

    def config(self, node: int) -> Config:
        voters = tuple(range(1, self.nodes + 1))
        return Config(id=node, voters=voters, election_tick=self.election_tick, **self.limits)  # type: ignore[arg-type]


def draw(random: Random, nodes: int | None = None) -> Weather:
    """The weather of a seed; ``nodes`` fixes the size of the cluster, which is 3 or 5 otherwise."""
    size = random.choice((3, 3, 5))
    return Weather(
        nodes=size if nodes is None else nodes,
        election_tick=random.choice((3, 3, 5, 8)),
        limits=_draw_limits(random),
        conditions=_draw_conditions(random),
        faults={kind: random.uniform(0.2, 1.0) for kind in Fault if random.random() < 0.5},
        fault_interval=random.choice((1.5, 4.0, 10.0)),
        fault_length=random.choice((2.0, 6.0, 15.0)),
        requests=_draw_requests(random),
        request_interval=random.choice((0.2, 0.5, 2.0)),
        disk_delay=random.choice((0.1, 0.5, 3.0)),
        apply_delay=random.choice((0.0, 0.5)),
        batching=random.choice((0.0, 0.3, 0.9)),
        clock_drift=random.choice((0.0, 0.3)),
    )


def _draw_limits(random: Random) -> dict[str, int | bool]:
    """Tight limits, so that short runs meet them; both kinds of election."""
    return {
        "heartbeat_tick": random.choice((1, 1, 2)),
        "max_message_bytes": random.choice((0, 40, 1 << 20)),
        "max_inflight_messages": random.choice((1, 2, 256)),
        "max_inflight_bytes": random.choice((20, 1 << 20)),
        "max_uncommitted_bytes": random.choice((100, 1 << 20)),
        "max_apply_bytes": random.choice((1, 1 << 20)),
        "pre_vote": random.random() < 0.6,
        "check_quorum": random.random() < 0.6,
    }


def _draw_conditions(random: Random) -> Conditions:
    in_order = random.random() < 0.5
    return Conditions(
        loss=random.choice((0.0, 0.0, 0.05, 0.25)),
        duplication=random.choice((0.0, 0.0, 0.3)),
        delay=random.choice((0.2, 0.5, 2.0)),
        in_order=in_order,
        # On an ordered link a straggler holds up all that is behind it.
        straggle=random.choice((0.0, 0.002, 0.01) if in_order else (0.0, 0.02, 0.1)),
        straggle_delay=random.choice((5.0, 40.0)),
    )


def _draw_requests(random: Random) -> dict[Request, float]:
    return {
        Request.PROPOSE: 1.0,
        Request.READ: random.choice((0.0, 0.3, 1.0)),
        Request.TRANSFER: random.choice((0.0, 0.05, 0.15)),
    }
