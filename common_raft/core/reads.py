"""Linearizable reads without an entry in the log: they see every write acknowledged before they began (thesis 6.4).

ReadIndex: the leader notes its commit index, then makes sure that it still was the leader *after* the read had
arrived: a majority must answer a heartbeat that was sent later than that.  Heartbeats carry the number of a round,
answers return it; all reads that arrive while a round is under way share the next one.

A `Lease` spares the round, at the price of trusting clocks.

First come the functions of a node that reads, then what they count with: the rounds and the lease.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common_raft.core.errors import NoLeader
from common_raft.core.messages import NOBODY, ReadIndex, ReadIndexResponse
from common_raft.core.quorum import joint_committed_index
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft

#: Reads that wait for a confirmation; one of a driver's stands for all reads of a turn.  What comes beyond it is
#: dropped: whoever asks must ask again in any case, as messages get lost.
MAX_WAITING_READS = 4096


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read named ``context`` is linearizable once ``index`` has been applied."""

    context: int
    index: int


def read_index(raft: Raft, context: int) -> None:
    """Asks for an index at which a read is linearizable; the answer comes as a ReadState, or never."""
    if raft.role is Role.LEADER:
        read_as_leader(raft, raft.id, context)
    elif raft.leader != NOBODY:
        raft.messages.append(ReadIndex(raft.leader, raft.id, raft.term, context))
    else:
        raise NoLeader("no leader is known")


def handle_read_index(raft: Raft, message: ReadIndex) -> None:
    read_as_leader(raft, message.sender, message.context)


def handle_read_index_response(raft: Raft, message: ReadIndexResponse) -> None:
    raft.read_states.append(ReadState(message.context, message.index))


def read_as_leader(raft: Raft, sender: int, context: int) -> None:
    if raft.log.term(raft.log.committed) != raft.term:
        # Until something of this term is committed, the commit index may lag behind what an earlier leader
        # acknowledged (thesis 6.4, step 1).
        if len(raft.postponed_reads) < MAX_WAITING_READS:
            raft.postponed_reads.append((sender, context))
    elif raft.lease is not None and raft.lease.holds(raft.ticks):
        _deliver_one(raft, sender, context, raft.log.committed)
    elif raft.read_rounds.waiting < MAX_WAITING_READS:
        add_read(raft, sender, context)


def take_up_postponed(raft: Raft) -> None:
    """The first entry of this term is committed: now the commit index is good for reads."""
    postponed, raft.postponed_reads = raft.postponed_reads, []
    for sender, context in postponed:
        add_read(raft, sender, context)


def add_read(raft: Raft, sender: int, context: int) -> None:
    if raft.read_rounds.add(raft.log.committed, sender, context):
        _start_round(raft)
    else:
        _confirm_if_alone(raft)  # with a lease each heartbeat begins a round


def _start_round(raft: Raft) -> None:
    raft.broadcast_heartbeat()
    _confirm_if_alone(raft)


def _confirm_if_alone(raft: Raft) -> None:
    if raft.configuration.voters == (raft.id,):  # nobody else is asked, or an answer is on its way
        deliver(raft, *raft.read_rounds.confirm())


def deliver(raft: Raft, reads: list[PendingRead], another_round: bool) -> None:
    """Answers what a majority has confirmed (the two values that `ReadRounds` gives back)."""
    if raft.lease is not None:
        raft.lease.confirmed(raft.read_rounds.confirmed)
    for read in reads:
        _deliver_one(raft, read.sender, read.context, read.index)
    if another_round:
        _start_round(raft)


def _deliver_one(raft: Raft, sender: int, context: int, index: int) -> None:
    if sender == raft.id:
        raft.read_states.append(ReadState(context, index))
    else:
        raft.messages.append(ReadIndexResponse(sender, raft.id, raft.term, context, index))


@dataclass(frozen=True, slots=True)
class PendingRead:
    round: int
    index: int  #: the commit index when the read arrived
    sender: int  #: who asked: a follower or the leader itself
    context: int  #: the asker's own name for the read


