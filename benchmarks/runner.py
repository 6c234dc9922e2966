"""One run: warm up, start the load generator, watch it and the nodes, and turn what it says into a ``Run``."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.cluster import ROOT, Cluster
from benchmarks.errors import BenchmarkError
from benchmarks.load import Command, Job, Outcome, locust, parse, wrk
from benchmarks.plan import Cell
from benchmarks.results import Run, raw_name
from benchmarks.sampling import Sampler, cpu_between, memory_between

GRACE = 30.0  # s that a tool may take beyond the time it was told to measure

MIB = 2**20


def measure(cell: Cell, cluster: Cluster, number: int) -> tuple[Run, str]:
    """The run and the raw output of the tool.

    :raises BenchmarkError: the tool failed, took too long or said nothing that can be read, or a node ended.
    """
    job = Job(cell.workload, cluster.endpoints, cell.users, cell.seconds)
    command = wrk.command(job) if cell.tool == wrk.NAME else locust.command(job)
    if cell.tool == wrk.NAME:
        _warm_up(wrk.warm_up(job))
    used_before = _cpu_of_children()
    with _started(command) as process, Sampler(cluster.pids) as nodes, Sampler([process.pid]) as generator:
        began = time.monotonic()
        output = _output_of(process, command, cell.seconds + GRACE)
        ended = time.monotonic()
    cluster.check_alive()
    outcome = _answered(parse(output), job)
    generator_cpu = _cpu_of_children() - used_before
    if outcome.window is not None:
        began, ended = outcome.window
        generator_cpu = cpu_between(generator.samples, began, ended)
    seen = bool(cluster.pids)
    cpu = cpu_between(nodes.samples, began, ended)
    folder = cluster.target.folder / cell.workload.name
    run = Run(
        cell.tool,
        cell.workload.name,
        cell.users,
        cluster.target.name,
        cluster.target.infrastructure,
        cluster.target.durability,
        cluster.target.reads,
        number,
        outcome.requests,
        outcome.seconds,
        throughput=outcome.requests / outcome.seconds if outcome.seconds else 0.0,
        p50_ms=outcome.p50_us / 1000,
        p90_ms=outcome.p90_us / 1000,
        p99_ms=outcome.p99_us / 1000,
        p999_ms=outcome.p999_us / 1000,
        max_ms=outcome.max_us / 1000,
        errors=outcome.errors(cell.workload),
        missing=outcome.missing(cell.workload),
        statuses={str(status): times for status, times in sorted(outcome.statuses.items())},
        per_node=_by_position(outcome, cluster.endpoints),
        cpu_us=cpu / outcome.requests * 1e6 if seen and outcome.requests else None,
        memory_mib=memory_between(nodes.samples, began, ended) / MIB if seen else None,
        generator_cpu=generator_cpu / max(ended - began, 0.001),
        command=str(command),
        raw=str(folder / raw_name(cell.tool, cell.users, number)),
    )
    return run, f"$ {command}\n{output}"


def _answered(outcome: Outcome, job: Job) -> Outcome:
    """A run without one answer took at least its whole time for each user: not zero, and not without errors."""
    if outcome.requests:
        return outcome
    least = job.seconds * 1e6
    return replace(
        outcome,
        seconds=outcome.seconds or job.seconds,
        timeouts=max(outcome.timeouts, job.connections),
        p50_us=least,
        p90_us=least,
        p99_us=least,
        p999_us=least,
        max_us=least,
        mean_us=least,
    )


def _cpu_of_children() -> float:
    """CPU seconds of the children that have ended so far; the nodes, which run on, are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _by_position(outcome: Outcome, endpoints: tuple[str, ...]) -> dict[str, int]:
    """Requests of each node, in the order of the nodes."""
    return {
        f"n{number}": outcome.per_node.get(endpoint.split("://")[-1], 0)
        for number, endpoint in enumerate(endpoints, start=1)
    }


def _warm_up(command: Command) -> None:
    with _started(command) as process:
        time.sleep(wrk.WARM_UP)
        process.send_signal(signal.SIGINT)
        _output_of(process, command, GRACE)


@contextmanager
def _started(command: Command) -> Iterator[subprocess.Popen[str]]:
    """The tool as a process of ours, which ends with the block whatever happens in it."""
    program, *arguments = command.arguments
    found = [sys.executable, "-m", "locust"] if program == locust.NAME else [program]
    process = subprocess.Popen(
        [*found, *arguments],
        cwd=ROOT,
        env={**os.environ, **dict(command.environment)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _output_of(process: subprocess.Popen[str], command: Command, within: float) -> str:
    try:
        output, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(
            f"{command.arguments[0]} did not end within {within:.0f} s: {command}"
        ) from error
    if process.returncode != 0:
        told = output.strip().splitlines()
        raise BenchmarkError(
            f"{command.arguments[0]} ended with status {process.returncode}: {told[-1] if told else command}"
        )
    return _without_paths(output)


def _without_paths(output: str) -> str:
    """Without the places of this machine, so that results can be published as they are."""
    return output.replace(f"{ROOT}{os.sep}", "").replace(str(Path.home()), "~")
