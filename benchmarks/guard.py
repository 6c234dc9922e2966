"""Whether v2.reactive is still as far ahead of etcd as ``guard.toml`` asks: reading the bounds, and judging runs.

Only ratios to etcd are judged, the median of the rounds' (see ``statistics.Ratio``): a slow or busy machine slows
both down, and a single bad round decides nothing.  Nothing here measures (see ``compare``).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare import Measured
from benchmarks.errors import BenchmarkError
from benchmarks.load import wrk
from benchmarks.plan import Cell
from benchmarks.results import Row, Run, is_yardstick, summarise
from benchmarks.statistics import Ratio, median
from benchmarks.targets import EMBEDDED, YARDSTICK, Target, resolve
from benchmarks.workloads import WORKLOADS

GUARDED = "v2.reactive"
BOUNDS = Path(__file__).with_name("guard.toml")
CELL = "cell"  # the tables' name
MOST_USERS = 100_000


@dataclass(frozen=True, slots=True)
class Bound:
    """What a cell must hold, as ratios to etcd's: ``throughput`` at least, ``cpu`` of a request at most.

    ``slack``: percent by which both are loosened.
    """

    workload: str
    users: int
    throughput: float
    cpu: float
    slack: int = 0

    @property
    def least_throughput(self) -> float:
        return self.throughput * (1 - self.slack / 100)

    @property
    def most_cpu(self) -> float:
        return self.cpu * (1 + self.slack / 100)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cell as it was measured.  The ratios are None where no round has both figures.

    ``errors``: of a round, the median: a disk that is stuck for one round is noise.
    """

    bound: Bound
    throughput: Ratio | None
    cpu: Ratio | None
    errors: float

    @property
    def broken(self) -> list[str]:
        """A line for each bound that does not hold."""
        cell = f"{self.bound.workload}, {self.bound.users} users"
        return [f"{cell}: {line}" for line in (self._too_slow, self._too_costly, self._wrong) if line]

    @property
    def _too_slow(self) -> str:
        bound = self.bound
        if self.throughput is None:
            return f"throughput cannot be judged: {YARDSTICK} answered nothing in any round"
        if self.throughput.median >= bound.least_throughput:
            return ""
        return _missed("throughput", self.throughput, bound.least_throughput, bound.throughput, bound.slack)

    @property
    def _too_costly(self) -> str:
        bound = self.bound
        if self.cpu is None:
            return "CPU per request cannot be judged: no round has that of both"
        if self.cpu.median <= bound.most_cpu:
            return ""
        return _missed("CPU per request", self.cpu, bound.most_cpu, bound.cpu, bound.slack)

    @property
    def _wrong(self) -> str:
        return f"{self.errors:.0f} errors in a round of {GUARDED}" if self.errors else ""


def _missed(what: str, ratio: Ratio, bound: float, strict: float, slack: int) -> str:
    off = ratio.median / bound - 1
    told = f"{abs(off):.1%}".replace("%", " %")
    loosened = f" ({strict:.2f}, loosened by {slack} %)" if slack else ""
    return (
        f"{what} is {ratio.median:.3f} times {YARDSTICK}'s, "
        f"{told} {'above' if off > 0 else 'below'} the bound of {bound:.2f}{loosened}"
    )


def targets() -> tuple[Target, ...]:
    """:raises BenchmarkError: the variant is not in this version."""
    return (*resolve(YARDSTICK, EMBEDDED), *resolve(GUARDED, EMBEDDED))


def cells(bounds: Sequence[Bound], measured: Sequence[Target], rounds: int, seconds: int) -> list[Cell]:
    return [
        Cell(wrk.NAME, WORKLOADS[bound.workload], bound.users, seconds, rounds, tuple(measured))
        for bound in bounds
    ]


