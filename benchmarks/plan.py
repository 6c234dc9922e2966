"""What is measured, and in which order: a list of cells, each run for every target in turn, round after round.

Cells of one section stand together, so that only its targets run while it is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.attribution import OPERATIONS, Chain
from benchmarks.load import Job, locust, wrk
from benchmarks.targets import (
    CLUSTER,
    EMBEDDED,
    GRANIAN,
    HYPERCORN,
    LINEARIZABLE,
    STANDALONE,
    Target,
)
from benchmarks.workloads import USUAL, WORKLOADS, Workload

CLUSTER_START = 3.0  # s, an estimate, as are the two that follow
WRK_START = 0.3  # s
LOCUST_START = 3.3  # s, with its workers

#: Where etcd's results are its own, and not named after what it stood beside.
HOME = {CLUSTER: EMBEDDED, STANDALONE: LINEARIZABLE}


@dataclass(frozen=True, slots=True)
class Cell:
    """One tool, workload and number of users, for ``targets`` in turn (A B A B), ``rounds`` times."""

    tool: str
    workload: Workload
    users: int
    seconds: int
    rounds: int
    targets: tuple[Target, ...]
    section: str = EMBEDDED

    def job(self, endpoints: tuple[str, ...]) -> Job:
        """What the load generator does to the nodes at ``endpoints``."""
        return Job(self.workload, endpoints, self.users, self.seconds)

    @property
    def turns(self) -> Iterator[tuple[int, Target]]:
        """(round, target) in the order of the runs."""
        return ((number, target) for number in range(1, self.rounds + 1) for target in self.targets)

    @property
    def run_estimate(self) -> float:
        """Seconds that one run takes, warm-up and start of the tool included."""
        if self.tool == locust.NAME:
            return self.seconds + locust.WARM_UP + LOCUST_START
        return self.seconds + wrk.WARM_UP + WRK_START

    @property
    def estimate(self) -> float:
        return self.run_estimate * self.rounds * len(self.targets)

    def beside(self, target: Target) -> str:
        """The section, where the target is measured in others too; nothing in the section that is its own."""
        own = HOME.get(target.infrastructure, target.infrastructure)
        return "" if target.compose or target.endpoints or self.section == own else self.section


def estimate(plan: Sequence[Cell]) -> float:
    """Seconds that the plan takes, within some 10 %."""
    starts = 0
    running: set[Target] = set(plan[0].targets) if plan else set()
    for target in {target for cell in plan for target in cell.targets}:
        starts += 1 if target in running else 2  # verified, ended, started again
    return sum(cell.estimate for cell in plan) + CLUSTER_START * starts


def grid(
    tools: Sequence[str],
    workloads: Sequence[Workload],
    users: Sequence[int],
    seconds: int,
    rounds: int,
    targets: Sequence[Target],
    section: str = EMBEDDED,
) -> list[Cell]:
    """Every combination."""
    return [
        Cell(tool, workload, number, seconds, rounds, tuple(targets), section)
        for tool in tools
        for workload in workloads
        for number in users
    ]


_SAME, _RANDOM, _PUT, _GET = (WORKLOADS[name] for name in USUAL)


def standard(tools: Sequence[str], targets: Sequence[Target], section: str = EMBEDDED) -> list[Cell]:
    """The plan of a comparison without flags, for one infrastructure: under six minutes for etcd and five variants.

    Locust alone, where wrk is missing, gets wrk's time.
    """

    def cells(
        tool: str, workloads: Sequence[Workload], users: Sequence[int], seconds: int, rounds: int
    ) -> list[Cell]:
        return grid([tool], workloads, users, seconds, rounds, targets, section)

    if wrk.NAME not in tools:
        plan = cells(locust.NAME, [_SAME, _RANDOM], (96,), 2, 2)
        plan += cells(locust.NAME, [_SAME], (3, 24), 2, 1)
        return plan + cells(locust.NAME, [_PUT, _GET], (96,), 1, 1)
    plan = cells(wrk.NAME, [_SAME, _RANDOM], (96,), 2, 3)
    plan += cells(wrk.NAME, [_SAME, _RANDOM], (3, 24, 384), 1, 2)
    plan += cells(wrk.NAME, [_PUT, _GET], (96,), 1, 2)
    return plan + (cells(locust.NAME, [_SAME], (96,), 1, 1) if locust.NAME in tools else [])


def quick(tools: Sequence[str], targets: Sequence[Target], section: str = EMBEDDED) -> list[Cell]:
    """Under four minutes for etcd and one variant, most of them for the variant's fastest server.

    The slower servers join in the first cell, and are ended after it.
    """
    first = [target for target in targets if not target.name.endswith((GRANIAN, HYPERCORN))]

    def cells(
        tool: str, workloads: Sequence[Workload], users: Sequence[int], seconds: int, rounds: int
    ) -> list[Cell]:
        return grid([tool], workloads, users, seconds, rounds, first, section)

    if wrk.NAME not in tools:
        plan = grid([locust.NAME], [_SAME], (96,), 2, 3, targets, section)
        plan += cells(locust.NAME, [_RANDOM], (96,), 2, 3)
        return plan + cells(locust.NAME, [_SAME, _RANDOM], (3, 24), 2, 2)
    plan = grid([wrk.NAME], [_SAME], (96,), 2, 3, targets, section)
    plan += cells(wrk.NAME, [_RANDOM], (96,), 2, 3)
    plan += cells(wrk.NAME, [_SAME, _RANDOM], (3, 24, 384), 2, 3)
    plan += cells(wrk.NAME, [_PUT, _GET], (96,), 2, 2)
    return plan + (cells(locust.NAME, [_SAME, _RANDOM], (96,), 1, 1) if locust.NAME in tools else [])


def switches(
    tool: str, chains: Sequence[Chain], users: Sequence[int], seconds: int, rounds: int
) -> list[Cell]:
    """For each chain a section of its own, in which its targets take turns at PUTs and at GETs."""
    workloads = [WORKLOADS[name] for name in OPERATIONS.values()]
    cells = [
        grid([tool], workloads, users, seconds, rounds, chain.targets, chain.section) for chain in chains
    ]
    return list(itertools.chain.from_iterable(cells))
