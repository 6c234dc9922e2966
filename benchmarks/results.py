"""Results as data: runs as they were measured, the rows that sum them up, and the files that keep both.

Below the output folder: ``<target>/<infrastructure>/<workload>/<tool>-<users>-users-round-<n>.txt`` is the raw
output of a run, ``summary.json`` holds everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.statistics import Ratio, median, ratio, spread
from benchmarks.targets import YARDSTICK

FORMAT = 1
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool on one target.  None: cannot be seen (the nodes are not on this machine).

    ``generator_cpu``: CPUs that the load generator kept busy.  ``raw``: file of its output, relative to the
    output folder.
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


@dataclass(frozen=True, slots=True)
class Row:
    """The rounds of one target in one cell: medians, and ratios to the yardstick.

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
    throughput_ratio: Ratio | None = None
    p99_ratio: Ratio | None = None
    cpu_ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything a report shows.  ``targets``: name -> what is known about it; ``commands``: how it was started."""

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
    cells: dict[tuple[str, str, int], dict[tuple[str, str], list[Run]]] = {}
    for run in runs:
        targets = cells.setdefault((run.tool, run.workload, run.users), {})
        targets.setdefault((run.target, run.infrastructure), []).append(run)
    rows: list[Row] = []
    for _, targets in sorted(cells.items(), key=_order):
        yardstick = next((found for (name, _), found in targets.items() if name == YARDSTICK), None)
        rows += [_row(found, yardstick if found is not yardstick else None) for found in targets.values()]
    return rows


_TOOLS = ("wrk", "locust")
_WORKLOADS = ("same-data", "random-data", "put-only", "get-only")


def _order(cell: tuple[tuple[str, str, int], object]) -> tuple[int, int, int]:
    tool, workload, users = cell[0]
    return _TOOLS.index(tool), _WORKLOADS.index(workload), users


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
        throughput_ratio=beside("throughput"),
        p99_ratio=beside("p99_ms"),
        cpu_ratio=beside("cpu_us"),
    )


def raw_name(tool: str, users: int, number: int) -> str:
    return f"{tool}-{users:04d}-users-round-{number}.txt"


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
