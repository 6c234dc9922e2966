"""Where two servers' answers differ, and the shortest conversation found that still shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from common_raft.tests.likeness.conversation import Told
from common_raft.tests.likeness.requests import Request
from common_raft.tests.likeness.shown import Shown

#: etcd counts its own look-ups whether there are users, one with each request, which nothing here has to look up.
#: (Those for /health are among ``getsSuccess``: conversations that are counted do not ask for it.)
OWN = ("getsFail",)

Hold = Callable[[Sequence[Request]], "Difference | None"]


class Difference(NamedTuple):
    """``place``: the number of the request; as many as there are if only what was counted meanwhile differs."""

    place: int
    theirs: Shown | str
    ours: Shown | str


def difference(theirs: Told, ours: Told) -> Difference | None:
    """The first one."""
    for place, (expected, got) in enumerate(zip(theirs.answers, ours.answers, strict=True)):
        if expected is None or got is None:
            continue
        if not expected.like(got):
            return Difference(place, expected, got)
    unlike = [
        name for name in theirs.counted if theirs.counted[name] != ours.counted.get(name) and name not in OWN
    ]
    if unlike:
        told = (", ".join(f"{name} {each.counted.get(name)}" for name in unlike) for each in (theirs, ours))
        return Difference(len(theirs.answers), *(f"/v2/stats/store counts {each}" for each in told))
    return None


def shortest(
    requests: Sequence[Request], found: Difference, hold: Hold, seconds: float
) -> tuple[list[Request], Difference]:
    """``requests`` without the pieces, ever smaller ones, without which ``hold`` still finds a difference.

    Delta debugging (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002), for as long as
    ``seconds``.
    """
    deadline = time.monotonic() + seconds
    left = _needed(requests, found)
    piece = max(1, len(left) // 2)
    while time.monotonic() < deadline:
        at, smaller = 0, False
        while at < len(left) and time.monotonic() < deadline:
            fewer = left[:at] + left[at + piece :]
            again = hold(fewer) if fewer else None
            if again is None:
                at += piece
            else:
                left, found, smaller = _needed(fewer, again), again, True
        if piece == 1 and not smaller:
            break
        piece = max(1, piece // 2)
    return left, found


def _needed(requests: Sequence[Request], found: Difference) -> list[Request]:
    """Those up to the one whose answer differs; all of them where later ones may be what it tells of."""
    later = found.place < len(requests) and requests[found.place].waits
    return list(requests if later else requests[: found.place + 1])


def told(requests: Sequence[Request], found: Difference) -> str:
    """The conversation and its difference, to be read."""
    lines = [f"  {number}: {request}" for number, request in enumerate(requests)]
    return "\n".join(
        [
            *lines,
            f"answer {found.place}:",
            f"  etcd: {found.theirs}",
            f"  ours: {found.ours}",
            "(indexes are counted from the start; {+7} is the seventh from there, {@/a} the last that /a was given)",
        ]
    )
