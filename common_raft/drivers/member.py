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

from common_raft.core import (
    NOBODY,
    Config,
    InstallSnapshot,
    Message,
    RawNode,
    Ready,
    Role,
    SoftState,
)
from common_raft.core.errors import NoLeader
from common_raft.core.messages import AppendEntries, TimeoutNow
from common_raft.drivers.administration import Administration
from common_raft.drivers.applying import Work, unpack
from common_raft.drivers.beside import Beside
from common_raft.drivers.forwarding import Forwarding
from common_raft.drivers.histories import check_history
from common_raft.drivers.leaving import Leaving
from common_raft.drivers.machine import Command, Machine, Result
from common_raft.drivers.marks import StoredLog, members_of
from common_raft.drivers.measuring import Measuring
from common_raft.drivers.membership import MemberInfo
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import Proposals
from common_raft.drivers.reads import Reads
from common_raft.drivers.reconfiguration import Reconfiguration, first_members, first_voters
from common_raft.drivers.snapshotting import Snapshotting
from common_raft.drivers.ticks import Ticks
from common_raft.measures import Following, Measurements, Traffic
from common_raft.storage import SnapshotMark, Wal, WalWriter
from common_raft.transport.links import Transport
from common_raft.transport.messages import (
    ChangeRefused,
    ForwardedChange,
    ForwardedProposals,
    PeerMessage,
    ProposalsRefused,
    SnapshotAck,
    SnapshotChunk,
)

log = logging.getLogger(__name__)

#: What a machine takes in one call, and may have to send somewhere; one entry may be larger.
MAX_APPLY_BYTES = 4 << 20
#: Between two attempts to reach a state machine that is away.
RETRY_SECONDS = 0.25

# What is not the core's, by whose it is.  Tuples: a union in its place would be made anew for each message.
_OF_FORWARDING = (ForwardedProposals, ProposalsRefused)
_OF_SNAPSHOTTING = (SnapshotChunk, SnapshotAck)
_OF_RECONFIGURATION = (ForwardedChange, ChangeRefused)


class Whole(Protocol):
    """An event, of whatever kind the driver waits for."""

    def set(self) -> None: ...


