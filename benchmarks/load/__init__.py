"""Load generators: the command of each, and the one line that all of them end with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.workloads import Workload

PREFIX = "RESULT "
COMPLAINT = "LOST "  # in place of a RESULT: why there is none
LEAST_STREAMS = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a load generator."""

    workload: Workload
    endpoints: tuple[str, ...]
    users: int
    seconds: float

    @property
    def streams(self) -> int:
        """wrk's threads: the same number for each node, and for a single node as many as for a cluster of three."""
        nodes = len(self.endpoints)
        return nodes * -(-LEAST_STREAMS // nodes)

    @property
    def connections(self) -> int:
        """``users``, rounded up so that each node and each of wrk's threads has the same number."""
        return -(-self.users // self.streams) * self.streams


@dataclass(frozen=True, slots=True)
class Command:
    """A command as a user would type it, with the environment variables it needs beyond the user's own."""

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join([*(f"{name}={value}" for name, value in self.environment), *self.arguments])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load generator measured; latencies in microseconds.

    ``window``: when it measured, on the monotonic clock, where the tool says so; ``cpu_seconds``: what it used in
    that window, all of its processes together.
    """

    requests: int
    seconds: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    mean_us: float
    socket_errors: int
    timeouts: int
    wrong_values: int
    statuses: dict[int, int]
    per_node: dict[str, int]
    window: tuple[float, float] | None = None
    cpu_seconds: float | None = None

    def missing(self, workload: Workload) -> int:
        """404s that the workload expects."""
        return self.statuses.get(404, 0) if workload.may_be_missing else 0

    def errors(self, workload: Workload) -> int:
        """Answers that should not have been, answers that never came, and values that nobody wrote."""
        refused = sum(number for status, number in self.statuses.items() if not 200 <= status < 300)
        failed = self.socket_errors + self.timeouts + self.wrong_values
        return refused - self.missing(workload) + failed


def parse(output: str) -> Outcome:
    """The outcome in a tool's raw output.

    :raises BenchmarkError: there is no RESULT line, or it lacks something.
    """
    lines = [line for line in output.splitlines() if line.startswith(PREFIX)]
    if not lines:
        told = [line for line in output.splitlines() if line.startswith(COMPLAINT)]
        told = told or output.strip().splitlines()
        raise BenchmarkError(f"the load generator gave no result; it said: {told[-1] if told else 'nothing'}")
    try:
        fields: dict[str, Any] = json.loads(lines[-1].removeprefix(PREFIX))
        fields["statuses"] = {int(status): number for status, number in fields["statuses"].items()}
        fields["window"] = tuple(fields["window"]) if "window" in fields else None
        return Outcome(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise BenchmarkError(f"the load generator's result cannot be read ({error}): {lines[-1]}") from error


def spread_over(endpoints: Sequence[str]) -> tuple[str, str]:
    """The environment variable that both tools' scripts take the nodes from."""
    return ("ENDPOINTS", ",".join(endpoints))
