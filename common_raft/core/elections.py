"""How a leader is elected: who campaigns when, who gets a vote, and what a new leader begins with.

One leader a term at most, since a node votes once a term and a majority elects (paper, 5.2); and only one whose log
holds all that is committed, since nobody votes for a log behind its own (5.4.1).  Pre-vote (thesis 9.6) and the
leader's lease (4.2.3 and 6.2) keep those who cannot hear a leader from disturbing those who can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_raft.core import leading
from common_raft.core.messages import (
    NOBODY,
    Entry,
    EntryKind,
    Message,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from common_raft.core.quorum import VoteResult, joint_vote_result
from common_raft.core.reads import Lease, ReadRounds
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


# --- asking for votes ----------------------------------------------------------------------------------------


def campaign(raft: Raft, *, transfer: bool = False) -> None:
    """Starts an election; with pre-vote it first asks whether it could win one (thesis 9.6).

    A transfer goes without: the leader itself wants to be replaced (thesis 3.10).  Nothing happens where this
    node may not lead: it is no voter, or has yet to be restored from a snapshot, or to apply a committed change
    of configuration (etcd raft, hup), or has promised to keep to a leader's lease.
    """
    if raft.role is Role.LEADER or not raft.is_voter or raft.log.restoring:
        return
    if has_promised(raft) and not transfer:
        return
    if _has_unapplied_conf_change(raft):
        # Looking through what is unapplied costs time if that is much: not again at every tick.
        raft.randomized_timeout = raft.election_elapsed + raft.config.election_tick
        raft.handed_over |= transfer
        return
    if raft.config.pre_vote and not transfer:
        _become_pre_candidate(raft)
    else:
        become_candidate(raft, transfer)


def handle_timeout_now(raft: Raft, _message: TimeoutNow) -> None:
    campaign(raft, transfer=True)


def _has_unapplied_conf_change(raft: Raft) -> bool:
    log = raft.log
    low = max(log.applied, raft.configuration_index) + 1
    return any(entry.kind is EntryKind.CONFIGURATION for entry in log.slice(low, log.committed))


def _become_pre_candidate(raft: Raft) -> None:
    """Neither term nor vote change, so that asking costs the cluster nothing."""
    raft.reset(raft.term)
    raft.role = Role.PRE_CANDIDATE
    raft.messages += vote_requests(raft, raft.term + 1, pre_vote=True)
    record_vote(raft, raft.id, granted=True)


def become_candidate(raft: Raft, transfer: bool) -> None:
    """The own vote counts when the disk has it (`on_hard_state_persisted`), and so do the requests wait.

    Had they left earlier, a crash could make this node forget its term and log's end, campaign for the same
    term again with a shorter log, and count a vote that was granted to the longer one.
    """
    raft.reset(raft.term + 1)
    raft.role = Role.CANDIDATE
    raft.vote = raft.id
    raft.messages_after_append += vote_requests(raft, raft.term, pre_vote=False, transfer=transfer)


def vote_requests(raft: Raft, term: int, *, pre_vote: bool, transfer: bool = False) -> list[Message]:
    log = raft.log
    return [
        RequestVote(peer, raft.id, term, log.last_index, log.last_term, pre_vote, transfer)
        for peer in raft.peers
        if raft.configuration.is_voter(peer)
    ]


# --- giving them ---------------------------------------------------------------------------------------------


def has_promised(raft: Raft) -> bool:
    """With lease reads the promise to a leader stands whatever comes in between: a restart, or a higher term."""
    return raft.config.lease_reads and raft.silence < raft.config.election_tick


def leader_lease_holds(raft: Raft) -> bool:
    if has_promised(raft):
        return True
    in_lease = raft.election_elapsed < raft.config.election_tick
    return raft.config.check_quorum and raft.leader != NOBODY and in_lease


def handle_request_vote(raft: Raft, message: RequestVote) -> None:
    """One vote a term, and only for a log at least as up to date (paper, 5.2 and 5.4.1)."""
    if has_promised(raft) and not message.transfer:
        return
    free = (
        raft.vote == message.sender
        or (raft.vote == NOBODY and raft.leader == NOBODY)
        or (message.pre_vote and message.term > raft.term)
    )
    granted = free and raft.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        response = VoteResponse(message.sender, raft.id, message.term, True, message.pre_vote)
    else:
        response = refusal(raft, message)
    if message.pre_vote:
        raft.messages.append(response)
        return
    if granted:
        raft.vote = message.sender
        raft.election_elapsed = 0
    raft.messages_after_append.append(response)


def refusal(raft: Raft, message: RequestVote) -> VoteResponse:
    """Carries this node's own term and commit index: the asker may be behind in both."""
    commit = raft.log.committed
    return VoteResponse(
        message.sender, raft.id, raft.term, False, message.pre_vote, commit, raft.log.term(commit)
    )


def forget_leader(raft: Raft) -> None:
    """Somebody who knows better says that the leader is gone: vote for another one (etcd raft, MsgForgetLeader).

    With pre-vote and check-quorum a follower would otherwise keep to it for the rest of the election timeout.  A
    promise that a lease rests on stays.
    """
    if raft.role is Role.FOLLOWER and not raft.config.lease_reads:
        raft.leader = NOBODY


# --- counting them -------------------------------------------------------------------------------------------


def handle_vote_response(raft: Raft, message: VoteResponse) -> None:
    if message.pre_vote != (raft.role is Role.PRE_CANDIDATE):
        return  # an answer to a question of before
    if message.pre_vote and message.granted and message.term != raft.term + 1:
        return
    learn_committed(raft, message)
    record_vote(raft, message.sender, message.granted)


def learn_committed(raft: Raft, message: VoteResponse) -> None:
    if raft.log.holds(message.commit, message.commit_term):
        raft.log.commit_to(message.commit)


def on_hard_state_persisted(raft: Raft, term: int, vote: int) -> None:
    """The disk holds ``term`` and ``vote``: a candidate's vote for itself counts from here on."""
    if raft.role is Role.CANDIDATE and term == raft.term and vote == raft.id:
        record_vote(raft, raft.id, granted=True)


def record_vote(raft: Raft, voter: int, granted: bool) -> None:
    raft.votes.setdefault(voter, granted)  # the first answer counts: a repeated one is no second vote
    result = joint_vote_result(raft.votes, raft.configuration.halves)
    if result is VoteResult.LOST:
        raft.become_follower(raft.term, NOBODY)
    elif result is VoteResult.WON and raft.role is Role.PRE_CANDIDATE:
        become_candidate(raft, transfer=False)
    elif result is VoteResult.WON:
        become_leader(raft)


def become_leader(raft: Raft) -> None:
    raft.reset(raft.term)
    raft.role = Role.LEADER
    raft.leader = raft.id
    raft.progress = {peer: leading.new_progress(raft) for peer in raft.peers}
    raft.read_rounds = ReadRounds(raft.id, raft.configuration.halves)
    raft.lease = Lease(raft.config.election_tick) if raft.config.lease_reads else None
    raft.uncommitted_bytes = 0
    # Whether the log holds a change that is not applied would take a look at all of it (etcd raft, becomeLeader).
    raft.pending_conf_index = raft.log.last_index
    # Entries of earlier terms commit only along with one of this term (paper, 5.4.2); reads wait for it, too.
    leading.append(raft, [Entry(raft.term, EntryKind.NOOP, b"")])
