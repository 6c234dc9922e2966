"""What is measured, and in which order: a list of cells, each run for every target in turn, round after round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.load import locust, wrk
from benchmarks.targets import GRANIAN, HYPERCORN, Target
from benchmarks.workloads import WORKLOADS, Workload

CLUSTER_START = 3.0  # s, an estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """One tool, workload and number of users, for ``targets`` in turn (A B A B), ``rounds`` times."""

    tool: str
    workload: Workload
    users: int
    seconds: int
    rounds: int
    targets: tuple[Target, ...]

    @property
    def turns(self) -> Iterator[tuple[int, Target]]:
        """(round, target) in the order of the runs."""
        return ((number, target) for number in range(1, self.rounds + 1) for target in self.targets)

    @property
    def run_estimate(self) -> float:
        """Seconds that one run takes, warm-up and start of the tool included."""
        if self.tool == locust.NAME:
            return self.seconds + locust.WARM_UP + 1.8
        return self.seconds + wrk.WARM_UP + 0.3

    @property
    def estimate(self) -> float:
        return self.run_estimate * self.rounds * len(self.targets)


def estimate(plan: Sequence[Cell]) -> float:
    """Seconds that the plan takes, within some 10 %."""
    targets = {target for cell in plan for target in cell.targets}
    return sum(cell.estimate for cell in plan) + CLUSTER_START * len(targets)


def grid(
    tools: Sequence[str],
    workloads: Sequence[Workload],
    users: Sequence[int],
    seconds: int,
    rounds: int,
    targets: Sequence[Target],
) -> list[Cell]:
    """Every combination."""
    return [
        Cell(tool, workload, number, seconds, rounds, tuple(targets))
        for tool in tools
        for workload in workloads
        for number in users
    ]


def standard(tools: Sequence[str], targets: Sequence[Target]) -> list[Cell]:
    """The plan of a run without flags: under four minutes, most of them for the fastest server of each target.

    The slower servers join in the first cell, and are ended after it.  Locust alone, where wrk is missing, gets
    wrk's time.
    """
    same, random, put, get = (
        WORKLOADS[name] for name in ("same-data", "random-data", "put-only", "get-only")
    )
    first = [target for target in targets if not target.name.endswith((GRANIAN, HYPERCORN))]
    if wrk.NAME not in tools:
        shown = grid([locust.NAME], [same], (96,), 2, 3, targets)
        shown += grid([locust.NAME], [random], (96,), 2, 3, first)
        return shown + grid([locust.NAME], [same, random], (3, 24), 2, 3, first)
    plan = grid([wrk.NAME], [same], (96,), 2, 3, targets)
    plan += grid([wrk.NAME], [random], (96,), 2, 3, first)
    plan += grid([wrk.NAME], [same, random], (3, 24, 384), 2, 3, first)
    plan += grid([wrk.NAME], [put, get], (96,), 2, 2, first)
    return plan + (grid([locust.NAME], [same, random], (24, 96), 1, 1, first) if locust.NAME in tools else [])
