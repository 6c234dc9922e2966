"""RawNode: the core as a driver sees it.

A driver feeds it ticks, messages, proposals and confirmed disk writes, and carries out what each `Ready` says:

1. send ``messages`` at once;
2. put ``snapshot``, ``hard_state`` and ``entries`` into the disk's queue, in the order of the Readies;
3. when they are durable, send ``messages_after_append`` and call ``on_persisted(number)``;
4. restore the state machine from ``snapshot``, once that is durable, or apply ``committed``; then call ``on_applied``
   with the snapshot's index, or the last one of ``committed``.  An entry of kind CONFIGURATION is applied by
   ``apply_conf_change``.

The disk and the applying run beside the core: several Readies may be at the disk at a time.

Snapshots: a driver writes one of the state machine as it is at ``applied``, described by ``snapshot_meta``; when
it is durable ``snapshot_available`` tells the core, and ``compact`` drops entries that it holds (a tail is best
kept, so that followers who are only a little behind need no snapshot).  For every `InstallSnapshot` among the
messages the driver carries the snapshot's file to the peer, has the message handed to the core there when all of it
is on that disk, and says with ``report_snapshot`` how it went.  It may hand over a newer snapshot instead.  Another
`InstallSnapshot` for a peer whose snapshot is under way only takes the message's place: it is of a later term.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from common_raft.core import elections, leading, membership, reads, snapshots, transfer
from common_raft.core.config import Config, Rng, Stored
from common_raft.core.configuration import ConfChanges, Configuration
from common_raft.core.log import RaftLog
from common_raft.core.messages import NOBODY, Entry, HardState, Message, SnapshotMeta
from common_raft.core.progress import Progress
from common_raft.core.raft import Raft
from common_raft.core.reads import ReadState
from common_raft.core.role import Role


class SoftState(NamedTuple):
    """What is worth telling a person, and is not written down."""

    role: Role
    leader: int
    term: int


class Ready(NamedTuple):
    """What is new since the last Ready.

    ``entries`` start at ``first_index`` and replace whatever the log on disk holds from there on.  ``committed``
    starts at ``committed_index`` and holds only entries that are on this node's own disk.
    ``messages_after_append`` may rest on this Ready's writes *and on earlier ones*: a Ready with nothing to write
    takes its turn in the disk's queue all the same.

    ``snapshot``: what the leader sent in place of entries, and is on this disk.  The log on disk is to say so, and
    to hold only what follows on it: unless it has an entry of that term at that index, all of it goes.  ``entries``
    of the same Ready come behind it, and ``committed`` is empty until the state machine has been restored.
    """

    number: int
    hard_state: HardState | None
    first_index: int
    entries: list[Entry]
    committed_index: int
    committed: list[Entry]
    messages: list[Message]
    messages_after_append: list[Message]
    read_states: list[ReadState]
    soft_state: SoftState | None
    snapshot: SnapshotMeta | None

    @property
    def must_persist(self) -> bool:
        """Whether there is something to write; a snapshot always comes with a hard state."""
        return self.hard_state is not None or bool(self.entries)


class _InFlight(NamedTuple):
    """What the disk will have confirmed along with the Ready of this number."""

    number: int
    last_index: int
    truncations: int
    term: int
    vote: int


class RawNode:
    """One Raft node without I/O.  Not thread-safe: one thread, or one event loop, owns it."""

    def __init__(self, config: Config, stored: Stored, rng: Rng, applied: int | None = None) -> None:
        """``applied``: what the state machine has seen; the first Ready goes on behind it.

        None: what the snapshot holds, or nothing if there is none.  Where the log begins behind it, the state machine
        has yet to be restored from the snapshot: nothing is handed out, and this node does not ask for votes, until
        `resume_at` says that it was.  Raises LogDamaged when the log ends before ``applied``.
        """
        self._raft = Raft(config, stored, rng)
        if applied is None:
            applied = 0 if stored.snapshot is None else stored.snapshot.index
        if applied < self._raft.log.offset:
            self._raft.log.begin_behind(applied)
        else:
            membership.resume_at(self._raft, applied)
        self._number = 0
        self._in_flight: deque[_InFlight] = deque()
        self._told_hard_state = (self._raft.term, self._raft.vote)
        self._told_soft_state = SoftState(Role.FOLLOWER, NOBODY, self._raft.term)

    # --- what goes in -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._raft.tick()

    def step(self, message: Message) -> None:
        """Takes a message; of strangers only what a leader or a candidate may say, for others nothing."""
        self._raft.step(message)

    def propose(self, payloads: Sequence[bytes]) -> None:
        """Appends an entry for each payload.

        Raises ProposalDropped when not the leader or past a limit, and TypeError where one is no bytes.
        """
        leading.propose(self._raft, payloads)

    def propose_conf_change(self, changes: ConfChanges) -> None:
        """Appends a change of the configuration, which takes effect when it is applied; no changes leave a joint one.

        Raises ProposalDropped when not the leader, or while an earlier change (or, of a new leader, any earlier
        entry) has yet to be applied, InvalidConfChange, a ValueError, when the rules forbid it, and TypeError where
        it is not made of what it is declared to be made of.
        """
        membership.propose_conf_change(self._raft, changes)

    def apply_conf_change(self, index: int, changes: ConfChanges) -> Configuration:
        """The entry at ``index`` is being applied; call it before ``on_applied`` with that index or a higher one.

        Returns the configuration now in effect.  An entry that is handed out again changes nothing.
        """
        membership.apply_conf_change(self._raft, index, changes)
        return self._raft.configuration

    @property
    def may_propose_conf_change(self) -> bool:
        """Whether this node leads, and no change may be under way: what it has applied is what a next one follows."""
        return self._raft.role is Role.LEADER and membership.no_conf_change_pending(self._raft)

    def snapshot_available(self, meta: SnapshotMeta) -> None:
        """A snapshot is durable: followers may be given it.  Raises ValueError if it holds what is not applied."""
        snapshots.offer(self._raft, meta)

    def compact(self, index: int) -> None:
        """Drops entries up to ``index`` from memory.  Raises ValueError unless an available snapshot holds them."""
        snapshots.compact(self._raft, index)

    def report_snapshot(self, peer: int, ok: bool) -> None:
        """Tells how the last `InstallSnapshot` for ``peer`` ended: it was handed over there, or never will be."""
        snapshots.report(self._raft, peer, ok)

    def forget_leader(self) -> None:
        """Tells a follower that its leader is gone, so that it need not wait to vote for another one."""
        elections.forget_leader(self._raft)

    def read_index(self, context: int) -> None:
        """Asks for a ReadState named ``context``.  It may never come: ask again after a while.

        Raises NoLeader when nobody is known who could answer.
        """
        reads.read_index(self._raft, context)

    def transfer_leadership(self, target: int) -> None:
        """Hands leadership to ``target``; this node's own id ends what is under way.

        Raises NotLeader, or ValueError when ``target`` is no voter.
        """
        transfer.transfer_leadership(self._raft, target)

    def campaign(self) -> None:
        elections.campaign(self._raft)

    def report_unreachable(self, peer: int) -> None:
        """Tells that messages to ``peer`` were lost on the way."""
        leading.report_unreachable(self._raft, peer)

    def on_persisted(self, number: int) -> None:
        """Everything that the Readies up to ``number`` gave to the disk is durable."""
        raft = self._raft
        in_flight = self._in_flight
        before = raft.log.persisted
        while in_flight and in_flight[0].number <= number:
            done = in_flight.popleft()
            raft.log.persisted_to(done.last_index, done.truncations)
            elections.on_hard_state_persisted(raft, done.term, done.vote)
        if raft.role is Role.LEADER and raft.log.persisted > before:
            leading.maybe_commit(raft)

    def on_applied(self, index: int) -> None:
        """The state machine has seen everything up to ``index``, and in no call of before any more than that.

        Raises ValueError for what no Ready has handed out yet, and for less than before.
        """
        raft = self._raft
        raft.log.applied_to(index)
        if raft.configuration.auto_leave:
            membership.leave_joint_if_due(raft)

    def resume_at(self, applied: int) -> None:
        """The state machine is found to be at ``applied``, wherever it was before: the next Ready goes on behind it.

        Raises LogDamaged when the log ends before that, and Compacted when it begins behind it.
        """
        membership.resume_at(self._raft, applied)

    # --- what comes out ---------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        raft, log = self._raft, self._raft.log
        return bool(
            raft.wants_replication
            or raft.messages
            or raft.messages_after_append
            or raft.read_states
            or log.written < log.last_index
            or log.can_apply
            or (raft.term, raft.vote) != self._told_hard_state
            or (raft.role, raft.leader, raft.term) != self._told_soft_state
        )

    def ready(self) -> Ready:
        """Everything new since the last call; it counts as handed out."""
        raft, log = self._raft, self._raft.log
        if raft.wants_replication:
            leading.replicate(raft)
        restored = raft.restored
        first_index, entries = log.unwritten()
        committed_index, committed = log.to_apply(raft.config.max_apply_bytes)
        self._number += 1
        ready = Ready(
            self._number,
            self._new_hard_state(bool(entries) or restored is not None),
            first_index,
            entries,
            committed_index,
            committed,
            raft.messages,
            raft.messages_after_append,
            raft.read_states,
            self._new_soft_state(),
            restored,
        )
        raft.restored = None
        raft.messages, raft.messages_after_append, raft.read_states = [], [], []
        log.written = log.last_index
        log.handed_out += len(committed)
        if ready.must_persist:
            self._in_flight.append(
                _InFlight(self._number, log.last_index, log.truncations, raft.term, raft.vote)
            )
        return ready

    def _new_hard_state(self, forced: bool) -> HardState | None:
        """Term and vote when they changed; the commit index rides along with what is written anyway."""
        term_and_vote = (self._raft.term, self._raft.vote)
        if term_and_vote == self._told_hard_state and not forced:
            return None
        self._told_hard_state = term_and_vote
        return HardState(*term_and_vote, self._raft.log.committed)

    def _new_soft_state(self) -> SoftState | None:
        raft = self._raft
        if (raft.role, raft.leader, raft.term) == self._told_soft_state:
            return None
        self._told_soft_state = SoftState(raft.role, raft.leader, raft.term)
        return self._told_soft_state

    # --- a look inside ----------------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        return self._raft.id

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def vote(self) -> int:
        return self._raft.vote

    @property
    def role(self) -> Role:
        return self._raft.role

    @property
    def leader(self) -> int:
        """The leader of this term as far as this node knows; NOBODY when it does not."""
        return self._raft.leader

    @property
    def configuration(self) -> Configuration:
        """Who takes part, as far as this node has applied it."""
        return self._raft.configuration

    @property
    def followers(self) -> Mapping[int, Progress]:
        """What a leader knows of each follower and learner, to look at; empty on others."""
        return self._raft.progress if self._raft.role is Role.LEADER else {}

    def snapshot_meta(self) -> SnapshotMeta:
        """Describes a snapshot of the state machine as it is at ``applied``.

        Raises ValueError while that is not settled: a snapshot is being restored, or a change of configuration is
        being applied.
        """
        raft, log = self._raft, self._raft.log
        if raft.configuration_index > log.applied:
            raise ValueError(f"something is being applied behind {log.applied}: wait for on_applied")
        return SnapshotMeta(log.applied, log.term(log.applied), raft.configuration)

    @property
    def commit(self) -> int:
        return self._raft.log.committed

    @property
    def applied(self) -> int:
        return self._raft.log.applied

    @property
    def persisted(self) -> int:
        return self._raft.log.persisted

    @property
    def last_index(self) -> int:
        return self._raft.log.last_index

    @property
    def log(self) -> RaftLog:
        """The log itself, to look at: tests and status pages read it, only the core changes it."""
        return self._raft.log
