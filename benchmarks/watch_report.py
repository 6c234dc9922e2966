"""The results of `watch`, as a file for programs and as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkError
from benchmarks.results import SUMMARY
from benchmarks.statistics import Ratio, median, ratio
from benchmarks.targets import YARDSTICK
from benchmarks.watch import Heard, Size

TABLE = "table.md"
COLUMNS = (
    "watchers",
    "target",
    "p50, ms",
    "p99, ms",
    "longest, ms",
    "p99, least to most",
    "p99 to etcd's",
)


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a target's writes, in seconds; ``low``, ``high`` and ``ratio``, to etcd's, are of p99.

    A ratio is that of two writes at the same place of the same round.
    """

    kind: str
    target: str
    p50: float
    p99: float
    longest: float
    low: float
    high: float
    ratio: Ratio | None

    @property
    def cells(self) -> list[str]:
        times = [f"{each * 1000:.1f}" for each in (self.p50, self.p99, self.longest)]
        spread = f"{self.low * 1000:.1f} to {self.high * 1000:.1f}"
        return [self.kind, self.target, *times, spread, f"{self.ratio.median:.2f}" if self.ratio else "-"]


def rows(found: Sequence[Heard]) -> list[Row]:
    """For each kind of watcher and each target, in the order in which they were measured."""
    return [_row(found, *each) for each in dict.fromkeys((each.kind, each.target) for each in found)]


def _row(found: Sequence[Heard], kind: str, target: str) -> Row:
    own = [each for each in found if (each.kind, each.target) == (kind, target)]
    yardstick = [each.p99 for each in found if (each.kind, each.target) == (kind, YARDSTICK)]
    p99s = [each.p99 for each in own]
    p50, p99, longest = (
        median(values) or 0.0 for values in ([each.p50 for each in own], p99s, [each.longest for each in own])
    )
    told = ratio(p99s, yardstick) if target != YARDSTICK else None
    return Row(kind, target, p50, p99, longest, min(p99s), max(p99s), told)


def write(
    output: Path,
    facts: Mapping[str, str],
    command: str,
    size: Size,
    found: Sequence[Heard],
    starts: Mapping[str, list[str]],
) -> None:
    """:raises BenchmarkError: the results cannot be written."""
    summary = {
        "command": command,
        "environment": facts,
        "size": asdict(size),
        "starts": starts,
        "rows": [asdict(each) for each in rows(found)],
        "writes": [asdict(each) for each in found],
    }
    try:
        (output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
        (output / TABLE).write_text(_markdown(facts, command, size, found))
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def show(found: Sequence[Heard], size: Size, console: Console) -> None:
    table = Table(title=_title(size))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right")
    for row in rows(found):
        table.add_row(*row.cells)
    console.print(table)


def _title(size: Size) -> str:
    return (
        f"From a PUT until it is heard of: {size.watchers} watchers of its key, "
        f"{size.events} PUTs in each of {size.rounds} rounds"
    )


def _markdown(facts: Mapping[str, str], command: str, size: Size, found: Sequence[Heard]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells for row in rows(found))]
    told = [f"    {command}", "", f"{_title(size)}. Medians of the PUTs.", ""]
    told += [*(" ".join(["|", " | ".join(line), "|"]) for line in lines), ""]
    told += [f"- {name}: {fact}" for name, fact in facts.items()]
    return "\n".join(told) + "\n"
