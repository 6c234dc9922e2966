"""How soon those who watch a key hear of a write: the targets in turn, a round each, with watchers of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from benchmarks.audience import Audience
from benchmarks.compare import Fleet, Tell
from benchmarks.statistics import quantile
from benchmarks.targets import Target

#: Before each write, in seconds: whoever has begun to watch is forgotten by the machine.
REST = 0.05
#: What a thousand watchers take to connect, and to hear of one write, in seconds, for a forecast.
CONNECT_ESTIMATE, TELL_ESTIMATE = 0.5, 0.3


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything: ``events`` are the writes of a round."""

    watchers: int = 1000
    rounds: int = 10
    events: int = 10


@dataclass(frozen=True, slots=True)
class Heard:
    """One write: what it took to its ``heard`` watchers, in seconds.

    ``number`` is that of its round, ``place`` its own there, both from 1 on.
    """

    target: str
    kind: str
    number: int
    place: int
    heard: int
    p50: float
    p99: float
    longest: float


def estimate(targets: Sequence[Target], kinds: Sequence[str], size: Size) -> float:
    """Seconds."""
    return size.rounds * len(kinds) * len(targets) * _round_estimate(size)


def measure(
    targets: Sequence[Target], kinds: Sequence[str], size: Size, tell: Tell
) -> tuple[list[Heard], dict[str, list[str]]]:
    """Every round of every kind of watcher for every target, and how the targets were started.

    :raises BenchmarkError: a cluster does not start, or does not let watch, or does not tell all of its watchers
    """
    found: list[Heard] = []
    with Fleet() as fleet:
        starts = {target.name: fleet.running(target).commands for target in targets}
        for number in range(1, size.rounds + 1):
            for kind in kinds:
                for target in targets:
                    tell(f"round {number} of {size.rounds}, {kind}: {target.name}", 0)
                    took = uvloop.run(listen(fleet.running(target).endpoints, kind, size))
                    found += [
                        _heard(target.name, kind, number, place, each)
                        for place, each in enumerate(took, start=1)
                    ]
                    tell("", _round_estimate(size))
    return found, starts


async def listen(endpoints: Sequence[str], kind: str, size: Size) -> list[list[float]]:
    """A round: for each write the seconds to each watcher."""
    found: list[list[float]] = []
    async with Audience(endpoints, size.watchers, kind) as audience:
        for number in range(size.events):
            if number:
                await audience.ready()
            await asyncio.sleep(REST)
            found.append(await audience.tell())
    return found


def _heard(target: str, kind: str, number: int, place: int, took: Sequence[float]) -> Heard:
    ordered = sorted(took)
    p50, p99, longest = (quantile(ordered, share) for share in (0.5, 0.99, 1.0))
    return Heard(target, kind, number, place, len(ordered), p50, p99, longest)


def _round_estimate(size: Size) -> float:
    return (CONNECT_ESTIMATE + size.events * TELL_ESTIMATE) * size.watchers / 1000
