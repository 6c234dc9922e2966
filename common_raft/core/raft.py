"""A node's state, what happens to it on a tick, and who handles which message in which role and term.

No I/O, no clock, no threads, no randomness of its own: ticks, messages and confirmed disk writes come in, and
what must be sent and written is collected in fields that `node.RawNode` turns into a Ready.  Sources: the Raft
paper (extended version; "paper"), Ongaro's thesis ("thesis"), and etcd's raft where both leave a choice.

The parts of the protocol are functions on this state, each part in a module of its own: `elections`, `leading`,
`following`, `reads`, `snapshots`, `membership`, `transfer`.  Who handles which message is the table at the end of
this file.  Three rules hold around it:

1. Terms (paper, 5.1).  A message of a higher term makes the receiver a follower of that term, one of a lower term
   is void.  A pre-vote request and its grant carry a term that nobody has entered yet and change nothing.
2. Persistence.  Whatever promises something about this node's disk (a vote, an acknowledged append), and a
   candidate's requests, which rest on a term and a vote for itself, go to ``messages_after_append``: they leave
   once everything known at that moment is on disk.  A leader's appends go out at once, beside its own write
   (thesis 10.2.1); its own log counts towards the commit index only as far as its disk has confirmed it.
3. Sending is late.  Handlers only note that followers lack something (``wants_replication``); appends are built
   when a Ready is taken, so that everything that came in one turn leaves in one message for each follower.

Nodes may know different configurations (see `configuration`), so that whoever leads, or campaigns for this node's
vote, may be a stranger to it: those are heard, as in etcd's raft.  Other messages of strangers are void, and so is
the term that they carry: they could only answer what was not asked, and a node that was removed must not depose a
leader with them.  What holds a removed node off that campaigns is what holds off anybody: its log lacks what was
committed since, and voters keep to the leader that they hear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common_raft.core import elections, following, leading, membership, reads, snapshots
from common_raft.core.config import Config, Rng, Stored, stored_log
from common_raft.core.configuration import Configuration
from common_raft.core.messages import (
    NOBODY,
    AppendEntries,
    AppendResponse,
    Commit,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)
from common_raft.core.progress import Progress
from common_raft.core.quorum import has_quorum
from common_raft.core.reads import Lease, ReadRounds, ReadState
from common_raft.core.role import Role


class Raft:
    """One node's state, open to the modules that hold parts of the protocol; `node.RawNode` is its public face."""

    __slots__ = (
        "_heartbeat_elapsed",
        "_rng",
        "config",
        "configuration",
        "configuration_index",
        "election_elapsed",
        "handed_over",
        "id",
        "is_voter",
        "leader",
        "lease",
        "log",
        "messages",
        "messages_after_append",
        "peers",
        "pending_conf_index",
        "plain",
        "postponed_reads",
        "progress",
        "randomized_timeout",
        "read_rounds",
        "read_states",
        "restored",
        "role",
        "silence",
        "snapshot",
        "term",
        "ticks",
        "transfer_ends_at",
        "transferee",
        "uncommitted_bytes",
        "vote",
        "votes",
        "wants_replication",
    )

    def __init__(self, config: Config, stored: Stored, rng: Rng) -> None:
        hard_state = stored.hard_state
        self.config = config
        self.id = config.id
        self.log = stored_log(stored)
        self.snapshot = stored.snapshot  #: the newest that a follower may be given
        self.restored: SnapshotMeta | None = None  #: a leader's, which no Ready has handed out yet
        self.log.commit_to(max(hard_state.commit, 0 if self.snapshot is None else self.snapshot.index))
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
        self.votes: dict[int, bool] = {}
        self.postponed_reads: list[tuple[int, int]] = []
        self.transferee = NOBODY
        self.transfer_ends_at = 0  #: the tick at which the leader gives a transfer up
        self.uncommitted_bytes = 0
        self.pending_conf_index = 0  #: of a leader: no later change of configuration is in its log
        self.handed_over = False  #: the leader's TimeoutNow waits until a change of configuration is applied
        self.lease: Lease | None = None
        self.ticks = 0
        self.silence = 0  #: ticks since a leader was heard, or since the start
        self.election_elapsed = 0
        self._heartbeat_elapsed = 0
        self.randomized_timeout = 0
        self._reset_election_timer()
        if self.snapshot is None:
            self.set_configuration(0, Configuration(tuple(sorted(config.voters))))
        else:
            self.set_configuration(self.snapshot.index, self.snapshot.configuration)
        self.read_rounds = ReadRounds(self.id, self.configuration.halves)

    # --- time -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self.ticks += 1
        if self.role is Role.LEADER:
            self._tick_leader()
        else:
            self.silence += 1
            self.election_elapsed += 1
            if self.election_elapsed >= self.randomized_timeout:
                elections.campaign(self)

    def _tick_leader(self) -> None:
        if self.ticks >= self.transfer_ends_at:
            # The target of a transfer, if there is one, did not make it in time: take proposals again (thesis 3.10).
            self.transferee = NOBODY
        self.election_elapsed += 1
        if self.election_elapsed >= self.config.election_tick:
            self.election_elapsed = 0
            if self.config.check_quorum and not self._heard_from_quorum():
                self.become_follower(self.term, NOBODY)
                return
            membership.leave_joint_if_due(self)
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self.config.heartbeat_tick:
            self.broadcast_heartbeat()

    def _heard_from_quorum(self) -> bool:
        """Whether a majority answered since the last look (thesis 6.2: a leader cut off steps down)."""
        active = {self.id, *(peer for peer, progress in self.progress.items() if progress.recent_active)}
        for progress in self.progress.values():
            progress.recent_active = False
        return has_quorum(active, self.configuration.halves)

    def broadcast_heartbeat(self) -> None:
        self._heartbeat_elapsed = 0
        if self.lease is not None:
            self.lease.sent(self.read_rounds.begin(), self.ticks)
        committed, round_ = self.log.committed, self.read_rounds.current
        for peer, progress in self.progress.items():
            commit = min(committed, progress.match_index)
            self.messages.append(Heartbeat(peer, self.id, self.term, commit, round_))

    def _reset_election_timer(self) -> None:
        """Timeouts differ from node to node and from time to time, so that votes rarely split (paper, 5.2)."""
        self.election_elapsed = 0
        self.randomized_timeout = self.config.election_tick + self._rng.randrange(
            0, self.config.election_tick
        )

    # --- roles ------------------------------------------------------------------------------------------------

    def become_follower(self, term: int, leader: int) -> None:
        self.reset(term)
        self.role = Role.FOLLOWER
        self.leader = leader

    def reset(self, term: int) -> None:
        if term != self.term:
            self.term = term
            self.vote = NOBODY
        self.leader = NOBODY
        self.votes = {}
        self.transferee = NOBODY
        self.postponed_reads = []
        self.handed_over = False
        self._heartbeat_elapsed = 0
        self.wants_replication = False
        self._reset_election_timer()

    def follow(self, leader: int) -> None:
        """A leader of this term has spoken: there is only one, so whoever campaigned in it has lost."""
        if self.role is not Role.FOLLOWER:
            self.become_follower(self.term, leader)
        self.leader = leader
        self.election_elapsed = 0
        self.silence = 0
        self.handed_over = False

    def set_configuration(self, index: int, configuration: Configuration) -> None:
        """``index``: the entry that it comes from, or the snapshot's."""
        self.configuration, self.configuration_index = configuration, index
        self.peers = tuple(node for node in configuration.members if node != self.id)
        self.is_voter = configuration.is_voter(self.id)
        #: Whether a majority of all members decides, a leader being one of them: the usual case, and the cheapest.
        self.plain = not (configuration.joint or configuration.learners)

    # --- messages in ------------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Takes one message.  What is not addressed to this node, or comes from a stranger, is mostly ignored."""
        if message.to != self.id or (
            message.sender not in self.peers and not self._listens_to_stranger(message)
        ):
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

    def _listens_to_stranger(self, message: Message) -> bool:
        """Whoever leads or campaigns may know a configuration that this node has yet to learn of."""
        if message.sender in (NOBODY, self.id):
            return False
        return isinstance(message, _FROM_ANYBODY) or message.sender == self.leader

    def _enter_higher_term(self, message: Message) -> bool:
        """Follows the sender into its term where it must; returns whether the message is to be handled."""
        if isinstance(message, RequestVote):
            if elections.leader_lease_holds(self) and not message.transfer:
                # Somebody who cannot hear the leader must not disturb those who can (thesis 4.2.3 and 6.2).
                return False
            if message.pre_vote:
                return True
        if isinstance(message, VoteResponse) and message.pre_vote and message.granted:
            return True
        from_leader = isinstance(message, AppendEntries | Commit | Heartbeat | InstallSnapshot)
        self.become_follower(message.term, message.sender if from_leader else NOBODY)
        return True

    def _answer_lower_term(self, message: Message) -> None:
        """Most of it is void, but two senders must learn that they are behind, or they might never catch up:

        a leader whose follower went ahead to a higher term while it was cut off (which only arises with pre-vote or
        check-quorum; etcd raft, Step), and whoever campaigns (paper, figure 2: "reply false if term <
        currentTerm").  etcd answers a pre-vote only.  But a candidate may need the vote of a node that does not
        campaign towards it, as that knows another configuration: both would raise their terms for ever, at one pace.
        """
        if isinstance(message, AppendEntries | Heartbeat):
            self.messages_after_append.append(AppendResponse(message.sender, self.id, self.term, 0, True))
        elif isinstance(message, RequestVote):
            self.messages_after_append.append(elections.refusal(self, message))
        elif isinstance(message, VoteResponse):
            elections.learn_committed(self, message)  # which stays true, whatever term its sender is in


