"""What every driver does between a core and the world, whatever it runs on: an event loop, or threads.

A driver works in *turns*.  What has come in (requests, frames, confirmed writes, a tick) is collected, and `_advance`
proposes it, carries out what the core says and sends one write to each peer.  A leader whose disk is busy lets
proposals gather until the write is done: the next entry then holds all of them.

Everything here belongs to the one thread, or the one event loop, that owns the core.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random, SystemRandom
from typing import Any, Generic, Protocol, cast

from common_raft.core import NOBODY, Config, Message, ProposalDropped, RawNode, Ready, Role, SoftState
from common_raft.core.errors import NoLeader
from common_raft.core.messages import AppendEntries
from common_raft.drivers.applying import Work, unpack
from common_raft.drivers.envelope import EnvelopeError, join, sequence_of
from common_raft.drivers.machine import Command, Machine, Result
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import TOO_MANY, Proposals
from common_raft.drivers.reads import Reads
from common_raft.storage import Wal, WalWriter
from common_raft.transport.messages import ForwardedProposals, PeerMessage, ProposalsRefused

log = logging.getLogger(__name__)

#: One entry: small enough to keep a slow link's pipeline moving, large enough to amortise a write to the disk.
MAX_ENTRY_BYTES = 1 << 20
#: Other nodes' batches that wait at the leader while its disk is busy; past it they are refused.
MAX_FOREIGN_BYTES = 64 << 20

#: What a machine takes in one call, and may have to send somewhere; one entry may be larger.
MAX_APPLY_BYTES = 4 << 20
#: Between two attempts to reach a state machine that is away.
RETRY_SECONDS = 0.25

LEADER_CHANGED = "etcdserver: leader changed"


class Transport(Protocol):
    """The links to the peers."""

    def is_connected(self, peer: int) -> bool: ...
    def send(self, message: PeerMessage) -> None:
        """Queues a message for its ``to``, without waiting for anything."""

    def flush(self) -> None:
        """Sends what is queued, one write for each peer, without waiting for anything."""


class Member(Generic[Command, Result]):
    """One member of a cluster, less what makes it run.

    ``problem`` says why the machine cannot be reached, while it cannot.

    Raises LogDamaged when the machine has applied more than the log holds.
    """

    _transport: Transport

    def __init__(
        self, options: NodeOptions, wal: Wal, machine: Machine[Command], now: Callable[[], float]
    ) -> None:
        self._options = options
        self._now = now
        self.id, self.name, self.cluster_id = options.id, options.name, options.cluster_id
        self.appends_sent = 0
        self.appends_received = 0
        incarnation = SystemRandom().getrandbits(32)
        self._core = RawNode(
            self._core_config(options), wal.recovered, Random(incarnation ^ options.id), machine.applied
        )
        self._proposals: Proposals[Command, Result] = Proposals(
            machine, options.id, incarnation, options.request_timeout
        )
        self._reads = Reads(incarnation, options.request_timeout)
        self._foreign: list[tuple[int, bytes]] = []  # (origin, sealed batch), to be proposed with our own
        self._foreign_bytes = 0
        self._at_disk: deque[tuple[int, list[Message]]] = deque()
        self._writer = WalWriter(wal, self._durable_in_thread, self._disk_failed_in_thread)
        self._stopped = False
        self.problem: str | None = None
        self._machine_is_away = False
        # What answers are stamped with; plain attributes, since every answer reads them.
        self.term = self._core.term
        self.applied = self._core.applied
        self.leader = NOBODY
        self._leader_since = now()

    @staticmethod
    def _core_config(options: NodeOptions) -> Config:
        return Config(
            options.id,
            (options.id, *options.peers),
            election_tick=max(2, round(options.election_timeout / options.heartbeat_interval)),
            heartbeat_tick=1,
            max_apply_bytes=MAX_APPLY_BYTES,
        )

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def leader_seconds(self) -> float:
        """For how long the leader, or that there is none, has been known."""
        return self._now() - self._leader_since

    # --- what a driver adds -----------------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        """Sees to it that `_advance` is called soon."""
        raise NotImplementedError

    def _apply(self, work: Work) -> None:
        """Applies committed entries, now or later, in their order; then calls `_on_applied`."""
        raise NotImplementedError

    def _durable_in_thread(self, number: int) -> None:
        """Called in the writer's thread: gets `_on_persisted` called where the core lives."""
        raise NotImplementedError

    def _disk_failed_in_thread(self, error: BaseException) -> None:
        """Called in the writer's thread: ends the node."""
        raise NotImplementedError

    # --- turns ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._send_proposals()
        self._ask_reads()
        while self._writer.has_room and self._core.has_ready():
            self._carry_out(self._core.ready())
        self._transport.flush()

    def _on_tick(self, now: float) -> None:
        """Once in a heartbeat interval."""
        self._core.tick()
        # Also what waits for the disk or for a leader gets its deadline now.
        self._proposals.seal_pending(now)
        self._proposals.expire(now)
        self._reads.ask_again(now - self._options.election_timeout)
        self._reads.expire(now)

    def _stop_waiting(self) -> None:
        """Clients that wait are told that the node stops."""
        self._stopped = True
        self._proposals.stop()
        self._reads.stop()

    def _carry_out(self, ready: Ready) -> None:
        send = self._transport.send
        for message in ready.messages:
            if type(message) is AppendEntries:
                self.appends_sent += 1
            send(message)
        if ready.must_persist:
            self._at_disk.append((ready.number, ready.messages_after_append))
            # Followers first: the writer's thread, once it is awake, competes for the interpreter.
            self._transport.flush()
            self._writer.submit(ready.number, ready.hard_state, ready.first_index, ready.entries)
        elif self._at_disk:
            self._at_disk[-1][1].extend(ready.messages_after_append)
        else:
            for message in ready.messages_after_append:
                send(message)
        if ready.soft_state is not None:
            self._on_soft_state(ready.soft_state)
        for state in ready.read_states:
            self._reads.confirmed(state.context, state.index)
        if ready.committed:
            proposals = cast(Proposals[Any, Any], self._proposals)
            self._apply(unpack(ready.committed_index, ready.committed, proposals))
        elif ready.read_states:
            self._reads.applied(self.applied)

    def _on_soft_state(self, state: SoftState) -> None:
        self.term = state.term
        if state.leader != self.leader:
            self.leader, self._leader_since = state.leader, self._now()
            who = "this node" if state.leader == self.id else f"{state.leader:x}"
            log.info("term %d: the leader is %s", state.term, who if state.leader else "not known")
            self._reads.ask_again(self._now() + 1)
        if state.role is not Role.LEADER and self._foreign:
            self._refuse_foreign(LEADER_CHANGED)
        self._schedule_turn()

    # --- proposing --------------------------------------------------------------------------------------------

    def _send_proposals(self) -> None:
        proposals = self._proposals
        if not (proposals.pending or proposals.unsent or self._foreign):
            return
        leader = self._core.leader
        if self._core.role is Role.LEADER:
            if not self._at_disk:
                proposals.seal_pending(self._now())
                self._propose_as_leader()
        elif leader != NOBODY and self._transport.is_connected(leader):
            proposals.seal_pending(self._now())
            for batches in _chunks(proposals.take_unsent()):
                self._transport.send(ForwardedProposals(leader, self.id, batches))

    def _propose_as_leader(self) -> None:
        own = self._proposals.take_unsent()
        batches = own + [batch for _, batch in self._foreign]
        try:
            self._core.propose(join(batches, MAX_ENTRY_BYTES))
        except ProposalDropped as dropped:
            log.warning("%d batches of proposals dropped: %s", len(batches), dropped)
            self._proposals.refuse(map(sequence_of, own), TOO_MANY)
            self._refuse_foreign(TOO_MANY)
        else:
            self._foreign, self._foreign_bytes = [], 0

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

    def _refuse_foreign(self, cause: str) -> None:
        foreign, self._foreign, self._foreign_bytes = self._foreign, [], 0
        for sender in {sender for sender, _ in foreign}:
            self._refuse(sender, [sequence_of(batch) for origin, batch in foreign if origin == sender], cause)

    def _refuse(self, sender: int, sequences: list[int], cause: str) -> None:
        self._transport.send(ProposalsRefused(sender, self.id, sequences, cause))

    # --- reading and applying ---------------------------------------------------------------------------------

    def _ask_reads(self) -> None:
        if self._reads.pending and self._core.leader != NOBODY:
            try:
                self._core.read_index(self._reads.take(self._now()))
            except NoLeader:
                pass  # asked again in a moment

    def _on_applied(self, work: Work, results: Sequence[Sequence[Result] | None]) -> None:
        """Lets those who wait know."""
        self.applied = work.applied
        self._core.on_applied(work.applied)
        for sequence, result in zip(work.sequences, results, strict=True):
            if result is not None:
                self._proposals.resolve(sequence, result)
        self._reads.applied(work.applied)

    def _cannot_apply(self, work: Work, error: ConnectionError) -> None:
        if not self._machine_is_away:
            log.error("cannot apply entry %d: %s; trying again", work.applied, error)
        self._machine_is_away = True
        self.problem = str(error)

    def _can_apply(self, work: Work) -> None:
        if self._machine_is_away:
            log.info("applying again, up to entry %d", work.applied)
        self._machine_is_away = False
        self.problem = None

    # --- the network and the disk -----------------------------------------------------------------------------

    def _take_messages(self, messages: list[PeerMessage]) -> None:
        for message in messages:
            if isinstance(message, ForwardedProposals):
                self._take_foreign(message)
            elif isinstance(message, ProposalsRefused):
                self._proposals.refuse(message.sequences, message.cause)
            else:
                if type(message) is AppendEntries:
                    self.appends_received += 1
                self._core.step(message)

    def _on_persisted(self, number: int) -> None:
        at_disk = self._at_disk
        while at_disk and at_disk[0][0] <= number:
            for message in at_disk.popleft()[1]:
                self._transport.send(message)
        self._core.on_persisted(number)


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
