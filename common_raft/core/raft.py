"""The protocol: what a node does on a tick, on a message and on a request, given what it knows.

No I/O, no clock, no threads, no randomness of its own: ticks, messages and confirmed disk writes come in, and
what must be sent and written is collected in fields that `node.RawNode` turns into a Ready.  Sources: the Raft
paper (extended version; "paper"), Ongaro's thesis ("thesis"), and etcd's raft where both leave a choice.

Who handles which message is the table at the end of this file.  Three rules hold around it:

1. Terms (paper, 5.1).  A message of a higher term makes the receiver a follower of that term, one of a lower term
   is void.  A pre-vote request and its grant carry a term that nobody has entered yet and change nothing.
2. Persistence.  Whatever promises something about this node's disk (a vote, an acknowledged append), and a
   candidate's requests, which rest on a term and a vote for itself, go to ``messages_after_append``: they leave
   once everything known at that moment is on disk.  A leader's appends go out at once, beside its own write
   (thesis 10.2.1); its own log counts towards the commit index only as far as its disk has confirmed it.
3. Sending is late.  Handlers only note that followers lack something (``wants_replication``); appends are built
   when a Ready is taken, so that everything that came in one turn leaves in one message for each follower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from common_raft.core.errors import NoLeader, NotLeader, ProposalDropped
from common_raft.core.log import RaftLog
from common_raft.core.messages import (
    NOBODY,
    AppendEntries,
    AppendResponse,
    Commit,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from common_raft.core.progress import Inflights, Progress, ProgressState
from common_raft.core.quorum import VoteResult, committed_index, majority, vote_result
from common_raft.core.read_only import PendingRead, ReadRounds

#: Reads that wait for a confirmation; one of a driver's stands for all reads of a turn.  What comes beyond it is
#: dropped: whoever asks must ask again in any case, as messages get lost.
MAX_WAITING_READS = 4096


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Rng(Protocol):
    """Where randomness comes from; `random.Random` fits."""

    def randrange(self, start: int, stop: int, /) -> int: ...


class Stored(Protocol):
    """What a node finds on its disk when it starts; read once."""

    @property
    def hard_state(self) -> HardState: ...
    @property
    def first_index(self) -> int: ...
    @property
    def entries(self) -> Sequence[Entry]: ...


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read named ``context`` is linearizable once ``index`` has been applied."""

    context: int
    index: int


@dataclass(frozen=True, slots=True)
class Config:
    """How one node takes part.  Ticks are the driver's unit of time; etcd's defaults are 10 and 1."""

    id: int
    voters: tuple[int, ...]
    election_tick: int = 10  #: a follower campaigns after this many silent ticks, and up to as many again
    heartbeat_tick: int = 1
    max_message_bytes: int = 1 << 20  #: of entries in one append (one entry is always let through)
    max_inflight_messages: int = 256  #: appends to one follower without an answer
    max_inflight_bytes: int = 64 << 20
    max_uncommitted_bytes: int = 256 << 20  #: proposals beyond this are dropped until some commit
    max_apply_bytes: int = 64 << 20  #: of committed entries in one Ready
    pre_vote: bool = True
    check_quorum: bool = True

    def __post_init__(self) -> None:
        if self.id == NOBODY or self.id not in self.voters:
            raise ValueError(f"id {self.id:x} must be one of the voters {[f'{v:x}' for v in self.voters]}")
        if len(set(self.voters)) != len(self.voters):
            raise ValueError(f"voters {[f'{v:x}' for v in self.voters]} must differ from each other")
        if not 0 < self.heartbeat_tick < self.election_tick:
            raise ValueError(
                f"heartbeat_tick {self.heartbeat_tick} must be above 0 and below election_tick {self.election_tick}"
            )


