"""How sealed batches get into the leader's log: a follower sends them to the leader, who joins all into entries.

A batch that was sent is sent again only when whoever got it says that it was not appended, since it did not lead, or
does not any more: then it waits for the next leader, as long as its clients do.  Of anything else the outcome is
unknown until the batch is applied.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from common_raft.core import NOBODY, ProposalDropped, RawNode, Role
from common_raft.drivers.envelope import EnvelopeError, join, sequence_of
from common_raft.drivers.proposals import MAX_BYTES, TOO_MANY, Proposals
from common_raft.transport.links import Transport
from common_raft.transport.messages import ForwardedProposals, ProposalsRefused

log = logging.getLogger(__name__)

#: One entry: small enough to keep a slow link's pipeline moving, large enough to amortise a write to the disk.
MAX_ENTRY_BYTES = 1 << 20
#: Other nodes' batches that wait at the leader while its disk is busy; past it they are refused.
MAX_FOREIGN_BYTES = 64 << 20
#: What a leader proposes in one turn of its own batches, and as much again of others': what goes to the disk and to
#: the followers at a time takes a fraction of a heartbeat.  What is left waits for the next turn.
MAX_TURN_BYTES = 4 << 20

#: A batch that comes while the one before is under way waits for it, to share a message or an entry with what comes
#: meanwhile; but no longer than this, in seconds, wherever the disks and the network are slower.
GATHER_SECONDS = 0.002

LEADER_CHANGED = "etcdserver: leader changed"


class Forwarding:
    """Set ``transport`` before anything else is called.

    ``holds``: nothing is proposed or sent for now; what comes from others waits, too.  ``gathers_until``: when
    `advance` is to be called again, whatever happens before that; None if there is nothing to be proposed or sent.
    """

    transport: Transport

    def __init__(
        self, core: RawNode, proposals: Proposals[Any, Any], own_id: int, now: Callable[[], float]
    ) -> None:
        self._core = core
        self._proposals = proposals
        self._own_id = own_id
        self._now = now
        self.holds = False
        self.gathers_until: float | None = None
        self._foreign: deque[tuple[int, bytes]] = (
            deque()
        )  # (origin, sealed batch), to be proposed with our own
        self._foreign_bytes = 0
        self._refused_by: tuple[int, int] | None = None  # (leader, term) that did not lead when it was asked

    @property
    def waiting(self) -> bool:
        """Whether other nodes' batches are to be proposed."""
        return bool(self._foreign)

    def advance(self, *, disk_is_busy: bool) -> None:
        """Once in a turn.  A leader whose disk is busy lets all that comes gather for the next entry."""
        proposals, core = self._proposals, self._core
        leads = core.role is Role.LEADER
        if (
            self.holds
            or not (proposals.pending or proposals.unsent or self._foreign)
            or (disk_is_busy if leads else not self._reaches_leader())
        ):
            self.gathers_until = None
        elif not self._gathers(core.commit < core.last_index if leads else disk_is_busy):
            proposals.seal_pending(self._now())
            if leads:
                self._propose()
            else:
                self._forward()

    def _gathers(self, under_way: bool) -> bool:
        """Whether to wait for more: while an entry is under way, and no longer than GATHER_SECONDS."""
        now = self._now()
        until = self.gathers_until or now + GATHER_SECONDS
        self.gathers_until = until if under_way and now < until else None
        return self.gathers_until is not None

    def _forward(self) -> None:
        for batches in _chunks(self._proposals.take_unsent(MAX_BYTES)):
            self.transport.send(ForwardedProposals(self._core.leader, self._own_id, batches))

    def _reaches_leader(self) -> bool:
        leader = self._core.leader
        return (
            leader != NOBODY
            and (leader, self._core.term) != self._refused_by
            and self.transport.is_connected(leader)
        )

    def on_tick(self) -> None:
        """Whoever did not lead may be asked once more: it was perhaps about to."""
        self._refused_by = None

    def _propose(self) -> None:
        own = self._proposals.take_unsent(MAX_TURN_BYTES)
        others = self._take_some_foreign()
        batches = own + [batch for _, batch in others]
        try:
            self._core.propose(join(batches, MAX_ENTRY_BYTES))
        except ProposalDropped as dropped:
            log.warning("%d batches of proposals dropped: %s", len(batches), dropped)
            self._proposals.refuse(map(sequence_of, own), TOO_MANY)
            self._refuse_all(others, TOO_MANY)

    def _take_some_foreign(self) -> list[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] = []
        size = 0
        while self._foreign and size < MAX_TURN_BYTES:
            taken.append(self._foreign.popleft())
            size += len(taken[-1][1])
        self._foreign_bytes -= size
        return taken

    def leads_no_longer(self) -> None:
        foreign, self._foreign, self._foreign_bytes = self._foreign, deque(), 0
        self._refuse_all(foreign, LEADER_CHANGED)

    # --- what others send -------------------------------------------------------------------------------------

    def take(self, message: ForwardedProposals | ProposalsRefused) -> None:
        if isinstance(message, ForwardedProposals):
            self._take_foreign(message)
        elif message.cause == LEADER_CHANGED:
            self._proposals.take_back(message.sequences)
            self._refused_by = (message.sender, self._core.term)
        else:
            self._proposals.refuse(message.sequences, message.cause)

    def _take_foreign(self, message: ForwardedProposals) -> None:
        try:
            sequences = [sequence_of(batch) for batch in message.batches]
        except EnvelopeError as error:
            log.warning("forwarded proposals of %x dropped: %s", message.sender, error)
            return
        size = sum(map(len, message.batches))
        if self._core.role is not Role.LEADER:
            self._refuse(message.sender, sequences, LEADER_CHANGED)
        elif self._foreign_bytes + size > MAX_FOREIGN_BYTES:
            self._refuse(message.sender, sequences, TOO_MANY)
        else:
            self._foreign_bytes += size
            self._foreign += [(message.sender, batch) for batch in message.batches]

    def _refuse_all(self, batches: Collection[tuple[int, bytes]], cause: str) -> None:
        for sender in {sender for sender, _ in batches}:
            self._refuse(sender, [sequence_of(batch) for origin, batch in batches if origin == sender], cause)

    def _refuse(self, sender: int, sequences: list[int], cause: str) -> None:
        self.transport.send(ProposalsRefused(sender, self._own_id, sequences, cause))


def _chunks(batches: Iterable[bytes]) -> Iterable[list[bytes]]:
    """Batches in groups that fit into a frame: what gathered while there was no leader may be many."""
    chunk: list[bytes] = []
    size = 0
    for batch in batches:
        if chunk and size + len(batch) > MAX_ENTRY_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(batch)
        size += len(batch)
    if chunk:
        yield chunk
