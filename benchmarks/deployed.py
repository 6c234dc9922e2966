"""What can be measured has this shape, however it was started."""

from __future__ import annotations

from typing import Protocol

from benchmarks.targets import Target


class Deployed(Protocol):
    """The nodes of a target, from ``start()`` to ``stop()``, and ``remove()`` for what they leave behind."""

    target: Target
    endpoints: tuple[str, ...]
    version: str  #: what the nodes say
    commands: list[str]  #: how they were started

    @property
    def pids(self) -> dict[str, list[int]]:
        """The processes of each node; empty where they cannot be seen."""

    def start(self) -> None:
        """Start the nodes and wait until each is healthy.

        :raises BenchmarkError: one is not.
        """

    def settle(self) -> None:
        """Let what the start has left to be done be done now, and not during a run."""

    def check_alive(self) -> None:
        """:raises BenchmarkError: a node has ended by itself."""

    def terminate(self) -> None:
        """Ask the nodes to end; do not wait."""

    def stop(self) -> None:
        """End the nodes."""

    def remove(self) -> None:
        """Take their data away."""