class Raft:
    """One node's state; `node.RawNode` is its public face."""

    __slots__ = (
        "_election_elapsed",
        "_heartbeat_elapsed",
        "_postponed_reads",
        "_randomized_timeout",
        "_reads",
        "_rng",
        "_transferee",
        "_uncommitted_bytes",
        "_votes",
        "config",
        "id",
        "leader",
        "log",
        "messages",
        "messages_after_append",
        "peers",
        "progress",
        "read_states",
        "role",
        "term",
        "vote",
        "wants_replication",
    )

    def __init__(self, config: Config, stored: Stored, rng: Rng) -> None:
        hard_state = stored.hard_state
        self.config = config
        self.id = config.id
        self.peers = tuple(voter for voter in config.voters if voter != config.id)
        self.log = RaftLog(stored.first_index, stored.entries)
        self.log.commit_to(hard_state.commit)
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.messages: list[Message] = []
        self.messages_after_append: list[Message] = []
        self.read_states: list[ReadState] = []
        self.progress: dict[int, Progress] = {}
        self.wants_replication = False
        self._rng = rng
        self._votes: dict[int, bool] = {}
        self._reads = ReadRounds(self.id, config.voters)
        self._postponed_reads: list[tuple[int, int]] = []
        self._transferee = NOBODY
        self._uncommitted_bytes = 0
        self._election_elapsed = 0
        self._heartbeat_elapsed = 0
        self._randomized_timeout = 0
        self._reset_election_timer()

    # --- time -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        if self.role is Role.LEADER:
            self._tick_leader()
        else:
            self._election_elapsed += 1
            if self._election_elapsed >= self._randomized_timeout:
                self.campaign()

    def _tick_leader(self) -> None:
        self._election_elapsed += 1
        if self._election_elapsed >= self.config.election_tick:
            self._election_elapsed = 0
            self._transferee = (
                NOBODY  # the target did not make it in time: take proposals again (thesis 3.10)
            )
            if self.config.check_quorum and not self._heard_from_quorum():
                self.become_follower(self.term, NOBODY)
                return
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self.config.heartbeat_tick:
            self._broadcast_heartbeat()

    def _heard_from_quorum(self) -> bool:
        """Whether a majority answered since the last look (thesis 6.2: a leader cut off steps down)."""
        active = 1 + sum(progress.recent_active for progress in self.progress.values())
        for progress in self.progress.values():
            progress.recent_active = False
        return active >= majority(len(self.config.voters))

    def _reset_election_timer(self) -> None:
        """Timeouts differ from node to node and from time to time, so that votes rarely split (paper, 5.2)."""
        self._election_elapsed = 0
        self._randomized_timeout = self.config.election_tick + self._rng.randrange(
            0, self.config.election_tick
        )

    # --- roles ------------------------------------------------------------------------------------------------

    def become_follower(self, term: int, leader: int) -> None:
        self._reset(term)
        self.role = Role.FOLLOWER
        self.leader = leader

    def _reset(self, term: int) -> None:
        if term != self.term:
            self.term = term
            self.vote = NOBODY
        self.leader = NOBODY
        self._votes = {}
        self._transferee = NOBODY
        self._postponed_reads = []
        self._heartbeat_elapsed = 0
        self.wants_replication = False
        self._reset_election_timer()

    def campaign(self, *, transfer: bool = False) -> None:
        """Starts an election; with pre-vote it first asks whether it could win one (thesis 9.6).

        A transfer goes without: the leader itself wants to be replaced (thesis 3.10).
        """
        if self.role is Role.LEADER:
            return
        if self.config.pre_vote and not transfer:
            self._become_pre_candidate()
        else:
            self._become_candidate(transfer)

    def _become_pre_candidate(self) -> None:
        """Neither term nor vote change, so that asking costs the cluster nothing."""
        self._reset(self.term)
        self.role = Role.PRE_CANDIDATE
        self.messages += self._vote_requests(self.term + 1, pre_vote=True)
        self._record_vote(self.id, granted=True)

    def _become_candidate(self, transfer: bool) -> None:
        """The own vote counts when the disk has it (`on_hard_state_persisted`), and so do the requests wait.

        Had they left earlier, a crash could make this node forget its term and log's end, campaign for the same
        term again with a shorter log, and count a vote that was granted to the longer one.
        """
        self._reset(self.term + 1)
        self.role = Role.CANDIDATE
        self.vote = self.id
        self.messages_after_append += self._vote_requests(self.term, pre_vote=False, transfer=transfer)

    def _vote_requests(self, term: int, *, pre_vote: bool, transfer: bool = False) -> list[Message]:
        log = self.log
        return [
            RequestVote(peer, self.id, term, log.last_index, log.last_term, pre_vote, transfer)
            for peer in self.peers
        ]

    def _become_leader(self) -> None:
        self._reset(self.term)
        self.role = Role.LEADER
        self.leader = self.id
        config = self.config
        next_index = self.log.last_index + 1
        self.progress = {
            peer: Progress(next_index, Inflights(config.max_inflight_messages, config.max_inflight_bytes))
            for peer in self.peers
        }
        self._reads = ReadRounds(self.id, config.voters)
        self._uncommitted_bytes = 0
        # Entries of earlier terms commit only along with one of this term (paper, 5.4.2); reads wait for it, too.
        self._append([Entry(self.term, EntryKind.NOOP, b"")])

    # --- messages in ------------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Takes one message.  What is not addressed to this node, or comes from a stranger, is ignored."""
        if message.to != self.id or message.sender not in self.peers:
            return
        if message.term > self.term:
            if not self._enter_higher_term(message):
                return
        elif message.term < self.term:
            self._answer_lower_term(message)
            return
        handler = HANDLERS[self.role].get(type(message))
        if handler is not None:
            handler(self, message)

    def _enter_higher_term(self, message: Message) -> bool:
        """Follows the sender into its term where it must; returns whether the message is to be handled."""
        if isinstance(message, RequestVote):
            if self._leader_lease_holds() and not message.transfer:
                # Somebody who cannot hear the leader must not disturb those who can (thesis 4.2.3 and 6.2).
                return False
            if message.pre_vote:
                return True
        if isinstance(message, VoteResponse) and message.pre_vote and message.granted:
            return True
        from_leader = isinstance(message, AppendEntries | Commit | Heartbeat)
        self.become_follower(message.term, message.sender if from_leader else NOBODY)
        return True

    def _leader_lease_holds(self) -> bool:
        in_lease = self._election_elapsed < self.config.election_tick
        return self.config.check_quorum and self.leader != NOBODY and in_lease

    def _answer_lower_term(self, message: Message) -> None:
        """Most of it is void, but two senders must learn that they are behind, or they would never catch up:

        a leader whose follower went ahead to a higher term while it was cut off, and a node asking for pre-votes
        (both only arise with pre-vote or check-quorum; etcd raft, Step).
        """
        if isinstance(message, AppendEntries | Heartbeat):
            self.messages_after_append.append(AppendResponse(message.sender, self.id, self.term, 0, True))
        elif isinstance(message, RequestVote) and message.pre_vote:
            self.messages_after_append.append(VoteResponse(message.sender, self.id, self.term, False, True))

    # --- elections --------------------------------------------------------------------------------------------

    def _handle_request_vote(self, message: RequestVote) -> None:
        """One vote a term, and only for a log at least as up to date (paper, 5.2 and 5.4.1)."""
        free = (
            self.vote == message.sender
            or (self.vote == NOBODY and self.leader == NOBODY)
            or (message.pre_vote and message.term > self.term)
        )
        granted = free and self.log.is_up_to_date(message.last_index, message.last_term)
        # A refusal carries our own term: the asker may be behind.
        term = message.term if granted else self.term
        response = VoteResponse(message.sender, self.id, term, granted, message.pre_vote)
        if message.pre_vote:
            self.messages.append(response)
            return
        if granted:
            self.vote = message.sender
            self._election_elapsed = 0
        self.messages_after_append.append(response)

    def _handle_vote_response(self, message: VoteResponse) -> None:
        if message.pre_vote != (self.role is Role.PRE_CANDIDATE):
            return  # an answer to a question of before
        if message.pre_vote and message.granted and message.term != self.term + 1:
            return
        self._record_vote(message.sender, message.granted)

    def _record_vote(self, voter: int, granted: bool) -> None:
        self._votes.setdefault(voter, granted)  # the first answer counts: a repeated one is no second vote
        result = vote_result(self._votes, self.config.voters)
        if result is VoteResult.LOST:
            self.become_follower(self.term, NOBODY)
        elif result is VoteResult.WON and self.role is Role.PRE_CANDIDATE:
            self._become_candidate(transfer=False)
        elif result is VoteResult.WON:
            self._become_leader()

    def on_hard_state_persisted(self, term: int, vote: int) -> None:
        """The disk holds ``term`` and ``vote``: a candidate's vote for itself counts from here on."""
        if self.role is Role.CANDIDATE and term == self.term and vote == self.id:
            self._record_vote(self.id, granted=True)

    def _handle_timeout_now(self, _message: TimeoutNow) -> None:
        self.campaign(transfer=True)

    # --- following --------------------------------------------------------------------------------------------

    def _follow(self, leader: int) -> None:
        """A leader of this term has spoken: there is only one, so whoever campaigned in it has lost."""
        if self.role is not Role.FOLLOWER:
            self.become_follower(self.term, leader)
        self.leader = leader
        self._election_elapsed = 0

    def _handle_append_entries(self, message: AppendEntries) -> None:
        self._follow(message.sender)
        log = self.log
        if message.prev_index < log.committed:
            # Old news: what is committed here matches the leader's log in any case (leader completeness).
            self._acknowledge(log.committed)
            return
        last_new = log.merge(message.prev_index, message.prev_term, message.entries)
        if last_new is None:
            hint_index, hint_term = log.find_conflict_by_term(message.prev_index, message.prev_term)
            self.messages_after_append.append(
                AppendResponse(
                    self.leader, self.id, self.term, message.prev_index, True, hint_index, hint_term
                )
            )
            return
        log.commit_to(min(message.commit, last_new))
        self._acknowledge(last_new)

    def _acknowledge(self, index: int) -> None:
        """Tells the leader how far this log matches; one answer for all appends that came since the last Ready."""
        answers = self.messages_after_append
        last = answers[-1] if answers else None
        if isinstance(last, AppendResponse) and not last.rejected and last.term == self.term:
            index = max(index, last.index)
            answers.pop()
        answers.append(AppendResponse(self.leader, self.id, self.term, index))

    def _handle_commit(self, message: Commit) -> None:
        self._follow(message.sender)
        if self.log.holds(message.index, message.index_term):
            self.log.commit_to(message.index)

    def _handle_heartbeat(self, message: Heartbeat) -> None:
        self._follow(message.sender)
        self.log.commit_to(message.commit)
        self.messages.append(HeartbeatResponse(message.sender, self.id, self.term, message.read_round))

    def _handle_read_index_response(self, message: ReadIndexResponse) -> None:
        self.read_states.append(ReadState(message.context, message.index))

    # --- leading ----------------------------------------------------------------------------------------------

    def propose(self, payloads: Sequence[bytes]) -> None:
        """Appends an entry for each payload; ProposalDropped when this node cannot, with the reason."""
        if self.role is not Role.LEADER:
            raise ProposalDropped("not the leader")
        if self._transferee != NOBODY:
            raise ProposalDropped(f"leadership is being transferred to {self._transferee:x}")
        size = sum(map(len, payloads))
        if self._uncommitted_bytes and self._uncommitted_bytes + size > self.config.max_uncommitted_bytes:
            raise ProposalDropped(
                f"{self._uncommitted_bytes} bytes wait to be committed, the limit is "
                f"{self.config.max_uncommitted_bytes}"
            )
        self._uncommitted_bytes += size
        self._append([Entry(self.term, EntryKind.COMMANDS, payload) for payload in payloads])

    def _append(self, entries: Sequence[Entry]) -> None:
        self.log.append(entries)
        self.wants_replication = True

    def maybe_commit(self) -> None:
        """Commits what a majority has on disk, if it is of this term (paper, 5.4.2 and figure 8)."""
        log = self.log
        index = committed_index([log.persisted, *(p.match_index for p in self.progress.values())])
        if index > log.committed and log.term(index) == self.term:
            before = log.committed
            log.commit_to(index)
            self.wants_replication = True
            if self._uncommitted_bytes:
                size = sum(len(entry.data) for entry in log.slice(before + 1, index))
                self._uncommitted_bytes = max(0, self._uncommitted_bytes - size)
            if self._postponed_reads:
                postponed, self._postponed_reads = self._postponed_reads, []
                for sender, context in postponed:
                    self._add_read(sender, context)

    def replicate(self) -> None:
        """Sends every follower what it lacks, and the commit index, as far as the flow control permits."""
        self.wants_replication = False
        log = self.log
        for peer, progress in self.progress.items():
            while not progress.paused and (
                progress.next_index <= log.last_index or progress.state is ProgressState.PROBE
            ):
                self._send_append(peer, progress)
            if progress.sent_commit < log.committed < progress.next_index:
                progress.sent_commit = log.committed
                committed_term = log.term(log.committed)
                self.messages.append(Commit(peer, self.id, self.term, log.committed, committed_term))

    def _send_append(self, peer: int, progress: Progress) -> None:
        log = self.log
        prev_index = progress.next_index - 1
        entries = log.slice(progress.next_index, log.last_index, self.config.max_message_bytes)
        self.messages.append(
            AppendEntries(peer, self.id, self.term, prev_index, log.term(prev_index), entries, log.committed)
        )
        size = sum(len(entry.data) for entry in entries)
        progress.sent_append(prev_index + len(entries), len(entries), size, log.committed)

    def _handle_append_response(self, message: AppendResponse) -> None:
        progress = self.progress[message.sender]
        progress.recent_active = True
        if message.index > self.log.last_index:
            return  # nobody can have what was never sent: a broken peer must not move the commit index
        if message.rejected:
            hint_index = message.hint_index
            if message.hint_term:
                hint_index, _ = self.log.find_conflict_by_term(hint_index, message.hint_term)
            if progress.rejected(message.index, hint_index):
                self.wants_replication = True
            return
        if progress.matched(message.index):
            self.maybe_commit()
        if progress.next_index <= self.log.last_index or progress.sent_commit < self.log.committed:
            self.wants_replication = True
        if message.sender == self._transferee:
            self._hand_over_if_caught_up()

    def _handle_heartbeat_response(self, message: HeartbeatResponse) -> None:
        progress = self.progress[message.sender]
        progress.recent_active = True
        progress.probe_sent = False
        if progress.match_index < self.log.last_index:
            # An append, or its answer, may have been lost: an append, even an empty one, finds out.
            progress.inflights.free_first_if_full()
            if not progress.paused:
                self._send_append(message.sender, progress)
        self._deliver_reads(*self._reads.answered(message.sender, message.read_round))

    def _broadcast_heartbeat(self) -> None:
        self._heartbeat_elapsed = 0
        committed, round_ = self.log.committed, self._reads.current
        for peer, progress in self.progress.items():
            commit = min(committed, progress.match_index)
            self.messages.append(Heartbeat(peer, self.id, self.term, commit, round_))

    def report_unreachable(self, peer: int) -> None:
        """The transport lost what was under way to ``peer``: find out anew where its log ends."""
        progress = self.progress.get(peer) if self.role is Role.LEADER else None
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe()

    # --- reads ------------------------------------------------------------------------------------------------

    def read_index(self, context: int) -> None:
        """Asks for an index at which a read is linearizable; the answer comes as a ReadState, or never."""
        if self.role is Role.LEADER:
            self._read_as_leader(self.id, context)
        elif self.leader != NOBODY:
            self.messages.append(ReadIndex(self.leader, self.id, self.term, context))
        else:
            raise NoLeader("no leader is known")

    def _handle_read_index(self, message: ReadIndex) -> None:
        self._read_as_leader(message.sender, message.context)

    def _read_as_leader(self, sender: int, context: int) -> None:
        if self.log.term(self.log.committed) != self.term:
            # Until something of this term is committed, the commit index may lag behind what an earlier leader
            # acknowledged (thesis 6.4, step 1).
            if len(self._postponed_reads) < MAX_WAITING_READS:
                self._postponed_reads.append((sender, context))
        elif self._reads.waiting < MAX_WAITING_READS:
            self._add_read(sender, context)

    def _add_read(self, sender: int, context: int) -> None:
        if self._reads.add(self.log.committed, sender, context):
            self._start_read_round()

    def _start_read_round(self) -> None:
        self._broadcast_heartbeat()
        if not self.peers:
            self._deliver_reads(*self._reads.confirm())

    def _deliver_reads(self, reads: list[PendingRead], another_round: bool) -> None:
        for read in reads:
            if read.sender == self.id:
                self.read_states.append(ReadState(read.context, read.index))
            else:
                self.messages.append(
                    ReadIndexResponse(read.sender, self.id, self.term, read.context, read.index)
                )
        if another_round:
            self._start_read_round()

    # --- leadership transfer ----------------------------------------------------------------------------------

    def transfer_leadership(self, target: int) -> None:
        """Brings ``target`` up to date, then tells it to campaign; no proposals meanwhile (thesis 3.10)."""
        if self.role is not Role.LEADER:
            raise NotLeader("only the leader can transfer its leadership")
        if target == self.id:
            return
        if target not in self.progress:
            raise ValueError(f"cannot transfer leadership to {target:x}: not a voter of this cluster")
        self._transferee = target
        self._election_elapsed = 0
        self.wants_replication = True
        self._hand_over_if_caught_up()

    def _hand_over_if_caught_up(self) -> None:
        if self.progress[self._transferee].match_index == self.log.last_index:
            self.messages.append(TimeoutNow(self._transferee, self.id, self.term))


