"""How numbers and names are written, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import attribution
from benchmarks.results import Row
from benchmarks.statistics import Ratio
from benchmarks.targets import EMBEDDED, INDEPENDENT, INFRASTRUCTURES, LINEARIZABLE, UNSAFE
from benchmarks.workloads import WORKLOADS

UNKNOWN = "–"
GENERATOR_LIMIT = 0.9  # of the CPUs that it can use: a tool that keeps so much busy may be what is measured
FEW = 3  # cells that are named; more are counted

SECTIONS = {
    EMBEDDED: "Embedded: three nodes, Raft inside each service",
    INDEPENDENT: "Independent: three Raft nodes, each driving its service over HTTP",
    LINEARIZABLE: "Standalone, linearizable: one service without Raft, operations one after another",
    UNSAFE: "Standalone, unsafe: one service without Raft, nothing between operations",
    "compose": "Deployments by compose",
}


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


def is_chain(section: str) -> bool:
    """Whether its targets are one service with ever fewer layers, and not rivals."""
    return section.startswith(attribution.SECTION)


def section_title(name: str) -> str:
    if is_chain(name):
        return f"Layers of {name.removeprefix(attribution.SECTION)}, one taken away after another"
    return SECTIONS.get(name, name)


def target_name(row: Row) -> str:
    """A target's name, with its infrastructure where a section has more than one."""
    return row.target if row.section in INFRASTRUCTURES else f"{row.target}, {row.infrastructure}"


def of_nodes(values: Sequence[float], scale: float = 1.0) -> str:
    """A figure of each node, in the order of the nodes."""
    return " ".join(count(value * scale) for value in values) or UNKNOWN


def losses(rows: Sequence[Row]) -> list[str]:
    """Where a target does worse than the yardstick: a sentence for each target, section and tool that does."""
    found = []
    for section, tool, target in dict.fromkeys((row.section, row.tool, target_name(row)) for row in rows):
        of_target = [
            row
            for row in rows
            if (row.section, row.tool, target_name(row)) == (section, tool, target) and row.throughput_ratio
        ]
        worse = [
            _worse("throughput", [(row, row.throughput_ratio) for row in of_target], less=True),
            _worse("p99", [(row, row.p99_ratio) for row in of_target], less=False),
            _worse("CPU per request", [(row, row.cpu_ratio) for row in of_target], less=False),
        ]
        if any(worse):
            place = tool if section == EMBEDDED else f"{section}, {tool}"
            found.append(f"{target} ({place}): {'; '.join(filter(None, worse))}")
    return found


def _worse(name: str, cells: Sequence[tuple[Row, Ratio | None]], *, less: bool) -> str:
    """``throughput 0.80x to 0.90x in same-data 3, put-only 24``; nothing where it is never worse."""
    lost = [
        (row, ratio) for row, ratio in cells if ratio and (ratio.median < 1 if less else ratio.median > 1)
    ]
    if not lost:
        return ""
    low, high = (f"{pick(ratio.median for _, ratio in lost):.2f}x" for pick in (min, max))
    where = ", ".join(f"{row.workload} {row.users}" for row, _ in lost)
    if len(lost) > FEW:
        where = f"{len(lost)} of {len(cells)} cells"
    return f"{name} {low if low == high else f'{low} to {high}'} in {where}"


def at_limit(row: Row) -> str:
    """Why the load generator may be what was measured; nothing where it is not."""
    if row.generator_cpu > GENERATOR_LIMIT * row.generator_cpus:
        return f"it kept {row.generator_cpu:.1f} of the {row.generator_cpus:.0f} CPUs busy that it can use"
    nodes = None if row.cpu_us is None else row.cpu_us * row.throughput / 1e6
    if nodes is not None and row.generator_cpu > nodes:
        return f"it used more CPU ({row.generator_cpu:.1f}) than all nodes ({nodes:.1f})"
    return ""


def limited(rows: Sequence[Row]) -> list[str]:
    """The rows in which the load generator may be what was measured: a sentence for each section, tool and target."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if at_limit(row):
            found.setdefault((row.section, row.tool, target_name(row)), []).append(row)
    return [
        f"{target} ({tool if section == EMBEDDED else f'{section}, {tool}'}): "
        + ", ".join(f"{row.workload} {row.users}" for row in some[:FEW])
        + (f" and {len(some) - FEW} more" if len(some) > FEW else "")
        + f"; there {at_limit(some[0])}"
        for (section, tool, target), some in found.items()
    ]
