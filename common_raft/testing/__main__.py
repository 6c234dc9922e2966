"""Runs simulations: ``python -m common_raft.testing --seed 17 --trace``, ``--seeds 0:1000`` or ``--seconds 600``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from itertools import count

from common_raft.testing.runner import Summary, run_seeds
from common_raft.testing.simulation import Simulation, SimulationFailed
from common_raft.testing.trace import Trace

#: A run without an end says how far it is about so often, in seconds.
REPORT_INTERVAL = 30.0


def _seed_range(text: str) -> range:
    first, _, end = text.partition(":")
    try:
        seeds = range(int(first), int(end))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range A:B of seeds, such as 0:1000") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"the range {text!r} of seeds is empty: give A:B with A below B")
    return seeds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m common_raft.testing",
        description="Runs a cluster of Raft cores in a simulation and checks its invariants after every step.",
    )
    seeds = parser.add_mutually_exclusive_group(required=True)
    seeds.add_argument("--seed", type=int, help="run this one seed")
    seeds.add_argument("--seeds", type=_seed_range, metavar="A:B", help="run seeds A to B-1, print a summary")
    seeds.add_argument(
        "--seconds", type=_positive, metavar="N", help="run one seed after the other for so long"
    )
    seeds.add_argument(
        "--forever", action="store_true", help="run one seed after the other until interrupted"
    )
    parser.add_argument(
        "--first-seed",
        type=int,
        help="where --seconds and --forever begin (default: seeds that the time of day picks, and that are printed)",
    )
    parser.add_argument(
        "--nodes", type=_positive, help="size of the cluster (default: the seed's choice of 3 or 5)"
    )
    parser.add_argument("--steps", type=_positive, default=1000, help="steps with faults (default: 1000)")
    parser.add_argument(
        "--jobs", type=_positive, default=1, help="processes that share the seeds (default: 1)"
    )
    parser.add_argument("--trace", action="store_true", help="print every step as it happens (with --seed)")
    return parser.parse_args(arguments)


def _run_one(options: argparse.Namespace) -> int:
    trace = Trace(live=print) if options.trace else Trace()
    simulation = Simulation(options.seed, nodes=options.nodes, trace=trace)
    try:
        simulation.run(options.steps)
    except SimulationFailed as failure:
        print(failure)
        return 1
    committed = len(simulation.invariants.history.committed)
    print(f"seed {options.seed}: {simulation.step} steps, {committed} entries committed, no violation")
    return 0


class _Progress:
    """Prints the first failure of each rule in full as soon as it is found, and now and then how far it is."""

    def __init__(self, *, talkative: bool) -> None:
        self._talkative = talkative
        self._shown: set[str] = set()
        self._next_report = time.monotonic() + REPORT_INTERVAL

    def __call__(self, block: Summary, total: Summary) -> None:
        for failure in block.failures:
            if failure.rule not in self._shown:
                self._shown.add(failure.rule)
                print(failure.text, end="\n\n", flush=True)
        if self._talkative and time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + REPORT_INTERVAL
            print(total, flush=True)


def _run_many(options: argparse.Namespace) -> int:
    endless = options.seeds is None
    if endless:
        # A long run should not go over the seeds of the last one again.
        first = time.time_ns() // 1_000_000_000 * 10_000 if options.first_seed is None else options.first_seed
        print(f"seeds from {first} on", flush=True)
    seeds = count(first) if endless else options.seeds
    started = time.monotonic()
    total = run_seeds(
        seeds,
        options.steps,
        nodes=options.nodes,
        jobs=options.jobs,
        seconds=options.seconds,
        progress=_Progress(talkative=endless),
    )
    for line in total.rules():
        print(line)
    print(f"{total}; {time.monotonic() - started:.1f} s")
    return 1 if total.failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        return _run_one(options) if options.seed is not None else _run_many(options)
    except BrokenPipeError:  # piped into head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