Handler = Callable[[Raft, Any], None]

_ANY_ROLE: Mapping[type, Handler] = {RequestVote: Raft._handle_request_vote}
_NOT_LEADING: Mapping[type, Handler] = {
    **_ANY_ROLE,
    AppendEntries: Raft._handle_append_entries,
    Commit: Raft._handle_commit,
    Heartbeat: Raft._handle_heartbeat,
}

#: Role x message -> handler.  A cell that is not there is empty on purpose: such a message of the current term is
#: void (an answer to what this node no longer asks; a second leader of one term cannot be).
HANDLERS: Mapping[Role, Mapping[type, Handler]] = {
    Role.FOLLOWER: {
        **_NOT_LEADING,
        ReadIndexResponse: Raft._handle_read_index_response,
        TimeoutNow: Raft._handle_timeout_now,
    },
    Role.PRE_CANDIDATE: {**_NOT_LEADING, VoteResponse: Raft._handle_vote_response},
    Role.CANDIDATE: {**_NOT_LEADING, VoteResponse: Raft._handle_vote_response},
    Role.LEADER: {
        **_ANY_ROLE,
        AppendResponse: Raft._handle_append_response,
        HeartbeatResponse: Raft._handle_heartbeat_response,
        ReadIndex: Raft._handle_read_index,
    },
}
