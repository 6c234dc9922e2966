"""How a leader hands its leadership over (thesis 3.10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common_raft.core.errors import NotLeader
from common_raft.core.messages import NOBODY, TimeoutNow
from common_raft.core.role import Role

if TYPE_CHECKING:
    from common_raft.core.raft import Raft


def transfer_leadership(raft: Raft, target: int) -> None:
    """Brings ``target`` up to date, then tells it to campaign; no proposals meanwhile (thesis 3.10).

    As in etcd's raft (stepLeader, MsgTransferLeader): a transfer that is under way to the same target goes on, one to
    another is replaced, and the leader's own id ends it.  Unlike there none puts off the next look at the quorum, or
    who is asked often enough would lead for ever, cut off from everybody.
    """
    if raft.role is not Role.LEADER:
        raise NotLeader("only the leader can transfer its leadership")
    if target == raft.id:
        raft.transferee = NOBODY
        return
    if target not in raft.progress or not raft.configuration.is_voter(target):
        raise ValueError(f"cannot transfer leadership to {target:x}: not a voter of this cluster")
    if target == raft.transferee:
        return
    raft.transferee = target
    raft.transfer_ends_at = raft.ticks + raft.config.election_tick
    raft.wants_replication = True
    hand_over_if_caught_up(raft)


def hand_over_if_caught_up(raft: Raft) -> None:
    if raft.progress[raft.transferee].match_index == raft.log.last_index:
        raft.messages.append(TimeoutNow(raft.transferee, raft.id, raft.term))
        raft.lease = None  # for the rest of this term: the message may arrive at any time
