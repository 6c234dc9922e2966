"""Many seeds, one after the other or on several processes, for a number of seeds or for a time."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain, islice

from common_raft.testing.simulation import Simulation, SimulationFailed

#: Seeds that a process is given at a time: a second's work or less, so that a deadline is met closely.
BLOCK = 20


@dataclass(frozen=True, slots=True)
class Failure:
    seed: int
    step: int
    rule: str
    text: str


@dataclass(slots=True)
class Summary:
    """What some seeds came to."""

    seeds: int = 0
    steps: int = 0
    terms: int = 0
    committed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.terms += other.terms
        self.committed += other.committed
        self.failures += other.failures

    def rules(self) -> list[str]:
        """``Liveness: 2 seeds, first 4, 17`` for each rule that did not hold."""
        lines = []
        for rule, number in Counter(failure.rule for failure in self.failures).most_common():
            found = sorted(failure.seed for failure in self.failures if failure.rule == rule)
            lines.append(f"{rule}: {number} seeds, first {', '.join(map(str, found[:8]))}")
        return lines

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.steps} steps, {self.terms} terms, {self.committed} entries committed, "
            f"{len(self.failures)} seeds with a violation"
        )


def run_block(seeds: Iterable[int], steps: int, nodes: int | None = None) -> Summary:
    summary = Summary()
    for seed in seeds:
        simulation = Simulation(seed, nodes=nodes)
        try:
            simulation.run(steps)
        except SimulationFailed as failure:
            summary.failures.append(Failure(seed, failure.step, failure.rule, str(failure)))
        summary.seeds += 1
        summary.steps += simulation.step
        summary.committed += len(simulation.invariants.history.committed)
        summary.terms += max(process.disk.stored.hard_state.term for process in simulation.processes)
    return summary


def _blocks(seeds: Iterable[int], seconds: float | None) -> Iterator[list[int]]:
    end = None if seconds is None else time.monotonic() + seconds
    remaining = iter(seeds)
    while end is None or time.monotonic() < end:
        block = list(islice(remaining, BLOCK))
        if not block:
            return
        yield block


def run_seeds(
    seeds: Iterable[int],
    steps: int,
    *,
    nodes: int | None = None,
    jobs: int = 1,
    seconds: float | None = None,
    progress: Callable[[Summary, Summary], object] | None = None,
) -> Summary:
    """Runs ``seeds``, which may be endless, until they end or ``seconds`` have passed.

    ``jobs`` processes share them; one job is this process itself, in which the core may have been patched.
    ``progress`` is called with each block's summary and the one so far.  When it is interrupted (KeyboardInterrupt)
    the summary so far is returned.
    """
    total = Summary()
    blocks = _blocks(seeds, seconds)
    done = _run_here(blocks, steps, nodes) if jobs == 1 else _run_on_processes(blocks, steps, nodes, jobs)
    try:
        for block in done:
            total.add(block)
            if progress is not None:
                progress(block, total)
    except KeyboardInterrupt:
        pass
    return total


def _run_here(blocks: Iterator[list[int]], steps: int, nodes: int | None) -> Iterator[Summary]:
    for block in blocks:
        yield run_block(block, steps, nodes)


def _run_on_processes(
    blocks: Iterator[list[int]], steps: int, nodes: int | None, jobs: int
) -> Iterator[Summary]:
    """A block for each process, and one more each, so that none waits for its next."""
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        under_way: set[Future[Summary]] = set()
        try:
            for block in chain(blocks, [[]]):
                if block:
                    under_way.add(pool.submit(run_block, block, steps, nodes))
                while under_way and (len(under_way) >= 2 * jobs or not block):
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