Handler = Callable[[Raft, Any], None]

_ANY_ROLE: Mapping[type, Handler] = {RequestVote: elections.handle_request_vote}
_NOT_LEADING: Mapping[type, Handler] = {
    **_ANY_ROLE,
    AppendEntries: following.handle_append_entries,
    Commit: following.handle_commit,
    Heartbeat: following.handle_heartbeat,
    InstallSnapshot: snapshots.handle_install_snapshot,
}

#: What a leader or a candidate says.
_FROM_ANYBODY = (RequestVote, AppendEntries, Commit, Heartbeat, InstallSnapshot)

#: Role x message -> handler.  A cell that is not there is empty on purpose: such a message of the current term is
#: void (an answer to what this node no longer asks; a second leader of one term cannot be).
HANDLERS: Mapping[Role, Mapping[type, Handler]] = {
    Role.FOLLOWER: {
        **_NOT_LEADING,
        ReadIndexResponse: reads.handle_read_index_response,
        TimeoutNow: elections.handle_timeout_now,
    },
    Role.PRE_CANDIDATE: {**_NOT_LEADING, VoteResponse: elections.handle_vote_response},
    Role.CANDIDATE: {**_NOT_LEADING, VoteResponse: elections.handle_vote_response},
    Role.LEADER: {
        **_ANY_ROLE,
        AppendResponse: leading.handle_append_response,
        HeartbeatResponse: leading.handle_heartbeat_response,
        ReadIndex: reads.handle_read_index,
    },
}
