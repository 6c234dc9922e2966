"""Runs a core on an event loop: ticks, links, the disk's writer thread, the state machine, the waiting clients.

Everything happens in *turns*.  Whatever comes in (requests, frames, a confirmed write) is collected, and one call
at the end of the loop's turn proposes it, carries out what the core says and sends one write to each peer.  A
leader whose disk is busy lets proposals gather until the write is done: the next entry then holds all of them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any, Generic, cast

from common_raft.core import (
    NOBODY,
    Config,
    Message,
    ProposalDropped,
    RawNode,
    Ready,
    Role,
    SoftState,
)
from common_raft.core.errors import NoLeader
from common_raft.core.messages import AppendEntries
from common_raft.drivers.applying import Work, together, unpack
from common_raft.drivers.envelope import EnvelopeError, join, sequence_of
from common_raft.drivers.machine import (
    AsyncStateMachine,
    Command,
    Done,
    ProposalError,
    ReadDone,
    Result,
    StateMachine,
)
from common_raft.drivers.proposals import STOPPED, TOO_MANY, Proposals
from common_raft.drivers.reads import Reads
from common_raft.storage import Wal, WalWriter
from common_raft.transport.asyncio import Address, AsyncioTransport
from common_raft.transport.messages import ForwardedProposals, PeerMessage, ProposalsRefused

log = logging.getLogger(__name__)

#: One entry: small enough to keep a slow link's pipeline moving, large enough to amortise a write to the disk.
MAX_ENTRY_BYTES = 1 << 20
#: Other nodes' batches that wait at the leader while its disk is busy; past it they are refused.
MAX_FOREIGN_BYTES = 64 << 20

#: Between two attempts to reach a state machine that is away.
RETRY_SECONDS = 0.25

LEADER_CHANGED = "etcdserver: leader changed"


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Who a node is and how it keeps time.  Times are in seconds."""

    id: int
    name: str
    cluster_id: int
    listen: Sequence[Address]
    peers: Mapping[int, Address]  #: the other members
    heartbeat_interval: float = 0.1
    election_timeout: float = 1.0

    @property
    def request_timeout(self) -> float:
        """As etcd's ReqTimeout: 5 s for the work, and twice an election timeout for a leader to be found."""
        return 5.0 + 2 * self.election_timeout


