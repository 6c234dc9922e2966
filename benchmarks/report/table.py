"""The table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.report import words
from benchmarks.results import Row

LEGEND = (
    "Medians of the rounds. ±: half the distance between the extreme rounds. Ratios to etcd: median of the rounds' "
    "ratios. CPU us: user + system time of all nodes of the target, a request; nodes' CPU %, MiB: each node's CPU "
    "and RSS. 404: right answers where another user's DELETE came first. load CPU: what the load generator used, "
    "100 % is one CPU; ! where it may be what was measured."
)


@dataclass(frozen=True, slots=True)
class Column:
    """``essential``: shown in a narrow terminal too."""

    heading: str
    text: Callable[[Row], str]
    essential: bool = True


def _load_cpu(row: Row) -> str:
    return words.percent(row.generator_cpu) + (" !" if words.at_limit(row) else "")


COLUMNS = (
    Column("req/s", lambda row: words.count(row.throughput)),
    Column("±", words.scatter, essential=False),
    Column("ratio", lambda row: words.times(row.throughput_ratio)),
    Column("p50 ms", lambda row: words.milliseconds(row.p50_ms), essential=False),
    Column("p99 ms", lambda row: words.milliseconds(row.p99_ms)),
    Column("ratio", lambda row: words.times(row.p99_ratio)),
    Column("p99.9 ms", lambda row: words.milliseconds(row.p999_ms), essential=False),
    Column("errors", lambda row: f"[red]{words.count(row.errors)}[/red]" if row.errors else "0"),
    Column("404", lambda row: words.count(row.missing) if row.missing else "", essential=False),
    Column("CPU us", lambda row: words.optional(row.cpu_us)),
    Column("ratio", lambda row: words.times(row.cpu_ratio)),
    Column("nodes' CPU %", lambda row: words.of_nodes([*row.node_cpu.values()], 100), essential=False),
    Column("MiB", lambda row: words.of_nodes([*row.node_memory_mib.values()]), essential=False),
    Column("load CPU", _load_cpu, essential=False),
)


def show(rows: Sequence[Row], console: Console) -> None:
    for (_, tool), of_tool in groupby(rows, key=lambda row: (row.section, row.tool)):
        found = list(of_tool)
        table = _table(tool, found, COLUMNS)
        if _width(table, console) > console.width:
            table = _table(tool, found, [column for column in COLUMNS if column.essential])
        console.print(table)
    console.print(LEGEND, style="dim")


def _width(table: Table, console: Console) -> int:
    """What the table would take in a terminal without end."""
    return console.measure(table, options=console.options.update(width=1_000)).maximum


def _table(tool: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(title=_title(tool, rows), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("workload", no_wrap=True)
    table.add_column("users", justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    before: Row | None = None
    for row in rows:
        same_workload = before is not None and row.workload == before.workload
        same_cell = before is not None and same_workload and row.users == before.users
        if before is not None and not same_workload:
            table.add_section()
        table.add_row(
            "" if same_workload else row.workload,
            "" if same_cell else words.count(row.users),
            words.target_name(row),
            *(column.text(row) for column in columns),
        )
        before = row
    return table


def _title(tool: str, rows: Sequence[Row]) -> str:
    """Section, durability and read mode: once where all rows share them, else by target."""
    title = f"{words.section_title(rows[0].section)}\nLoad from {tool}"
    modes = {(row.durability, row.reads) for row in rows}
    if len(modes) == 1:
        durability, reads = modes.pop()
        return f"{title}; durability {durability}, reads {reads} in all rows"
    by_mode: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        names = by_mode.setdefault((row.durability, row.reads), [])
        if words.target_name(row) not in names:
            names.append(words.target_name(row))
    told = [f"{durability}/{reads}: {', '.join(names)}" for (durability, reads), names in by_mode.items()]
    return f"{title}; durability/reads {'; '.join(told)}"