class ReadRounds:
    __slots__ = ("_answered", "_halves", "_self_id", "_waiting", "confirmed", "current")

    def __init__(self, self_id: int, halves: Sequence[Collection[int]]) -> None:
        self._self_id = self_id
        self._halves = halves
        self._waiting: deque[PendingRead] = deque()
        self._answered: dict[int, int] = {}
        self.confirmed = 0  #: the last round that a majority has answered
        self.current = 0  #: the round that heartbeats carry now
        self.reconfigure(halves)

    def reconfigure(self, halves: Sequence[Collection[int]]) -> None:
        """Others vote from now on: what they have answered so far counts, what others have does not."""
        self._halves = halves
        self._answered = {voter: self._answered.get(voter, 0) for voters in halves for voter in voters}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def begin(self) -> int:
        """Numbers a round of its own, for which no read waits yet."""
        self.current += 1
        return self.current

    def add(self, index: int, sender: int, context: int) -> bool:
        """Notes a read; returns whether a new round must be sent out now (else it shares the next one)."""
        idle = self.confirmed == self.current
        # The current round's heartbeats left before this read came: only a later round can confirm it.
        self._waiting.append(PendingRead(self.current + 1, index, sender, context))
        if idle:
            self.current += 1
        return idle

    def answered(self, voter: int, round_: int) -> tuple[list[PendingRead], bool]:
        """A voter answered ``round_``: returns the reads this confirms, and whether a new round must go out."""
        if round_ > self.current or round_ <= self._answered.get(voter, round_):
            return [], False
        self._answered[voter] = round_
        return self.confirm()

    def confirm(self) -> tuple[list[PendingRead], bool]:
        """What a majority has confirmed by now; the leader itself agrees with its own current round."""
        self._answered[self._self_id] = self.current
        confirmed = joint_committed_index(self._answered, self._halves)
        if confirmed <= self.confirmed:
            return [], False
        self.confirmed = confirmed
        done = []
        while self._waiting and self._waiting[0].round <= confirmed:
            done.append(self._waiting.popleft())
        another = bool(self._waiting) and confirmed == self.current
        if another:
            self.current += 1
        return done, another


class Lease:
    """Until when nobody else can lead, so that reads need not ask (thesis 6.4.1; etcd raft's ReadOnlyLeaseBased).

    Whoever hears a leader's heartbeat neither campaigns nor votes for ``election_tick`` of its own ticks, and says so
    with its answer; a node that has just started behaves as if it had heard one, since it may have.  So when a
    majority has answered a heartbeat, no other leader is elected for that long *from when it was sent*.  (etcd's
    lease lasts until its next check of the quorum, which may be twice as long as the promises that it rests on.)

    **What it assumes of clocks:** two thirds of the promised time are used, so no node's ticks may come more than
    1.5 times as fast as the leader's, and the leader's ticks must not stand still while it answers reads: a process
    that was stopped (SIGSTOP, a virtual machine that is moved) has to make up for the ticks that it has missed
    before it does anything else.  If that does not hold, a read may miss writes that another leader acknowledged.
    All nodes must have the option set, since all of them make the promise.

    A leader that hands over has told somebody to campaign in spite of all promises: it has no lease any more.
    """

    __slots__ = ("_election_tick", "_heartbeats", "_since")

    def __init__(self, election_tick: int) -> None:
        self._election_tick = election_tick
        # (round, when it was sent) of those not confirmed; check-quorum ends the leadership before they are many.
        self._heartbeats: deque[tuple[int, int]] = deque()
        self._since: int | None = None

    def sent(self, round_: int, now: int) -> None:
        """Heartbeats of ``round_`` leave; ``now`` counts the leader's ticks."""
        self._heartbeats.append((round_, now))

    def confirmed(self, round_: int) -> None:
        """A majority has answered ``round_``."""
        while self._heartbeats and self._heartbeats[0][0] <= round_:
            self._since = self._heartbeats.popleft()[1]

    def end(self) -> None:
        """Others vote now: their promises have to be heard anew."""
        self._since = None

    def holds(self, now: int) -> bool:
        # A tick is not over yet: what was sent at the beginning of one tick is one longer ago than the difference.
        return self._since is not None and 3 * (now - self._since + 1) <= 2 * (self._election_tick - 1)