class AsyncioNode(Generic[Command, Result]):
    """One member of a cluster, in the running loop; made and used in it, and closed with `close`.

    ``failed`` ends with the error that stopped the node: a disk that failed, or a log that contradicts the
    cluster's.  A failed node answers nothing more and must be restarted, or replaced.

    A machine whose ``apply`` is a coroutine is applied to beside the loop's turns: meanwhile the node goes on
    replicating, and the next call takes all that was committed in between.  ``problem`` says why the machine cannot
    be reached, while it cannot.

    Raises LogDamaged when the machine has applied more than the log holds.
    """

    def __init__(
        self,
        options: NodeOptions,
        wal: Wal,
        machine: StateMachine[Command, Result] | AsyncStateMachine[Command, Result],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._machine = machine
        self.id, self.name, self.cluster_id = options.id, options.name, options.cluster_id
        self.appends_sent = 0
        self.appends_received = 0
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
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
        self._transport = AsyncioTransport(
            options.id,
            options.cluster_id,
            options.listen,
            options.peers,
            self._on_messages,
            self._core.report_unreachable,
        )
        self._turn_is_due = False
        self._stopped = False
        self._applies_beside = inspect.iscoroutinefunction(machine.apply)
        self._to_apply: list[
            Work
        ] = []  # bounded by the core, which hands out no more than MAX_APPLYING entries
        self._applying: asyncio.Task[None] | None = None
        self.problem: str | None = None
        self._ticker: asyncio.TimerHandle | None = None
        # What answers are stamped with; plain attributes, since every answer reads them.
        self.term = self._core.term
        self.applied = self._core.applied
        self.leader = NOBODY
        self._leader_since = self._loop.time()

    @staticmethod
    def _core_config(options: NodeOptions) -> Config:
        ticks = max(2, round(options.election_timeout / options.heartbeat_interval))
        return Config(options.id, (options.id, *options.peers), election_tick=ticks, heartbeat_tick=1)

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def leader_seconds(self) -> float:
        """For how long the leader, or that there is none, has been known."""
        return self._loop.time() - self._leader_since

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes part in the cluster.  Raises OSError when a peer address cannot be listened on."""
        await self._transport.start()
        self._writer.start()
        if not self._options.peers:
            self._core.campaign()  # nobody else could have a leader
        self._run_turn()
        self._ticker = self._loop.call_later(self._options.heartbeat_interval, self._tick)

    async def close(self) -> None:
        """Stops: clients that wait get an error, what is at the disk is finished, links end."""
        if not self._stopped:
            self._stop()
        if self._applying is not None:
            await asyncio.wait([self._applying])
        await self._transport.close()
        await self._loop.run_in_executor(None, self._writer.close)

    def _stop(self) -> None:
        self._stopped = True
        if self._ticker is not None:
            self._ticker.cancel()
        self._proposals.stop()
        self._reads.stop()

    def _fail(self, error: BaseException) -> None:
        """What the node knows can no longer be trusted: say nothing more to anybody."""
        if not self._stopped:
            self._stop()
            self.failed.set_result(error)

    # --- what clients ask -------------------------------------------------------------------------------------

    def propose(self, command: Command, done: Done[Result]) -> None:
        """Replicates ``command``; ``done`` gets its result in the turn in which this node applies it.

        It gets a ProposalError when the command was refused, or was not applied within the request timeout.
        """
        if self._stopped:
            done(ProposalError(STOPPED))
            return
        self._proposals.add(command, done)
        if not self._turn_is_due:
            self._schedule_turn()

    def read_index(self, done: ReadDone) -> None:
        """Calls ``done`` with None once a read of the local state is linearizable, else with a ProposalError."""
        if self._stopped:
            done(ProposalError(STOPPED))
            return
        self._reads.add(done, self._loop.time())
        self._schedule_turn()

    # --- turns ------------------------------------------------------------------------------------------------

    def _schedule_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._turn_is_due = False
        if self._stopped:
            return
        try:
            self._send_proposals()
            self._ask_reads()
            while self._writer.has_room and self._core.has_ready():
                self._carry_out(self._core.ready())
            self._transport.flush()
        except BaseException as error:
            log.debug("turn failed", exc_info=True)
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def _tick(self) -> None:
        if self._stopped:
            return
        now = self._loop.time()
        self._ticker = self._loop.call_at(now + self._options.heartbeat_interval, self._tick)
        self._core.tick()
        # Also what waits for the disk or for a leader gets its deadline now.
        self._proposals.seal_pending(now)
        self._proposals.expire(now)
        self._reads.ask_again(now - self._options.election_timeout)
        self._reads.expire(now)
        self._run_turn()

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
            self.leader, self._leader_since = state.leader, self._loop.time()
            who = "this node" if state.leader == self.id else f"{state.leader:x}"
            log.info("term %d: the leader is %s", state.term, who if state.leader else "not known")
            self._reads.ask_again(self._loop.time() + 1)
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
                proposals.seal_pending(self._loop.time())
                self._propose_as_leader()
        elif leader != NOBODY and self._transport.is_connected(leader):
            proposals.seal_pending(self._loop.time())
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
                self._core.read_index(self._reads.take(self._loop.time()))
            except NoLeader:
                pass  # asked again in a moment

    def _apply(self, work: Work) -> None:
        if not self._applies_beside:
            machine = cast(StateMachine[Command, Result], self._machine)
            self._on_applied(work, machine.apply(work.batches, work.applied) if work.batches else ())
            return
        self._to_apply.append(work)
        if self._applying is None:
            self._applying = self._loop.create_task(self._apply_beside())

    async def _apply_beside(self) -> None:
        try:
            while self._to_apply and not self._stopped:
                work = together(self._to_apply)
                self._to_apply = []
                results = await self._results_of(work) if work.batches else ()
                if results is not None:
                    self._on_applied(work, results)
                self._schedule_turn()  # the core may have held entries back
        except Exception as error:
            log.debug("applying failed", exc_info=True)
            self._fail(error)
        finally:
            self._applying = None

    async def _results_of(self, work: Work) -> Sequence[Sequence[Result] | None] | None:
        """Tries until the machine can be reached: what is committed must be applied, once and in order.

        None when the node stops before that.
        """
        machine = cast(AsyncStateMachine[Command, Result], self._machine)
        while not self._stopped:
            try:
                results = await machine.apply(work.batches, work.applied)
            except ConnectionError as error:
                if self.problem is None:
                    log.error("cannot apply entry %d: %s; trying again", work.applied, error)  # noqa: TRY400
                self.problem = str(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if self.problem is not None:
                    log.info("applying again, up to entry %d", work.applied)
                self.problem = None
                return results
        return None

    def _on_applied(self, work: Work, results: Sequence[Sequence[Result] | None]) -> None:
        """Lets those who wait know."""
        self.applied = work.applied
        self._core.on_applied(work.applied)
        for sequence, result in zip(work.sequences, results, strict=True):
            if result is not None:
                self._proposals.resolve(sequence, result)
        self._reads.applied(work.applied)

    # --- the network and the disk -----------------------------------------------------------------------------

    def _on_messages(self, messages: list[PeerMessage]) -> None:
        if self._stopped:
            return
        try:
            for message in messages:
                if isinstance(message, ForwardedProposals):
                    self._take_foreign(message)
                elif isinstance(message, ProposalsRefused):
                    self._proposals.refuse(message.sequences, message.cause)
                else:
                    if type(message) is AppendEntries:
                        self.appends_received += 1
                    self._core.step(message)
        except Exception as error:
            self._fail(error)
        if self._foreign or self._core.has_ready():
            self._schedule_turn()

    def _durable_in_thread(self, number: int) -> None:
        self._from_thread(self._on_durable, number)

    def _disk_failed_in_thread(self, error: BaseException) -> None:
        self._from_thread(self._fail, error)

    def _from_thread(self, callback: Callable[..., None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, argument)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to tell

    def _on_durable(self, number: int) -> None:
        if self._stopped:
            return
        at_disk = self._at_disk
        while at_disk and at_disk[0][0] <= number:
            for message in at_disk.popleft()[1]:
                self._transport.send(message)
        self._core.on_persisted(number)
        self._run_turn()


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
