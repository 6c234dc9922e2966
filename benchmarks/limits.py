"""Files that a process may have open: every connection is one, in the load generator and in the nodes."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.plan import Cell

BESIDE = 256  # what a process opens besides its clients' connections


def files_needed(plan: Sequence[Cell]) -> int:
    """By the load generator, and by the only node of a standalone target, at the most users of the plan."""
    most = 0
    for cell in plan:
        for target in cell.targets:
            most = max(most, cell.job(("",) * target.nodes).connections)
    return most + BESIDE


def raise_file_limit(plan: Sequence[Cell]) -> None:
    """As far as we may; the tools and the nodes inherit it.

    :raises BenchmarkError: that is not enough for the plan's users.
    """
    allow_files(files_needed(plan), max(cell.users for cell in plan), "users")


def allow_files(needed: int, number: int, of_what: str) -> None:
    """The same for ``needed`` files of ``number`` users, which ``--of_what`` sets, or others that connect."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < needed:
        raise BenchmarkError(
            f"{number} {of_what} need {needed} open files in one process, and this system "
            f"allows {hard} (ulimit -Hn): raise the limit, or measure at most {max(0, hard - BESIDE)} --{of_what}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
