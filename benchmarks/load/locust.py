"""Locust: FastHttpUser, headless, one process; users take the nodes in turn."""

from __future__ import annotations

import math

from benchmarks.load import Command, Job, spread_over

NAME = "locust"
WARM_UP = 0.5  # s after the last user has started; benchmarks/locust/user.py does not count it


def command(job: Job) -> Command:
    """Locust takes whole seconds; what its users measured, to the microsecond, is in the result."""
    return Command(
        (
            "locust",
            *("-f", job.workload.locust_file),
            "--headless",
            *("-u", str(job.connections)),
            *("-r", str(job.connections)),
            *("-t", f"{math.ceil(job.seconds + WARM_UP)}s"),
            "--only-summary",
            *("--exit-code-on-error", "0"),
        ),
        (spread_over(job.endpoints), ("WARM_UP", str(WARM_UP))),
    )
