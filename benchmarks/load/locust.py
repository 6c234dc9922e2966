"""Locust: FastHttpUser, headless, one process; users take the nodes in turn."""

from __future__ import annotations

import math

from benchmarks.load import Command, Job, spread_over

NAME = "locust"
WARM_UP = 0.5  # s after the last user has started; benchmarks/locust/user.py does not count it


LONGEST_START = 5  # s that users may take to start; the run's bound if the scripts should not end it


def command(job: Job) -> Command:
    """The users end the run when they have measured ``seconds``; ``-t``, in whole seconds, is the bound."""
    return Command(
        (
            "locust",
            *("-f", job.workload.locust_file),
            "--headless",
            *("-u", str(job.connections)),
            *("-r", str(job.connections)),
            *("-t", f"{math.ceil(job.seconds + WARM_UP) + LONGEST_START}s"),
            "--only-summary",
            *("--loglevel", "WARNING"),
            *("--exit-code-on-error", "0"),
        ),
        (spread_over(job.endpoints), ("WARM_UP", f"{WARM_UP:g}"), ("MEASURE", f"{job.seconds:g}")),
    )
