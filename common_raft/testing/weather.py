"""What a seed has in store for a cluster: sizes, limits, clients, faults and how often.

Each seed switches some kinds of fault on and leaves others out ("swarm testing"): a run in which everything
fails all the time rarely gets far enough to reach the interesting states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    REPLAY = "replay"  #: messages that a process got long ago arrive once more
    CAMPAIGN = "campaign"  #: an election timer goes off early
    FORGET = "forget"  #: somebody tells a follower that its leader is gone, rightly or not
    UNREACHABLE = "unreachable"  #: the transport reports a peer as unreachable, rightly or not
    CLOCK = "clock"  #: a clock jumps, forward or back, or begins to run at another speed
    SLOW_DISK = "slow disk"  #: nothing becomes durable for a while
    FAILING_DISK = "failing disk"  #: an fsync fails, which ends the process; it starts again later
    DAMAGE = "damage"  #: a bit flips, a sector is lost, or a write goes to the wrong place
    ROT = "rot"  #: a process dies, and the file of its newest snapshot is damaged when it starts again
    WIPE = "wipe"  #: a disk is emptied; the node must not start again under its name


class Request(Enum):
    """What clients and operators ask for."""

    PROPOSE = "propose"
    READ = "read"
    TRANSFER = "transfer"
    CHANGE = "change"  #: of the membership


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
    #: A node's tick lasts 1 - drift ... 1 + drift nominal ones, drawn anew at each start.
    clock_drift: float = 0.0
    snapshot_every: int = 0  #: applied entries between two snapshots of a node, roughly; 0: none are taken
    snapshot_delay: float = 0.0  #: writing one takes 0 ... this
    catch_up_entries: int = 0  #: entries behind a snapshot that are kept, at most
    torn_writes: bool = False  #: a crash may leave a part of the write that was under way

    def config(self, node: int) -> Config:
        """``node`` is one of those that the cluster begins with, or joins it later and is told who else there is."""
        voters = tuple(range(1, self.nodes + 1)) if node <= self.nodes else ()
        return Config(id=node, voters=voters, election_tick=self.election_tick, **self.limits)  # type: ignore[arg-type]


def draw(random: Random, nodes: int | None = None) -> Weather:
    """The weather of a seed; ``nodes`` fixes the size that the cluster begins with, which is 3 or 5 otherwise."""
    size = random.choice((3, 3, 5))
    weather = Weather(
        nodes=size if nodes is None else nodes,
        election_tick=random.choice((3, 3, 5, 8)),
        limits=_draw_limits(random),
        conditions=_draw_conditions(random),
        faults={kind: random.uniform(0.2, 1.0) for kind in Fault if random.random() < 0.35},
        fault_interval=random.choice((1.5, 4.0, 10.0)),
        fault_length=random.choice((2.0, 6.0, 15.0)),
        requests=_draw_requests(random),
        request_interval=random.choice((0.2, 0.5, 2.0)),
        disk_delay=random.choice((0.1, 0.5, 3.0)),
        apply_delay=random.choice((0.0, 0.5)),
        batching=random.choice((0.0, 0.3, 0.9)),
        clock_drift=random.choice((0.0, 0.3)),
        snapshot_every=random.choice((0, 3, 10, 40)),
        snapshot_delay=random.choice((0.0, 3.0)),
        catch_up_entries=random.choice((0, 0, 5)),
        torn_writes=random.random() < 0.5,
    )
    return _with_honest_clocks(weather) if weather.limits["lease_reads"] else weather


def _with_honest_clocks(weather: Weather) -> Weather:
    """Lease reads rest on clocks that neither jump nor differ by more than half (`core.reads.Lease`)."""
    faults = dict(weather.faults)
    faults.pop(Fault.CLOCK, None)
    return replace(weather, faults=faults, clock_drift=min(weather.clock_drift, 0.18))


def _draw_limits(random: Random) -> dict[str, int | bool]:
    """Tight limits, so that short runs meet them; both kinds of election."""
    check_quorum = random.random() < 0.6
    return {
        "heartbeat_tick": random.choice((1, 1, 2)),
        "max_message_bytes": random.choice((0, 40, 1 << 20)),
        "max_inflight_messages": random.choice((1, 2, 256)),
        "max_inflight_bytes": random.choice((20, 1 << 20)),
        "max_uncommitted_bytes": random.choice((100, 1 << 20)),
        "max_apply_bytes": random.choice((1, 1 << 20)),
        "pre_vote": random.random() < 0.6,
        "check_quorum": check_quorum,
        "lease_reads": check_quorum and random.random() < 0.3,
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
        Request.CHANGE: random.choice((0.0, 0.0, 0.05, 0.2)),
    }
