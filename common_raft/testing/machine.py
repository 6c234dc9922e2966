"""The state machine that a simulated cluster replicates: give the simulation your own to test it."""

from __future__ import annotations

from collections.abc import Hashable
from random import Random
from typing import Any, Protocol


class StateMachine(Protocol):
    """What replicas must agree on.  It lives in memory: after a crash a fresh one is fed from the first entry,
    or restored from a snapshot."""

    def apply(self, index: int, command: bytes) -> None:
        """Takes the command of the entry at ``index``; indexes grow, those of no-ops are left out."""

    def digest(self) -> Hashable:
        """The same on any two replicas that have applied the same entries, and different otherwise."""

    def snapshot(self) -> object:
        """The whole state, to be kept while the machine goes on."""

    def restore(self, snapshot: Any) -> None:
        """Replaces the whole state by one that `snapshot` gave, on this replica or another."""


class Accumulator:
    """The machine used when none is given: its state is a running hash of all that it has applied."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = 0

    def apply(self, index: int, command: bytes) -> None:
        # Integers in place of bytes: their hash is the same in every run, whatever PYTHONHASHSEED is.
        self._state = hash((self._state, index, int.from_bytes(command, "big")))

    def digest(self) -> Hashable:
        return self._state

    def snapshot(self) -> int:
        return self._state

    def restore(self, snapshot: int) -> None:
        self._state = snapshot


class Workload(Protocol):
    """Where proposals come from."""

    def __call__(self, random: Random, number: int) -> bytes:
        """The command of the ``number``-th proposal; all choices are drawn from ``random``."""


def numbered_commands(random: Random, number: int) -> bytes:
    """Every command different, so that no mix-up goes unseen; of various sizes, so that byte limits are met."""
    return b"%d" % number + b"." * random.choice((0, 0, 0, 10, 60))
