"""When the core ticks: once in a heartbeat interval, by a clock that only goes forward.

A process that stood still (SIGSTOP, a laptop's lid) does not make up for the ticks that it has missed: it must not
take that time for its leader's silence.  With leases it must, before it does anything else: a lease is counted in
ticks, and has run out meanwhile (`core.reads.Lease`).  So then each interval is a tick, neither more nor less.

Time is in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from common_raft.core import RawNode
from common_raft.drivers.options import NodeOptions


class Ticks:
    def __init__(
        self, options: NodeOptions, core: RawNode, election_tick: int, now: Callable[[], float]
    ) -> None:
        self._core = core
        self._interval = options.heartbeat_interval
        self._exact = options.lease_reads
        #: After so many silent ticks nobody leads any more, whatever there was.
        self._enough = 2 * election_tick
        self._now = now
        self._last = now()

    def on_timer(self) -> None:
        """A heartbeat interval is over, or more."""
        if self._exact:
            self.catch_up()
        else:
            self._core.tick()

    def catch_up(self) -> None:
        """Before anything is done that a lease may stand for."""
        if not self._exact:
            return
        missed = int((self._now() - self._last) / self._interval)
        self._last += missed * self._interval
        for _ in range(min(missed, self._enough)):
            self._core.tick()
