"""The comparison: every cluster verified, then every cell of the plan measured, targets in turn."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from benchmarks.cluster import Cluster
from benchmarks.plan import Cell
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
        self._clusters: dict[Target, Cluster] = {}
        self._stopped: list[Cluster] = []

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
            for cluster in self._stopped:
                cluster.remove()

    def running(self, target: Target) -> Cluster:
        """The target's cluster: started and verified, unless it runs already."""
        if target not in self._clusters:
            cluster = Cluster(target)
            self._clusters[target] = cluster  # before it starts, so that half a cluster is ended too
            cluster.start()
            verify(target.name, cluster.endpoints)
            cluster.settle()
        return self._clusters[target]

    def stop(self, target: Target) -> None:
        cluster = self._clusters.pop(target, None)
        if cluster is not None:
            self._stopped.append(cluster)
            cluster.stop()


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
                preload(cell.workload, fleet.running(target).endpoints)
            for number, target in cell.turns:
                tell(f"{cell.tool} {cell.workload.name}, {cell.users} users: {target.name}", 0)
                run, output = measure(cell, fleet.running(target), number)
                measured.runs.append(run)
                measured.raw.append((run.raw, output))
                tell("", cell.run_estimate)
            still_needed = {target for later in plan[position + 1 :] for target in later.targets}
            for target in set(cell.targets) - still_needed:
                fleet.stop(target)
    return measured


def _verify_all(plan: Sequence[Cell], fleet: Fleet, measured: Measured, tell: Tell) -> None:
    """Before anything is measured; what the first cell does not need is ended again, to leave it the machine."""
    for target in dict.fromkeys(target for cell in plan for target in cell.targets):
        tell(f"starting and verifying {target.name}", 0)
        cluster = fleet.running(target)
        measured.starts[target.name] = cluster.commands or [f"runs at {', '.join(cluster.endpoints)}"]
        measured.versions[target.name] = cluster.version
        if target not in plan[0].targets:
            fleet.stop(target)
        tell("", 3.0)
