"""The comparison: every cluster verified, then every cell of the plan measured, targets in turn."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from benchmarks.cluster import Cluster
from benchmarks.containers import Deployment
from benchmarks.deployed import Deployed
from benchmarks.plan import CLUSTER_START, Cell
from benchmarks.results import Run
from benchmarks.runner import measure
from benchmarks.targets import Target
from benchmarks.verify import preload, verify


@dataclass(slots=True)
class Measured:
    """What a comparison gathers.  ``raw``: (file relative to the output folder, text)."""

    runs: list[Run] = field(default_factory=list)
    raw: list[tuple[str, str]] = field(default_factory=list)
    starts: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


#: Told what goes on: a text, and the seconds of the plan's estimate that are done with it.
Tell = Callable[[str, float], None]


class Fleet:
    """The clusters that run now.  All end with the ``with`` block, whatever ends it."""

    def __init__(self) -> None:
        self._clusters: dict[Target, Deployed] = {}
        self._stopped: list[Deployed] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _uninterrupted():
            for cluster in self._clusters.values():
                cluster.terminate()  # all at once, so that they end side by side
            for target in list(self._clusters):
                self.stop(target)
            self.tidy()

    def running(self, target: Target) -> Deployed:
        """The target's cluster: started and verified, unless it runs already."""
        if target not in self._clusters:
            cluster: Deployed = Deployment(target) if target.compose else Cluster(target)
            self._clusters[target] = cluster  # before it starts, so that half a cluster is ended too
            cluster.start()
            if target.verified:
                for endpoints in target.sharing(cluster.endpoints):
                    verify(target.label, endpoints)
            cluster.settle()
        return self._clusters[target]

    def idle_pids(self, busy: Target) -> list[int]:
        """The processes of all that waits while ``busy`` is measured."""
        waiting = [cluster for target, cluster in self._clusters.items() if target != busy]
        return [pid for cluster in waiting for pids in cluster.pids.values() for pid in pids]

    def stop(self, target: Target) -> None:
        cluster = self._clusters.pop(target, None)
        if cluster is not None:
            self._stopped.append(cluster)
            cluster.stop()

    def tidy(self) -> None:
        """Take away the data of what has ended; while nothing is measured, because it keeps the disk busy."""
        while self._stopped:
            self._stopped.pop().remove()


INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Whoever presses Ctrl-C twice must not be left with half of the nodes; what is done here ends in seconds."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def compare(plan: Sequence[Cell], tell: Tell) -> Measured:
    """Measure ``plan``.

    :raises BenchmarkError: a target does not start, does not answer as etcd does, or ends while it is measured.
    """
    measured = Measured()
    with Fleet() as fleet:
        _verify_all(plan, fleet, measured, tell)
        for position, cell in enumerate(plan):
            for target in cell.targets:
                for endpoints in target.sharing(fleet.running(target).endpoints):
                    preload(cell.workload, endpoints)
            for number, target in cell.turns:
                tell(f"{cell.tool} {cell.workload.name}, {cell.users} users: {target.label}", 0)
                run, output = measure(cell, fleet.running(target), number, fleet.idle_pids(target))
                measured.runs.append(run)
                measured.raw.append((run.raw, output))
                tell("", cell.run_estimate)
            for target in set(cell.targets) - _needed_after(plan, position):
                fleet.stop(target)
            if position + 1 < len(plan) and plan[position + 1].section != cell.section:
                fleet.tidy()
    return measured


def _needed_after(plan: Sequence[Cell], position: int) -> set[Target]:
    """What keeps running after a cell: for the rest of its section, and for the next cell whatever its section."""
    section = plan[position].section
    later = [cell for cell in plan[position + 1 :] if cell.section == section]
    return {target for cell in [*later, *plan[position + 1 : position + 2]] for target in cell.targets}


def _verify_all(plan: Sequence[Cell], fleet: Fleet, measured: Measured, tell: Tell) -> None:
    """Before anything is measured; what the first cell does not need is ended again, to leave it the machine."""
    for target in dict.fromkeys(target for cell in plan for target in cell.targets):
        tell(f"starting and verifying {target.label}", 0)
        cluster = fleet.running(target)
        measured.starts[target.label] = cluster.commands or [f"runs at {', '.join(cluster.endpoints)}"]
        measured.versions[target.label] = cluster.version
        if target not in plan[0].targets:
            fleet.stop(target)
        tell("", CLUSTER_START)
    fleet.tidy()
