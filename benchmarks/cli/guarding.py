"""The command that fails where the lead over etcd is smaller than it must be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import environment, guard, guard_report
from benchmarks.cli import running
from benchmarks.cli.arguments import percent
from benchmarks.cli.flags import Commands, add_number, add_output
from benchmarks.compare import Measured
from benchmarks.errors import BenchmarkError
from benchmarks.limits import raise_file_limit
from benchmarks.load import wrk
from benchmarks.results import Summary, write_raw, write_summary

ROUNDS = 5
SECONDS = 2


def add_guard(commands: Commands) -> None:
    parser = commands.add_parser(
        "guard",
        help="fail where the lead over etcd is smaller than it must be",
        description=f"Measure {guard.GUARDED} beside etcd with wrk, and end with status 1 if a cell's ratios to etcd "
        "miss their bounds. A cell that does is measured once more, with twice the rounds, before it counts. About "
        "three minutes.",
    )
    add_number(parser, "--rounds", ROUNDS)
    add_number(parser, "--seconds", SECONDS, metavar="S")
    parser.add_argument(
        "--slack",
        type=percent,
        default=0,
        metavar="PERCENT",
        help="loosen all bounds by so much, where other work disturbs; 0 unless given",
    )
    parser.add_argument(
        "--bounds",
        type=Path,
        default=guard.BOUNDS,
        metavar="FILE",
        help=f"benchmarks/{guard.BOUNDS.name} unless given",
    )
    add_output(parser, "stats/guard", run_guard)


def run_guard(options: argparse.Namespace, console: Console) -> int:
    bounds = [replace(bound, slack=options.slack) for bound in guard.read_bounds(options.bounds)]
    if not wrk.installed():
        raise BenchmarkError(wrk.MISSING)
    running.check_writable(options.output)
    facts = environment.describe()
    measured = _measured(bounds, options, facts, console)
    summary = Summary(facts, running.command(), measured.runs, measured.starts, measured.versions)
    with running.writing():
        write_raw(options.output, measured.raw)
        write_summary(options.output, summary)
    verdicts = guard.judge(bounds, measured.runs)
    guard_report.show(verdicts, options.slack, console)
    broken = [line for verdict in verdicts for line in verdict.broken]
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


def _measured(
    bounds: Sequence[guard.Bound], options: argparse.Namespace, facts: dict[str, str], console: Console
) -> Measured:
    """Once, and what does not hold once more: noise would have to come twice."""
    targets = guard.targets()

    def measure(some: Sequence[guard.Bound], rounds: int) -> Measured:
        cells = guard.cells(some, targets, rounds, options.seconds)
        raise_file_limit(cells)
        return running.measure(cells, facts, console)

    first = measure(bounds, options.rounds)
    doubtful = guard.doubtful(bounds, first.runs)
    if not doubtful:
        return first
    told = ", ".join(f"{bound.workload} of {bound.users} users" for bound in doubtful)
    console.print(f"Once more, with twice the rounds, what may have been disturbed: {told}")
    return guard.replaced(first, measure(doubtful, 2 * options.rounds))
