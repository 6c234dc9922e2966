"""The verdicts of `guard`, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.guard import GUARDED, Verdict
from benchmarks.report import words
from benchmarks.targets import YARDSTICK

COLUMNS = (
    "workload",
    "users",
    "throughput",
    "low–high",
    "at least",
    "CPU/request",
    "low–high",
    "at most",
    "",
)


def show(verdicts: Sequence[Verdict], slack: int, console: Console) -> None:
    loosened = f"; bounds loosened by {slack} %" if slack else ""
    table = Table(title=f"{GUARDED} to {YARDSTICK}: median of the rounds' ratios{loosened}")
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 0 < place < len(COLUMNS) - 1 else "left", no_wrap=True)
    for verdict in verdicts:
        table.add_row(*_texts(verdict))
    console.print(table)


def _texts(verdict: Verdict) -> list[str]:
    bound = verdict.bound
    return [
        bound.workload,
        str(bound.users),
        words.times(verdict.throughput),
        words.span(verdict.throughput),
        f"{bound.least_throughput:.2f}",
        words.times(verdict.cpu),
        words.span(verdict.cpu),
        f"{bound.most_cpu:.2f}",
        "[red]too slow[/red]" if verdict.broken else "ok",
    ]
