"""How numbers and names are written, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Row
from benchmarks.statistics import Ratio
from benchmarks.workloads import WORKLOADS

UNKNOWN = "–"
GENERATOR_LIMIT = (
    0.9  # CPUs; a tool that keeps one CPU this busy may be what is measured (locust has one thread)
)


def count(value: float) -> str:
    """12,345"""
    return f"{value:,.0f}"


def milliseconds(value: float) -> str:
    """Three significant digits: 0.12, 1.23, 12.3, 123"""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def optional(value: float | None) -> str:
    return UNKNOWN if value is None else count(value)


def times(ratio: Ratio | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio.median:.2f}x"


def span(ratio: Ratio | None) -> str:
    """The rounds' extremes; nothing where they are the same, as of a single round."""
    return "" if ratio is None or ratio.low == ratio.high else f"{ratio.low:.2f}–{ratio.high:.2f}"


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def scatter(row: Row) -> str:
    """The spread of the throughput; a single round has none."""
    return percent(row.throughput_spread) if row.rounds > 1 else UNKNOWN


def workload_title(name: str) -> str:
    return WORKLOADS[name].title if name in WORKLOADS else name


def losses(rows: Sequence[Row]) -> list[str]:
    """Where a target does worse than the yardstick, a sentence each."""
    found = []
    for row in rows:
        worse = []
        if row.throughput_ratio and row.throughput_ratio.median < 1:
            worse.append(f"throughput {times(row.throughput_ratio)}")
        if row.p99_ratio and row.p99_ratio.median > 1:
            worse.append(f"p99 {times(row.p99_ratio)}")
        if row.cpu_ratio and row.cpu_ratio.median > 1:
            worse.append(f"CPU per request {times(row.cpu_ratio)}")
        if worse:
            found.append(f"{row.target}, {row.workload}, {row.users} users ({row.tool}): {', '.join(worse)}")
    return found


def at_limit(row: Row) -> bool:
    """Whether the load generator may be what was measured: locust is one thread, wrk is a thread a node."""
    return row.tool == "locust" and row.generator_cpu > GENERATOR_LIMIT