def judge(bounds: Sequence[Bound], runs: Sequence[Run]) -> list[Verdict]:
    """A verdict for each bound; ``runs`` are those of its cell, and of others."""
    own = [run for run in runs if not is_yardstick(run.target)]
    rows = {(row.workload, row.users): row for row in summarise(runs) if not is_yardstick(row.target)}
    return [_verdict(bound, rows[bound.workload, bound.users], own) for bound in bounds]


def _verdict(bound: Bound, row: Row, runs: Sequence[Run]) -> Verdict:
    errors = median([run.errors for run in runs if _cell_of(run) == (bound.workload, bound.users)])
    return Verdict(bound, row.throughput_ratio, row.cpu_ratio, errors or 0.0)


def doubtful(bounds: Sequence[Bound], runs: Sequence[Run]) -> list[Bound]:
    """Those that do not hold, and deserve a second look before they are called broken."""
    return [verdict.bound for verdict in judge(bounds, runs) if verdict.broken]


def replaced(first: Measured, second: Measured) -> Measured:
    """``first``, with the cells that were measured again as ``second`` has them."""
    again = {_cell_of(run) for run in second.runs}
    kept = [run for run in first.runs if _cell_of(run) not in again]
    outdated = {run.raw for run in first.runs if _cell_of(run) in again}
    return Measured(
        [*kept, *second.runs],
        [*(each for each in first.raw if each[0] not in outdated), *second.raw],
        first.starts | second.starts,
        first.versions | second.versions,
    )


def _cell_of(run: Run) -> tuple[str, int]:
    return run.workload, run.users


def read_bounds(file: Path) -> list[Bound]:
    """The bounds of the tables ``[[cell]]`` in ``file``, in its order.

    :raises BenchmarkError: it cannot be read, or holds something else.
    """
    bounds: dict[tuple[str, int], Bound] = {}
    for place, table in enumerate(_tables(file), start=1):
        bound = _bound(f"{file}, [[{CELL}]] {place}", table)
        if (bound.workload, bound.users) in bounds:
            raise BenchmarkError(
                f"{file}, [[{CELL}]] {place}: {bound.workload} of {bound.users} users is there already; "
                "leave one of the two out"
            )
        bounds[bound.workload, bound.users] = bound
    return list(bounds.values())


def _tables(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open("rb") as opened:
            document = tomllib.load(opened)
    except OSError as error:
        raise BenchmarkError(
            f"{file} cannot be read: {error.strerror}; name a file of bounds with --bounds"
        ) from error
    except ValueError as error:
        raise BenchmarkError(f"{file} is not TOML: {error}; {BOUNDS.name} shows the form") from error
    for name in document:
        if name != CELL:
            raise BenchmarkError(f"{file}: unknown key {name!r}; there are only tables [[{CELL}]]")
    found = document.get(CELL)
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise BenchmarkError(f"{file} has no tables [[{CELL}]], one for each cell to guard: write one")
    return found


def _bound(place: str, table: dict[str, Any]) -> Bound:
    for key in table:
        if key not in KEYS:
            raise BenchmarkError(f"{place}: unknown key {key!r}; there are {', '.join(KEYS)}")
    for key, (good, wanted) in KEYS.items():
        if key not in table:
            raise BenchmarkError(f"{place}: {key} is missing; write {wanted}")
        if not good(table[key]):
            raise BenchmarkError(f"{place}: {key} is {table[key]!r}; write {wanted}")
    return Bound(**table)


def _is_workload(value: object) -> bool:
    return isinstance(value, str) and value in WORKLOADS


def _is_users(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_USERS


def _is_ratio(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


#: Of a table: what a value must be, for the program and in words.
KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "workload": (_is_workload, f"one of {', '.join(WORKLOADS)}"),
    "users": (_is_users, f"a whole number from 1 to {MOST_USERS}"),
    "throughput": (_is_ratio, f"the least ratio to {YARDSTICK}'s, a number above 0"),
    "cpu": (_is_ratio, f"the largest ratio to {YARDSTICK}'s, a number above 0"),
}
