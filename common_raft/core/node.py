"""RawNode: the core as a driver sees it.

A driver feeds it ticks, messages, proposals and confirmed disk writes, and carries out what each `Ready` says:

1. send ``messages`` at once;
2. put ``hard_state`` and ``entries`` into the disk's queue, in the order of the Readies;
3. when they are durable, send ``messages_after_append`` and call ``on_persisted(number)``;
4. apply ``committed``, then call ``on_applied`` with the last index of it.

The disk and the applying run beside the core: several Readies may be at the disk at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from common_raft.core.log import RaftLog
from common_raft.core.messages import NOBODY, Entry, HardState, Message
from common_raft.core.raft import Config, Raft, ReadState, Rng, Role, Stored


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

    @property
    def must_persist(self) -> bool:
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

    def __init__(self, config: Config, stored: Stored, rng: Rng, applied: int = 0) -> None:
        """``applied``: what a state machine that keeps its own state has seen; the first Ready goes on behind it.

        Raises LogDamaged when the log ends before that.
        """
        self._raft = Raft(config, stored, rng)
        self._raft.log.resume_at(applied)
        self._number = 0
        self._in_flight: deque[_InFlight] = deque()
        self._told_hard_state = (self._raft.term, self._raft.vote)
        self._told_soft_state = SoftState(Role.FOLLOWER, NOBODY, self._raft.term)

    # --- what goes in -----------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._raft.tick()

    def step(self, message: Message) -> None:
        """Takes a message from a peer; from strangers, or for somebody else, it is ignored."""
        self._raft.step(message)

    def propose(self, payloads: Sequence[bytes]) -> None:
        """Appends an entry for each payload.  Raises ProposalDropped when not the leader or past a limit."""
        self._raft.propose(payloads)

    def read_index(self, context: int) -> None:
        """Asks for a ReadState named ``context``.  It may never come: ask again after a while.

        Raises NoLeader when nobody is known who could answer.
        """
        self._raft.read_index(context)

    def transfer_leadership(self, target: int) -> None:
        """Hands leadership to ``target``.  Raises NotLeader, or ValueError when it is no voter."""
        self._raft.transfer_leadership(target)

    def campaign(self) -> None:
        self._raft.campaign()

    def report_unreachable(self, peer: int) -> None:
        """Tells that messages to ``peer`` were lost on the way."""
        self._raft.report_unreachable(peer)

    def on_persisted(self, number: int) -> None:
        """Everything that the Readies up to ``number`` gave to the disk is durable."""
        raft = self._raft
        in_flight = self._in_flight
        before = raft.log.persisted
        while in_flight and in_flight[0].number <= number:
            done = in_flight.popleft()
            raft.log.persisted_to(done.last_index, done.truncations)
            raft.on_hard_state_persisted(done.term, done.vote)
        if raft.role is Role.LEADER and raft.log.persisted > before:
            raft.maybe_commit()

    def on_applied(self, index: int) -> None:
        self._raft.log.applied = index

    def resume_at(self, applied: int) -> None:
        """The state machine is found to be at ``applied``, wherever it was before: the next Ready goes on behind it.

        Raises LogDamaged when the log ends before that.
        """
        self._raft.log.resume_at(applied)

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
            raft.replicate()
        first_index, entries = log.unwritten()
        committed_index, committed = log.to_apply(raft.config.max_apply_bytes)
        self._number += 1
        ready = Ready(
            self._number,
            self._new_hard_state(bool(entries)),
            first_index,
            entries,
            committed_index,
            committed,
            raft.messages,
            raft.messages_after_append,
            raft.read_states,
            self._new_soft_state(),
        )
        raft.messages, raft.messages_after_append, raft.read_states = [], [], []
        log.written = log.last_index
        log.handed_out += len(committed)
        if ready.must_persist:
            self._in_flight.append(
                _InFlight(self._number, log.last_index, log.truncations, raft.term, raft.vote)
            )
        return ready

    def _new_hard_state(self, with_entries: bool) -> HardState | None:
        """Term and vote when they changed; the commit index rides along with entries, which are written anyway."""
        term_and_vote = (self._raft.term, self._raft.vote)
        if term_and_vote == self._told_hard_state and not with_entries:
            return None
        self._told_hard_state = term_and_vote
        return HardState(*term_and_vote, self._raft.log.committed)

    def _new_soft_state(self) -> SoftState | None:
        soft_state = SoftState(self._raft.role, self._raft.leader, self._raft.term)
        if soft_state == self._told_soft_state:
            return None
        self._told_soft_state = soft_state
        return soft_state

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
