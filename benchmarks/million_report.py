"""The results of `million`, as a file for programs and as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkError
from benchmarks.million import CatchUp, Found, Size, Waits
from benchmarks.results import SUMMARY

TABLE = "table.md"

#: What a row says, and how it is found; what was not measured is left out.
ROWS: tuple[tuple[str, Callable[[Found], str]], ...] = (
    ("filling, s", lambda found: _known(found.fill)),
    ("restart to the right answer, s: median", lambda found: _known(found.restart, ".2f")),
    ("all of them", lambda found: ", ".join(f"{each:.2f}" for each in found.restarts) or "-"),
    ("resident memory, empty node, MiB", lambda found: f"{found.empty / 2**20:.0f}"),
    ("with the keys, MiB", lambda found: _known(found.full and found.full / 2**20)),
    ("bytes a key", lambda found: _known(found.bytes_a_key)),
    ("snapshots under load, and how long each took, s", lambda found: _snapshots(found.snapshots)),
    ("p99.9 without a snapshot, ms", lambda found: _wait(found, "without", lambda waits: waits.p999)),
    ("p99.9 during snapshots, ms", lambda found: _wait(found, "during", lambda waits: waits.p999)),
    ("ratio", lambda found: _ratio(found)),
    ("longest without, ms", lambda found: _wait(found, "without", lambda waits: waits.longest)),
    ("longest during, ms", lambda found: _wait(found, "during", lambda waits: waits.longest)),
    ("requests/s, all nodes", lambda found: _caught(found, lambda each: f"{each.before:.0f}")),
    ("requests/s, one node down", lambda found: _caught(found, lambda each: f"{each.without:.0f}")),
    ("requests/s while it catches up", lambda found: _caught(found, lambda each: f"{each.during:.0f}")),
    ("share of all nodes'", lambda found: _caught(found, lambda each: f"{each.during / each.before:.0%}")),
    ("until it is level, s", lambda found: _caught(found, lambda each: f"{each.seconds:.1f}")),
    ("snapshots that came to it", lambda found: _caught(found, lambda each: str(each.received))),
    ("answers that were errors", lambda found: str(found.errors)),
)


def write(output: Path, facts: dict[str, str], command: str, found: Sequence[Found]) -> None:
    """:raises BenchmarkError: the results cannot be written."""
    summary: dict[str, Any] = {
        "command": command,
        "environment": facts,
        "found": [
            {**asdict(each), "restart": each.restart, "bytes_a_key": each.bytes_a_key} for each in found
        ],
    }
    try:
        (output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
        (output / TABLE).write_text(_markdown(facts, command, found))
    except OSError as error:
        raise BenchmarkError(f"the results cannot be written: {error}") from error


def show(found: Sequence[Found], size: Size, console: Console) -> None:
    table = Table(title=f"{size.keys} keys, values of 100 bytes, {size.users} users")
    table.add_column("")
    for each in found:
        table.add_column(each.target, justify="right")
    for title, cell in ROWS:
        table.add_row(title, *map(cell, found))
    console.print(table)


def _markdown(facts: dict[str, str], command: str, found: Sequence[Found]) -> str:
    head = ["", *(each.target for each in found)]
    lines = [head, ["---"] * len(head), *([title, *map(cell, found)] for title, cell in ROWS)]
    told = [f"    {command}", "", *(" ".join(["|", " | ".join(line), "|"]) for line in lines), ""]
    told += [f"- {name}: {fact}" for name, fact in facts.items()]
    return "\n".join(told) + "\n"


def _known(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(value, form)


def _snapshots(took: Sequence[float]) -> str:
    return f"{len(took)}: {min(took):.2f} to {max(took):.2f}" if took else "-"


def _wait(found: Found, when: str, share: Callable[[Waits], float]) -> str:
    waits = found.pauses.get(when)
    return f"{share(waits) * 1000:.1f}" if waits else "-"


def _ratio(found: Found) -> str:
    if len(found.pauses) < 2:
        return "-"
    return f"{found.pauses['during'].p999 / found.pauses['without'].p999:.2f}"


def _caught(found: Found, cell: Callable[[CatchUp], str]) -> str:
    return cell(found.catch_up) if found.catch_up else "-"