class Member(Administration, Generic[Command, Result]):
    """One member of a cluster, less what makes it run.

    ``problem`` says why the machine cannot be reached, while it cannot.

    Raises LogDamaged when the machine has applied more than the log holds, ValueError when the log is another node's,
    or snapshots are asked of a machine that has none.
    """

    _transport: Transport
    _whole: Whole  # set once the state that the log begins behind is there, or the node stops

    def __init__(
        self, options: NodeOptions, wal: Wal, machine: Machine[Command], now: Callable[[], float]
    ) -> None:
        _check(options, wal, machine)
        self._options = options
        self._now = now
        self.id, self.name, self.cluster_id = options.id, options.name, options.cluster_id
        incarnation = SystemRandom().getrandbits(32)
        found = wal.recovered
        applied = machine.applied
        if options.idle_check is not None and found.snapshot is not None:
            applied = max(applied, found.snapshot.index)  # it says by itself if it has less
        self._members = first_members(options)
        voters = first_voters(self._members)
        if found.snapshot is not None:
            self._members.restore(members_of(found.snapshot))
        config = self._core_config(options, voters)
        self._core = RawNode(config, StoredLog(found), Random(incarnation ^ options.id), applied)
        self._ticks = Ticks(options, self._core, config.election_tick, lambda: self._now())
        self._reconfiguration = Reconfiguration(
            options, self._core, self._members, incarnation, now, self._fail
        )
        self._proposals: Proposals[Command, Result] = Proposals(
            machine, options.id, incarnation, options.request_timeout
        )
        self._reads = Reads(incarnation, options.request_timeout)
        self._forwarding = Forwarding(self._core, self._proposals, options.id, now)
        self._leaving = Leaving(options, self._core, self._forwarding, now)
        self._at_disk: deque[tuple[int, list[Message]]] = deque()
        self._writer = self._writer_of(wal)
        self._snapshots = wal.snapshots
        self._log_measures = wal.measures
        self._measuring = Measuring(options.heartbeat_interval)
        self._beside = Beside(self._post)
        self._snapshotting = Snapshotting(
            options,
            self._core,
            self._snapshots,
            self._writer,
            wal.recovered.snapshot,
            self._send,
            run_long=self._beside.run_long,
            run_short=self._beside.run_short,
            post=self._post,
            now=lambda: self._now(),
        )
        self._restoring: tuple[int, SnapshotMark] | None = None  # once the Ready of this number is durable
        self._stopped = False
        self.problem: str | None = None
        self._machine_is_away = False
        # What answers are stamped with; plain attributes, since every answer reads them.
        self.term = self._core.term
        self.applied = self._core.applied
        self.leader = NOBODY
        self._leader_since = now()

    @staticmethod
    def _core_config(options: NodeOptions, voters: tuple[int, ...]) -> Config:
        return Config(
            options.id,
            voters,
            election_tick=max(2, round(options.election_timeout / options.heartbeat_interval)),
            heartbeat_tick=1,
            max_apply_bytes=MAX_APPLY_BYTES,
            lease_reads=options.lease_reads,
        )

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def leader_seconds(self) -> float:
        """For how long the leader, or that there is none, has been known."""
        return self._now() - self._leader_since

    @property
    def members(self) -> list[MemberInfo]:
        """All members, as far as this node has applied what was said about them; may be asked in any thread."""
        return self._members.all()

    @property
    def published(self) -> bool:
        """Whether the members' table has this one's name and client URLs; may be asked in any thread."""
        return self._reconfiguration.published

    def _connect(self, transport: Transport) -> None:
        """From now on this member reaches the others."""
        self._transport = transport
        for part in (self._forwarding, self._reconfiguration, self._leaving):
            part.transport = transport
        transport.update(self._reconfiguration.roster())

    def measurements(self) -> Measurements:
        """This node as it is now; may be asked in any thread."""
        measuring, core = self._measuring, self._core
        others = [member.id for member in self.members if member.id != self.id]
        sending, receiving = measuring.rates()
        traffic, followers = dict(self._transport.traffic), dict(measuring.followers)
        return Measurements(
            committed=core.commit,
            pending=self._proposals.count,
            failed=self._proposals.failed,
            failed_reads=self._reads.failed,
            leader_changes=measuring.leader_changes,
            late_heartbeats=measuring.late_heartbeats,
            is_learner=self.id in core.configuration.learners,
            restoring=core.log.restoring,
            log=self._log_measures,
            snapshots=self._snapshots.measures,
            traffic={peer: traffic.get(peer) or Traffic() for peer in others},
            followers={peer: followers.get(peer) or Following() for peer in others},
            appends_sent=measuring.appends_sent,
            appends_received=measuring.appends_received,
            sending=sending,
            receiving=receiving,
        )

    # --- what a driver adds -----------------------------------------------------------------------------------

    def _writer_of(self, wal: Wal) -> WalWriter:
        return WalWriter(wal, self._durable_in_thread, self._disk_failed_in_thread)

    def _fail(self, error: BaseException) -> None:
        """Ends the node: it says nothing more to anybody."""
        raise NotImplementedError

    def _schedule_turn(self) -> None:
        """Sees to it that `_advance` is called soon."""
        raise NotImplementedError

    def _apply(self, work: Work) -> None:
        """Applies committed entries, now or later, in their order; then calls `_on_applied`."""
        raise NotImplementedError

    def _restore(self, mark: SnapshotMark) -> None:
        """Has the machine start from this snapshot, beside and after what is being applied; then `_on_restored`."""
        raise NotImplementedError

    def _take_state(self) -> None:
        """Asks the machine for its state; then `_write_state`, when the core's ``applied`` is that of the state."""
        raise NotImplementedError

    def _post(self, callback: Callable[[Any], None], argument: Any) -> None:
        """Called in any thread: gets ``callback`` called where the core lives, and a turn behind it."""
        raise NotImplementedError

    def _durable_in_thread(self, number: int) -> None:
        """Called in the writer's thread: gets `_on_persisted` called where the core lives."""
        raise NotImplementedError

    def _disk_failed_in_thread(self, error: BaseException) -> None:
        """Called in the writer's thread: ends the node."""
        raise NotImplementedError

    # --- turns ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        self._ticks.catch_up()
        self._leaving.advance()
        self._forwarding.advance(disk_is_busy=bool(self._at_disk))
        self._ask_reads()
        self._reconfiguration.advance()
        while self._writer.has_room and self._core.has_ready():
            self._carry_out(self._core.ready())
        self._transport.flush()

    def _on_tick(self, now: float) -> None:
        """Once in a heartbeat interval."""
        self._ticks.on_timer()
        self._measuring.ticked(len(self._core.followers))
        # Also what waits for the disk or for a leader gets its deadline now.
        self._proposals.seal_pending(now)
        self._proposals.expire(now)
        self._forwarding.on_tick()
        self._reads.ask_again(now - self._options.election_timeout)
        self._reads.expire(now)
        self._snapshotting.tick(now)
        self._reconfiguration.on_tick()
        self._leaving.on_tick()

    def _stop_waiting(self) -> None:
        """Clients that wait are told that the node stops."""
        self._stopped = True
        self._beside.stop()
        self._snapshotting.abandon()
        self._proposals.stop()
        self._reads.stop()
        self._reconfiguration.stop()
        self._leaving.stop()

    def _close_snapshots(self) -> None:
        """Waits for what runs beside; what has not begun will not."""
        self._beside.close()
        self._snapshotting.stop()

    def _carry_out(self, ready: Ready) -> None:
        send = self._transport.send
        for message in ready.messages:
            if type(message) is InstallSnapshot:
                self._snapshotting.send(message, self._now())
                continue
            self._measuring.sent(message)
            send(message)
        if ready.must_persist:
            mark = None
            if ready.snapshot is not None:
                mark = self._snapshotting.installed(ready.snapshot)
                self._restoring = ready.number, mark
            self._at_disk.append((ready.number, ready.messages_after_append))
            # Followers first: the writer's thread, once it is awake, competes for the interpreter.
            self._transport.flush()
            if mark is None and self._writer.write_at_once(
                ready.hard_state, ready.first_index, ready.entries
            ):
                self._on_persisted(ready.number)
            else:
                self._writer.submit(ready.number, ready.hard_state, ready.first_index, ready.entries, mark)
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
            proposals = cast("Proposals[Any, Any]", self._proposals)
            self._snapshotting.committed(sum([len(entry.data) for entry in ready.committed]))
            self._apply(unpack(ready.committed_index, ready.committed, proposals))
        elif ready.read_states:
            self._reads.applied(self.applied)

    def _on_soft_state(self, state: SoftState) -> None:
        self.term = state.term
        if state.leader != self.leader:
            self.leader, self._leader_since = state.leader, self._now()
            self._measuring.leader_is(state.leader)
            who = "this node" if state.leader == self.id else f"{state.leader:x}"
            log.info("term %d: the leader is %s", state.term, who if state.leader else "not known")
            self._reads.ask_again(self._now() + 1)
            self._reconfiguration.publish()
        if state.role is not Role.LEADER:
            self._snapshotting.leads_no_longer()
            self._reconfiguration.leads_no_longer()
            self._forwarding.leads_no_longer()
        self._schedule_turn()

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
        if work.changes:
            self._reconfiguration.on_applied(work.changes)
            self._schedule_turn()  # for the change that waited for these
        self._core.on_applied(work.applied)
        for sequence, result in zip(work.sequences, results, strict=True):
            if result is not None:
                self._proposals.resolve(sequence, result)
        self._reads.applied(work.applied)
        if self._snapshotting.due:
            self._snapshotting.begin()
            self._take_state()

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

    # --- snapshots --------------------------------------------------------------------------------------------

    def _write_state(self, chunks: Iterable[bytes]) -> None:
        self._snapshotting.write(self._members.encode(), chunks)

    def _on_restored(self, mark: SnapshotMark) -> None:
        """The machine has started from ``mark``."""
        log.info("the state is that of entry %d now", mark.index)
        self._members.restore(members_of(mark))
        self._go_on_behind(mark.index)
        if not self._core.log.restoring:
            self._whole.set()

    def _begin(self) -> None:
        """At the start: where the machine has less than the log's snapshot, it is restored beside."""
        self._lead_if_alone()
        if self._core.log.restoring:
            assert self._snapshotting.newest is not None
            self._restore(self._snapshotting.newest)
        else:
            self._whole.set()

    def _lead_if_alone(self) -> None:
        """Nobody else could have a leader."""
        if self._core.configuration.voters == (self.id,):
            self._core.campaign()

    def _go_on_behind(self, applied: int) -> None:
        """The machine is at ``applied``, wherever it was before: what follows is handed out again.

        Unless the log begins later: then a newer snapshot has come meanwhile, and is next.
        """
        self.applied = applied
        if applied >= self._core.log.offset:
            self._core.resume_at(applied)
            self._reconfiguration.replay(applied)
            self._reconfiguration.on_restored()
            self._lead_if_alone()
        self._reads.applied(applied)
        self._schedule_turn()

    def _send(self, message: SnapshotChunk | SnapshotAck) -> None:
        self._transport.send(message)
        self._transport.flush()

    # --- the network and the disk -----------------------------------------------------------------------------

    def _on_unreachable(self, peer: int) -> None:
        self._measuring.unreachable(peer)
        self._core.report_unreachable(peer)

    def _take_messages(self, messages: list[PeerMessage]) -> None:
        self._ticks.catch_up()
        for message in messages:
            if isinstance(message, _OF_FORWARDING):
                self._forwarding.take(message)
            elif isinstance(message, _OF_SNAPSHOTTING):
                self._snapshotting.take(message, self._now())
            elif isinstance(message, _OF_RECONFIGURATION):
                self._reconfiguration.take(message)
            else:
                self._step(message)

    def _step(self, message: Message) -> None:
        self._measuring.received(message)
        if type(message) is AppendEntries:
            check_history(self._core, message)
        elif type(message) is TimeoutNow:
            if self._leaving.refuses:
                log.info("this node is to stop: it does not take over from member %x", message.sender)
                return
            log.info("member %x hands the leadership over to this node", message.sender)
        self._core.step(message)

    def _on_persisted(self, number: int) -> None:
        at_disk = self._at_disk
        while at_disk and at_disk[0][0] <= number:
            for message in at_disk.popleft()[1]:
                self._transport.send(message)
        self._core.on_persisted(number)
        if self._restoring is not None and self._restoring[0] <= number:
            _, mark = self._restoring
            self._restoring = None
            self._restore(mark)


def _check(options: NodeOptions, wal: Wal, machine: Machine[Any]) -> None:
    """:raises ValueError: the parts do not belong together."""
    if wal.ids != (options.cluster_id, options.id):
        cluster, node = wal.ids
        raise ValueError(
            f"the log is that of node {node:x} in cluster {cluster:x}, and this is to be node {options.id:x} in "
            f"cluster {options.cluster_id:x}: its votes and entries are not this node's"
        )
    if options.snapshot_count and not (hasattr(machine, "snapshot") and hasattr(machine, "restore")):
        raise ValueError(
            f"snapshot_count is {options.snapshot_count}, and {type(machine).__name__} has no snapshot and restore"
        )


def next_tick(due: float, now: float, interval: float) -> float:
    """When the next tick is due, once the one of ``due`` has come.

    A tick that comes late does not put off those after it: ten of them, each a little late on a busy machine, would
    otherwise make the election timeout longer than what was asked for.  Ticks that were missed altogether are not
    made up for, so that a process that was stopped does not take the time for its leader's silence.
    """
    due += interval
    return due if due > now else now + interval
