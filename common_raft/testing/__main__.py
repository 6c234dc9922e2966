"""Runs simulations: ``python -m common_raft.testing --seed 17 --trace`` or ``--seeds 0:1000``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from common_raft.testing.simulation import Simulation, SimulationFailed
from common_raft.testing.trace import Trace


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
    parser.add_argument(
        "--nodes", type=_positive, help="size of the cluster (default: the seed's choice of 3 or 5)"
    )
    parser.add_argument("--steps", type=_positive, default=1000, help="steps with faults (default: 1000)")
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


def _run_many(options: argparse.Namespace) -> int:
    failures: list[SimulationFailed] = []
    steps = committed = terms = 0
    started = time.monotonic()
    for seed in options.seeds:
        simulation = Simulation(seed, nodes=options.nodes)
        try:
            simulation.run(options.steps)
        except SimulationFailed as failure:
            failures.append(failure)
        steps += simulation.step
        committed += len(simulation.invariants.history.committed)
        terms += max(process.disk.stored.hard_state.term for process in simulation.processes)
    if failures:
        print(failures[0])
        print()
    for rule, number in Counter(failure.rule for failure in failures).most_common():
        found = [failure.seed for failure in failures if failure.rule == rule]
        print(f"{rule}: {number} seeds, first {', '.join(map(str, found[:8]))}")
    seconds = time.monotonic() - started
    print(
        f"{len(options.seeds)} seeds, {steps} steps, {terms} terms, {committed} entries committed, "
        f"{len(failures)} seeds with a violation; {seconds:.1f} s"
    )
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        return _run_one(options) if options.seed is not None else _run_many(options)
    except BrokenPipeError:  # piped into head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
