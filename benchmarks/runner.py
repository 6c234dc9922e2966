"""One run: warm up, start the load generator, watch it and the nodes, and turn what it says into a ``Run``."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cluster import ROOT
from benchmarks.deployed import Deployed
from benchmarks.errors import BenchmarkError
from benchmarks.load import Command, Job, Outcome, locust, parse, wrk
from benchmarks.plan import Cell
from benchmarks.results import Run, raw_name
from benchmarks.sampling import Sampler, cpu_between, cpu_used, memory_between

GRACE = 30.0  # s that a tool may take beyond the time it was told to measure

MIB = 2**20


def measure(cell: Cell, cluster: Deployed, number: int, idle_pids: Sequence[int] = ()) -> tuple[Run, str]:
    """The run and the raw output of the tool.  ``idle_pids``: processes of the targets that wait for their turn.

    :raises BenchmarkError: the tool failed, took too long or said nothing that can be read, or a node ended.
    """
    job = cell.job(cluster.endpoints)
    command = wrk.command(job) if cell.tool == wrk.NAME else locust.command(job)
    if cell.tool == wrk.NAME:
        _warm_up(wrk.warm_up(job))
    pids = cluster.pids
    used_before, idle_before = _cpu_of_children(), cpu_used(idle_pids)
    with _started(command) as process, Sampler(pids.values()) as nodes:
        began = time.monotonic()
        output = _output_of(process, command, cell.seconds + GRACE)
        ended = time.monotonic()
    idle = (cpu_used(idle_pids) - idle_before) / (ended - began)
    cluster.check_alive()
    outcome = _answered(parse(output), job)
    generator = _cpu_of_children() - used_before
    if outcome.window is not None:
        began, ended = outcome.window
        generator = outcome.cpu_seconds or 0.0
    cpu = cpu_between(nodes.samples, began, ended)
    memory = memory_between(nodes.samples, began, ended)
    usage = Usage(
        max(ended - began, 0.001),
        dict(zip(pids, cpu, strict=True)),
        dict(zip(pids, memory, strict=True)),
        generator,
        idle,
    )
    return _run(cell, cluster, number, job, command, outcome, usage), f"$ {command}\n{output}"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and bytes of each node within ``seconds``; CPU seconds of the generator, CPUs of what waited."""

    seconds: float
    cpu: dict[str, float]
    memory: dict[str, int]
    generator: float
    others: float


def _run(
    cell: Cell, cluster: Deployed, number: int, job: Job, command: Command, outcome: Outcome, usage: Usage
) -> Run:
    target = cluster.target
    name = raw_name(cell.tool, cell.users, number, cell.beside(target))
    cpu, memory = sum(usage.cpu.values()), sum(usage.memory.values())
    return Run(
        cell.tool,
        cell.workload.name,
        cell.users,
        target.name,
        target.infrastructure,
        target.durability,
        target.reads,
        number,
        outcome.requests,
        outcome.seconds,
        throughput=outcome.requests / outcome.seconds if outcome.seconds else 0.0,
        p50_ms=outcome.p50_us / 1000,
        p90_ms=outcome.p90_us / 1000,
        p99_ms=outcome.p99_us / 1000,
        p999_ms=outcome.p999_us / 1000,
        max_ms=outcome.max_us / 1000,
        mean_ms=outcome.mean_us / 1000,
        errors=outcome.errors(cell.workload),
        missing=outcome.missing(cell.workload),
        statuses={str(status): times for status, times in sorted(outcome.statuses.items())},
        per_node=_by_position(outcome, cluster.endpoints),
        cpu_us=cpu / outcome.requests * 1e6 if usage.cpu and outcome.requests else None,
        memory_mib=memory / MIB if usage.memory else None,
        node_cpu={node: used / usage.seconds for node, used in usage.cpu.items()},
        node_memory_mib={node: used / MIB for node, used in usage.memory.items()},
        others_cpu=usage.others,
        generator_cpu=usage.generator / usage.seconds,
        generator_cpus=_cpus_to_use(cell.tool, job),
        section=cell.section,
        command=str(command),
        raw=str(target.folder / cell.workload.name / name),
    )


def _cpus_to_use(tool: str, job: Job) -> int:
    """How many CPUs the tool's threads or processes could keep busy, if nothing else wanted them."""
    return min(os.cpu_count() or 1, job.streams if tool == wrk.NAME else locust.processes(job))


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
