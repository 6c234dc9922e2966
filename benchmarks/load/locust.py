"""Locust: FastHttpUser, headless, several processes; users take the nodes in turn."""

from __future__ import annotations

import math
import os

from benchmarks.load import Command, Job, spread_over

NAME = "locust"
WARM_UP = 0.5  # s after the last user has started; benchmarks/locust/user.py does not count it

LONGEST_START = 8  # s that users may take to start; the run's bound if the scripts should not end it


def processes(job: Job) -> int:
    """One for each CPU (a Python process keeps one busy), or fewer: each must have as many users on each node."""
    on_a_node = job.connections // len(job.endpoints)
    return max(each for each in range(1, (os.cpu_count() or 1) + 1) if on_a_node % each == 0)


def command(job: Job) -> Command:
    """The users end the run when they have measured ``seconds``; ``-t``, in whole seconds, is the bound."""
    number = processes(job)
    return Command(
        (
            "locust",
            *("-f", job.workload.locust_file),
            "--headless",
            *(("--processes", str(number)) if number > 1 else ()),
            *("-u", str(job.connections)),
            *("-r", str(job.connections)),
            *("-t", f"{math.ceil(job.seconds + WARM_UP) + LONGEST_START}s"),
            "--only-summary",
            *("--loglevel", "WARNING"),
            *("--exit-code-on-error", "0"),
        ),
        (spread_over(job.endpoints), ("WARM_UP", f"{WARM_UP:g}"), ("MEASURE", f"{job.seconds:g}")),
    )
