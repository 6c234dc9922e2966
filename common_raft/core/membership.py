"""How a node takes part in changes of the configuration; the rules of the changes themselves are in `configuration`.

A change takes effect where its entry is *applied*, as in etcd's raft, and not where it is appended, as in the paper
(section 6) and the thesis (chapter 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_raft.core import elections, leading, reads
from common_raft.core.configuration import (
    ConfChanges,
    changed,
    decode_changes,
    encode_changes,
    refuse_malformed,
)
from common_raft.core.errors import ProposalDropped
from common_raft.core.messages import NOBODY, Entry, EntryKind, TimeoutNow
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


def propose_conf_change(raft: Raft, changes: ConfChanges) -> None:
    """Appends a change of the configuration; the next one is only taken when it has been applied.

    So it is judged by the very configuration that it will follow (thesis 4.1; etcd raft, stepLeader).
    """
    refuse_malformed(changes)
    leading.refuse_unless_proposing(raft)
    if not no_conf_change_pending(raft):
        raise ProposalDropped(
            f"a change of the configuration may be among the entries up to {raft.pending_conf_index}, "
            f"of which {raft.log.applied} are applied"
        )
    configuration = changed(raft.configuration, changes)
    data = encode_changes(ConfChanges(changes.changes, changes.transition, changes.context, configuration))
    raft.uncommitted_bytes += len(data)
    leading.append(raft, [Entry(raft.term, EntryKind.CONFIGURATION, data)])
    raft.pending_conf_index = raft.log.last_index


def no_conf_change_pending(raft: Raft) -> bool:
    return raft.pending_conf_index <= raft.log.applied


def apply_conf_change(raft: Raft, index: int, changes: ConfChanges) -> None:
    """The entry at ``index`` is being applied; one that a snapshot or an earlier call has covered is old news."""
    if index <= raft.configuration_index:
        return
    if changes.configuration is None:
        raise ValueError(f"the change at entry {index} does not say what results: no leader has appended it")
    raft.set_configuration(index, changes.configuration)
    if raft.role is Role.LEADER:
        _lead_others(raft)
    elif raft.role is not Role.FOLLOWER and not raft.is_voter:
        raft.become_follower(raft.term, NOBODY)
    elif raft.handed_over:  # a leader that was removed says so right after the news of its removal
        elections.campaign(raft, transfer=True)


def _lead_others(raft: Raft) -> None:
    """Goes on leading in a configuration that has just taken effect (etcd raft, switchToConfig)."""
    if not raft.is_voter:
        _step_down_for_good(raft)
        return
    before, raft.progress = raft.progress, {}
    for peer in raft.peers:
        if (progress := before.get(peer)) is None:
            progress = leading.new_progress(raft)
            progress.recent_active = True  # it gets until the next check of the quorum to be heard
        raft.progress[peer] = progress
    if not raft.configuration.is_voter(raft.transferee):
        raft.transferee = NOBODY
    if raft.lease is not None:
        raft.lease.end()
    raft.read_rounds.reconfigure(raft.configuration.halves)
    raft.wants_replication = True
    leading.maybe_commit(raft)
    reads.deliver(raft, *raft.read_rounds.confirm())


def _step_down_for_good(raft: Raft) -> None:
    """This leader was removed, or is a learner now (thesis 4.2.2).  The one who is furthest on need not wait."""
    voters = [peer for peer in raft.configuration.voters if peer in raft.progress]
    heir = max(voters, key=lambda peer: raft.progress[peer].match_index, default=NOBODY)
    raft.become_follower(raft.term, NOBODY)
    if heir != NOBODY:
        raft.messages.append(TimeoutNow(heir, raft.id, raft.term))


def leave_joint_if_due(raft: Raft) -> None:
    """The leader of a joint configuration that leaves itself does so as soon as nothing stands against it."""
    if not raft.configuration.auto_leave or raft.role is not Role.LEADER:
        return
    if raft.transferee == NOBODY and no_conf_change_pending(raft):
        propose_conf_change(raft, ConfChanges())


def resume_at(raft: Raft, applied: int) -> None:
    """The state machine is at ``applied``: so is the configuration, of which it may have seen later ones."""
    log = raft.log
    log.resume_at(applied)
    low = max(log.offset, raft.configuration_index) + 1
    for index, entry in enumerate(log.slice(low, applied), start=low):
        if entry.kind is EntryKind.CONFIGURATION:
            apply_conf_change(raft, index, decode_changes(entry.data))
