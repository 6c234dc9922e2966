"""Results as data: runs as they were measured, the rows that sum them up, and the files that keep both.

Below the output folder: ``<target>/<infrastructure>/<workload>/<tool>-<users>-users-round-<n>.txt`` is the raw
output of a run, ``summary.json`` holds everything else.  Where a target is measured in more than one section (etcd,
beside each infrastructure), the file's name says which.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.statistics import Ratio, median, ratio, spread
from benchmarks.targets import EMBEDDED, YARDSTICK
from benchmarks.workloads import WORKLOADS

FORMAT = 1
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool on one target.  None: cannot be seen (the nodes are not on this machine).

    ``section``: what it stood beside; only runs of one section took turns, and only they are compared.
    ``generator_cpu``: CPUs that the load generator kept busy, ``generator_cpus``: as many as it could.
    ``node_cpu``: CPUs that each node kept busy, ``node_memory_mib``: its memory.  ``others_cpu``: CPUs that the idle
    targets kept busy meanwhile.  ``raw``: file of its output, relative to the output folder.
    """

    tool: str
    workload: str
    users: int
    target: str
    infrastructure: str
    durability: str
    reads: str
    round: int
    requests: int
    seconds: float
    throughput: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    errors: int
    missing: int
    statuses: dict[str, int]
    per_node: dict[str, int]
    cpu_us: float | None
    memory_mib: float | None
    generator_cpu: float
    command: str
    raw: str
    section: str = EMBEDDED
    generator_cpus: float = 1.0
    mean_ms: float = 0.0
    node_cpu: dict[str, float] = field(default_factory=dict)
    node_memory_mib: dict[str, float] = field(default_factory=dict)
    others_cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The rounds of one target in one cell of a section: medians, and ratios to the section's yardstick.

    ``throughput_spread``: half the distance between the extreme rounds, as a share of the median.
    The ratios are None for the yardstick itself and where it was not measured.
    """

    tool: str
    workload: str
    users: int
    target: str
    infrastructure: str
    durability: str
    reads: str
    rounds: int
    throughput: float
    throughput_spread: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    missing: int
    cpu_us: float | None
    memory_mib: float | None
    generator_cpu: float
    section: str
    generator_cpus: float
    node_cpu: dict[str, float]
    node_memory_mib: dict[str, float]
    others_cpu: float | None
    throughput_ratio: Ratio | None = None
    p99_ratio: Ratio | None = None
    cpu_ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything a report shows.  ``starts``: a target's label -> how it was started; ``versions``: what it said."""

    environment: dict[str, str]
    command: str
    runs: list[Run]
    starts: dict[str, list[str]]
    versions: dict[str, str]

    @property
    def rows(self) -> list[Row]:
        return summarise(self.runs)


def summarise(runs: Sequence[Run]) -> list[Row]:
    """A row for each cell and target, in the order in which they were measured first."""
    sections = list(dict.fromkeys(run.section for run in runs))
    cells: dict[Cell, dict[tuple[str, str], list[Run]]] = {}
    for run in runs:
        targets = cells.setdefault((run.section, run.tool, run.workload, run.users), {})
        targets.setdefault((run.target, run.infrastructure), []).append(run)
    rows: list[Row] = []
    for cell in sorted(cells, key=lambda cell: _order(cell, sections)):
        targets = cells[cell]
        yardstick = next((found for (name, _), found in targets.items() if is_yardstick(name)), None)
        rows += [_row(found, yardstick if found is not yardstick else None) for found in targets.values()]
    return rows


def is_yardstick(name: str) -> bool:
    """etcd, as processes or as a deployment."""
    return name in (YARDSTICK, f"{YARDSTICK}-compose")


Cell = tuple[str, str, str, int]  # section, tool, workload, users

_TOOLS = ("wrk", "locust")


def _order(cell: Cell, sections: Sequence[str]) -> tuple[int, int, int, int]:
    section, tool, workload, users = cell
    return sections.index(section), _TOOLS.index(tool), list(WORKLOADS).index(workload), users


def _row(runs: Sequence[Run], yardstick: Sequence[Run] | None) -> Row:
    first = runs[0]

    def middle(name: str) -> float:
        return median([getattr(run, name) for run in runs]) or 0.0

    def beside(name: str) -> Ratio | None:
        if yardstick is None:
            return None
        base = {run.round: getattr(run, name) for run in yardstick}
        return ratio([getattr(run, name) for run in runs], [base.get(run.round) for run in runs])

    return Row(
        first.tool,
        first.workload,
        first.users,
        first.target,
        first.infrastructure,
        first.durability,
        first.reads,
        rounds=len(runs),
        throughput=middle("throughput"),
        throughput_spread=spread([run.throughput for run in runs]) or 0.0,
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        p999_ms=middle("p999_ms"),
        errors=sum(run.errors for run in runs),
        missing=sum(run.missing for run in runs),
        cpu_us=median([run.cpu_us for run in runs]),
        memory_mib=median([run.memory_mib for run in runs]),
        generator_cpu=middle("generator_cpu"),
        section=first.section,
        generator_cpus=first.generator_cpus,
        node_cpu=_of_each_node([run.node_cpu for run in runs]),
        node_memory_mib=_of_each_node([run.node_memory_mib for run in runs]),
        others_cpu=median([run.others_cpu for run in runs]),
        throughput_ratio=beside("throughput"),
        p99_ratio=beside("p99_ms"),
        cpu_ratio=beside("cpu_us"),
    )


def _of_each_node(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each node over the rounds."""
    return {
        node: median([each.get(node) for each in rounds]) or 0.0 for node in (rounds[0] if rounds else {})
    }


def raw_name(tool: str, users: int, number: int, beside: str = "") -> str:
    return f"{tool}-{users:04d}-users{f'-beside-{beside}' if beside else ''}-round-{number}.txt"


def write_raw(output: Path, texts: Iterable[tuple[str, str]]) -> None:
    """Write the raw outputs (file relative to ``output``, text), in place of those of an earlier comparison."""
    for old in _earlier(output):
        old.unlink(missing_ok=True)
    for file, text in texts:
        (output / file).parent.mkdir(parents=True, exist_ok=True)
        (output / file).write_text(text)


def _earlier(output: Path) -> list[Path]:
    """The raw outputs that an earlier summary names; nothing else in the folder is ours to remove."""
    try:
        runs = read_summary(output).runs
    except BenchmarkError:
        return []
    files = [(output / run.raw).resolve() for run in runs]
    return [file for file in files if file.is_relative_to(output.resolve()) and file.suffix == ".txt"]


def write_summary(output: Path, summary: Summary) -> None:
    document = {
        "format": FORMAT,
        "command": summary.command,
        "environment": summary.environment,
        "starts": summary.starts,
        "versions": summary.versions,
        "rows": [_rounded(asdict(row)) for row in summary.rows],
        "runs": [_rounded(asdict(run)) for run in summary.runs],
    }
    (output / SUMMARY).write_text(json.dumps(document, indent=1) + "\n")


def read_summary(output: Path) -> Summary:
    """:raises BenchmarkError: there is none, or it is of another format."""
    file = output / SUMMARY
    try:
        document = json.loads(file.read_text())
        if document["format"] != FORMAT:
            raise BenchmarkError(f"{file} has format {document['format']}; this version reads {FORMAT}")
        runs = [Run(**run) for run in document["runs"]]
        return Summary(
            document["environment"], document["command"], runs, document["starts"], document["versions"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{file} cannot be read: {error}") from error


def _rounded(value: Any) -> Any:
    """Four significant digits after the point are plenty, and keep the file readable."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return value
