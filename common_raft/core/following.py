"""How a follower takes what its leader sends: entries where they fit, and what is committed (paper, 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_raft.core.messages import AppendEntries, AppendResponse, Commit, Heartbeat, HeartbeatResponse

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


def handle_append_entries(raft: Raft, message: AppendEntries) -> None:
    raft.follow(message.sender)
    log = raft.log
    if message.prev_index < log.committed:
        # Old news: what is committed here matches the leader's log in any case (leader completeness).
        acknowledge(raft, log.committed)
        return
    last_new = log.merge(message.prev_index, message.prev_term, message.entries)
    if last_new is None:
        hint_index, hint_term = log.find_conflict_by_term(message.prev_index, message.prev_term)
        raft.messages_after_append.append(
            AppendResponse(raft.leader, raft.id, raft.term, message.prev_index, True, hint_index, hint_term)
        )
        return
    log.commit_to(min(message.commit, last_new))
    acknowledge(raft, last_new)


def acknowledge(raft: Raft, index: int) -> None:
    """Tells the leader how far this log matches; one answer for all appends that came since the last Ready."""
    answers = raft.messages_after_append
    last = answers[-1] if answers else None
    if isinstance(last, AppendResponse) and not last.rejected and last.term == raft.term:
        index = max(index, last.index)
        answers.pop()
    answers.append(AppendResponse(raft.leader, raft.id, raft.term, index))


def handle_commit(raft: Raft, message: Commit) -> None:
    raft.follow(message.sender)
    if raft.log.holds(message.index, message.index_term):
        raft.log.commit_to(message.index)


def handle_heartbeat(raft: Raft, message: Heartbeat) -> None:
    raft.follow(message.sender)
    raft.log.commit_to(message.commit)
    raft.messages.append(HeartbeatResponse(message.sender, raft.id, raft.term, message.read_round))
