"""How a leader gets entries into the logs of a majority, and so commits them (paper, 5.3 and 5.4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common_raft.core import reads, snapshots, transfer
from common_raft.core.errors import ProposalDropped
from common_raft.core.messages import (
    NOBODY,
    AppendEntries,
    AppendResponse,
    Commit,
    Entry,
    EntryKind,
    HeartbeatResponse,
)
from common_raft.core.progress import Inflights, Progress, ProgressState
from common_raft.core.quorum import committed_index, joint_committed_index
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


_BYTES = frozenset({bytes})


def propose(raft: Raft, payloads: Sequence[bytes]) -> None:
    """Appends an entry for each payload; ProposalDropped when this node cannot, with the reason.

    TypeError where a payload is no bytes: it could be neither written nor sent, and would be in the log already.
    """
    if not _BYTES.issuperset(map(type, payloads)):
        raise TypeError("the data of an entry must be bytes, not " + _names_of_others(payloads))
    refuse_unless_proposing(raft)
    size = sum(map(len, payloads))
    if raft.uncommitted_bytes and raft.uncommitted_bytes + size > raft.config.max_uncommitted_bytes:
        raise ProposalDropped(
            f"{raft.uncommitted_bytes} bytes wait to be committed, the limit is "
            f"{raft.config.max_uncommitted_bytes}"
        )
    raft.uncommitted_bytes += size
    append(raft, [Entry(raft.term, EntryKind.COMMANDS, payload) for payload in payloads])


def _names_of_others(payloads: Sequence[object]) -> str:
    return ", ".join(sorted({type(payload).__name__ for payload in payloads} - {"bytes"}))


def refuse_unless_proposing(raft: Raft) -> None:
    if raft.role is not Role.LEADER:
        raise ProposalDropped("not the leader")
    if raft.transferee != NOBODY:
        raise ProposalDropped(f"leadership is being transferred to {raft.transferee:x}")


def append(raft: Raft, entries: Sequence[Entry]) -> None:
    raft.log.append(entries)
    raft.wants_replication = True


def maybe_commit(raft: Raft) -> None:
    """Commits what a majority has on disk, if it is of this term (paper, 5.4.2 and figure 8)."""
    log = raft.log
    if raft.plain:
        index = committed_index([log.persisted, *(p.match_index for p in raft.progress.values())])
    else:
        matches = {peer: progress.match_index for peer, progress in raft.progress.items()}
        matches[raft.id] = log.persisted
        index = joint_committed_index(matches, raft.configuration.halves)
    if index > log.committed and log.term(index) == raft.term:
        before = log.committed
        log.commit_to(index)
        raft.wants_replication = True
        if raft.uncommitted_bytes:
            size = sum(len(entry.data) for entry in log.slice(before + 1, index))
            raft.uncommitted_bytes = max(0, raft.uncommitted_bytes - size)
        if raft.postponed_reads:
            reads.take_up_postponed(raft)


# --- sending -------------------------------------------------------------------------------------------------


def new_progress(raft: Raft) -> Progress:
    config = raft.config
    return Progress(
        raft.log.last_index + 1, Inflights(config.max_inflight_messages, config.max_inflight_bytes)
    )


def replicate(raft: Raft) -> None:
    """Sends every follower what it lacks, and the commit index, as far as the flow control permits."""
    raft.wants_replication = False
    log = raft.log
    for peer, progress in raft.progress.items():
        while not progress.paused and (
            progress.next_index <= log.last_index or progress.state is ProgressState.PROBE
        ):
            _send_append(raft, peer, progress)  # which pauses it, sooner or later
        if progress.sent_commit < log.committed < progress.next_index:
            progress.sent_commit = log.committed
            committed_term = log.term(log.committed)
            raft.messages.append(Commit(peer, raft.id, raft.term, log.committed, committed_term))


def _send_append(raft: Raft, peer: int, progress: Progress) -> None:
    log = raft.log
    prev_index = progress.next_index - 1
    if prev_index < log.offset:
        snapshots.send(raft, peer, progress)
        return
    entries, size = log.slice_within(progress.next_index, log.last_index, raft.config.max_message_bytes)
    raft.messages.append(
        AppendEntries(peer, raft.id, raft.term, prev_index, log.term(prev_index), entries, log.committed)
    )
    progress.sent_append(prev_index + len(entries), len(entries), size, log.committed)


# --- what comes back -----------------------------------------------------------------------------------------


def handle_append_response(raft: Raft, message: AppendResponse) -> None:
    progress = raft.progress[message.sender]
    progress.recent_active = True
    if message.index > raft.log.last_index:
        return  # nobody can have what was never sent: a broken peer must not move the commit index
    if message.rejected:
        hint_index = message.hint_index
        if message.hint_term:
            hint_index, _ = raft.log.find_conflict_by_term(hint_index, message.hint_term)
        if progress.rejected(message.index, hint_index):
            raft.wants_replication = True
        return
    if progress.matched(message.index, raft.log.offset):
        maybe_commit(raft)
    if progress.next_index <= raft.log.last_index or progress.sent_commit < raft.log.committed:
        raft.wants_replication = True
    if message.sender == raft.transferee:
        transfer.hand_over_if_caught_up(raft)


def handle_heartbeat_response(raft: Raft, message: HeartbeatResponse) -> None:
    progress = raft.progress[message.sender]
    progress.recent_active = True
    progress.probe_sent = False
    if progress.match_index < raft.log.last_index:
        # An append, or its answer, may have been lost: an append, even an empty one, finds out.
        progress.inflights.free_first_if_full()
        if not progress.paused:
            _send_append(raft, message.sender, progress)
    reads.deliver(raft, *raft.read_rounds.answered(message.sender, message.read_round))


def report_unreachable(raft: Raft, peer: int) -> None:
    """The transport lost what was under way to ``peer``: find out anew where its log ends."""
    progress = raft.progress.get(peer) if raft.role is Role.LEADER else None
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()
