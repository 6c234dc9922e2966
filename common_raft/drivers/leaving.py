"""A leader that is to stop has another one lead first, so that nobody waits for an election timeout.

Its core brings the heir up to date and tells it to campaign at once (thesis 3.10).  Meanwhile nothing is proposed:
what clients ask waits for the next leader, which is told of it as by any follower.  etcd does the same at its stop
(server/etcdserver/server.go, TransferLeadership) and chooses the voter that is connected for longest; here it is who
lacks least, since that is what the time is needed for.

An heir that is to stop itself does not take the leadership: nodes that are told to stop together would hand it to and
fro, thousands of times a second.  Its leader passes it over as soon as it has gone.

Time is in seconds.  Everything here belongs to the thread, or the loop, that owns the core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from common_raft.core import NOBODY, RawNode, Role
from common_raft.drivers.forwarding import Forwarding
from common_raft.drivers.machine import tell
from common_raft.drivers.options import NodeOptions
from common_raft.transport.links import Transport

log = logging.getLogger(__name__)

#: Nobody waits longer for an heir, however long an election takes: who stops a process gives it 10 s or so.
MAX_SECONDS = 5.0
#: Heartbeats for which a former leader goes on: the others learn of the next one, and what they have sent to this one
#: meanwhile is refused, and so sent on, and not lost.
LAST_TICKS = 3


class Leaving:
    """Set ``transport`` before anything else is called."""

    transport: Transport

    def __init__(
        self, options: NodeOptions, core: RawNode, forwarding: Forwarding, now: Callable[[], float]
    ) -> None:
        self._core = core
        self._forwarding = forwarding
        self._now = now
        #: After an election timeout there is no use in it (and a core gives up by itself).
        self._seconds = min(options.election_timeout, MAX_SECONDS)
        self._begun = False
        self._done: Callable[[bool], None] | None = None
        self._deadline = 0.0
        self._heir = NOBODY
        self._next_heir_at = 0.0
        self._tried: set[int] = set()
        self._ticks_left = 0  # once somebody else leads

    @property
    def refuses(self) -> bool:
        """Whether this node, about to stop, does not take the leadership over from another one."""
        return self._begun

    def begin(self, done: Callable[[bool], None]) -> None:
        """From now on this node does not keep the leadership, should it have it.

        ``done`` is called once: with whether it may stop without the others missing their leader.
        """
        self._begun, self._done = True, done
        self._deadline = self._now() + self._seconds

    def advance(self) -> None:
        """Once in a turn, before anything is proposed."""
        if not self._begun:
            return
        core = self._core
        if core.role is Role.LEADER:
            if self._heir == NOBODY:
                self._appoint()
            return
        if self._heir != NOBODY and core.leader != NOBODY:
            log.info("member %x leads now", core.leader)
            self._heir, self._ticks_left = NOBODY, LAST_TICKS
        if self._heir == NOBODY:
            self._forwarding.holds = False
            if self._ticks_left == 0:
                self._finish(True)

    def on_tick(self) -> None:
        if self._done is None:
            return
        now = self._now()
        if self._ticks_left > 0:
            self._ticks_left -= 1
        elif now >= self._deadline:
            log.warning("nobody has taken the leadership over within %g s", self._seconds)
            self._finish(False)
        elif self._core.role is Role.LEADER and (now >= self._next_heir_at or self._heir_has_gone()):
            self._appoint()

    def _heir_has_gone(self) -> bool:
        return self._heir != NOBODY and not self.transport.is_connected(self._heir)

    def stop(self) -> None:
        """The node stops, whoever leads."""
        self._finish(False)

    def _appoint(self) -> None:
        """Has the voter that lacks least lead; another one where that has not made it in time."""
        core, followers = self._core, self._core.followers
        able = {
            peer
            for peer in followers
            if core.configuration.is_voter(peer) and self.transport.is_connected(peer)
        }
        if not able - self._tried:
            self._tried = set()
        self._heir = max(
            able - self._tried, key=lambda peer: (followers[peer].match_index, peer), default=NOBODY
        )
        if self._heir == NOBODY:
            self._finish(False)
            return
        log.info("handing the leadership over to member %x", self._heir)
        self._tried.add(self._heir)
        self._next_heir_at = self._now() + self._seconds / 2
        self._forwarding.holds = True
        core.transfer_leadership(self._heir)

    def _finish(self, handed_over: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            tell(done, handed_over)
