"""wrk: at least three threads, each on one node, connections spread evenly, the workload in Lua."""

from __future__ import annotations

import shutil
from dataclasses import replace

from benchmarks.load import Command, Job, spread_over

NAME = "wrk"
PROGRAM = "wrk"
HOW_TO_GET = "apt-get install wrk (Debian, Ubuntu), brew install wrk (macOS)"
MISSING = f"wrk is not installed; get it by {HOW_TO_GET}"

WARM_UP = 0.5  # s, a run of its own whose result is thrown away
TIMEOUT = 10  # s that an answer may take; the same as in locust's users


def installed() -> bool:
    return shutil.which(PROGRAM) is not None


def command(job: Job) -> Command:
    return Command(
        (
            PROGRAM,
            f"-t{job.streams}",
            f"-c{job.connections}",
            f"-d{duration(job.seconds)}",
            *("--timeout", f"{TIMEOUT}s"),
            "--latency",
            *("-s", job.workload.wrk_script),
            job.endpoints[0],
        ),
        (spread_over(job.endpoints),),
    )


def duration(seconds: float) -> str:
    """wrk takes whole seconds, at least one."""
    return f"{max(1, round(seconds))}s"


def warm_up(job: Job) -> Command:
    """The same run, killed after WARM_UP seconds: wrk itself cannot run for less than a second."""
    return command(replace(job, seconds=1))
