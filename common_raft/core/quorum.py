"""Quorum arithmetic: pure functions over what the voters have said.

A majority of the voters decides (paper, section 5.2 and 5.3).  In a joint configuration each of two sets of
voters, the ``halves``, must give its majority (thesis 4.3; etcd raft, quorum/joint.go); one half is a plain majority.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from enum import Enum


class VoteResult(Enum):
    """How an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def majority(voters: int) -> int:
    """The least number of ``voters`` that is more than half of them."""
    return voters // 2 + 1


def committed_index(match_indexes: Iterable[int]) -> int:
    """The highest index that a majority has reached, given the match index of each voter.

    Raises ValueError without voters: nothing is committed by nobody.
    """
    ascending = sorted(match_indexes)
    if not ascending:
        raise ValueError("committed_index() needs the match index of at least one voter")
    # The voters from this position to the end are a majority, and all have reached the index found there.
    return ascending[len(ascending) - majority(len(ascending))]


def vote_result(votes: Mapping[int, bool], voters: Collection[int]) -> VoteResult:
    """How an election stands; ``votes`` maps a node id to whether it granted, and may hold strangers."""
    needed = majority(len(voters))
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return VoteResult.WON
    if len(voters) - refused < needed:
        return VoteResult.LOST
    return VoteResult.PENDING


def joint_committed_index(match_index: Mapping[int, int], halves: Iterable[Collection[int]]) -> int:
    """The highest index that a majority of each half has reached; who is not in ``match_index`` has nothing.

    Raises ValueError when a half is empty.
    """
    return min(committed_index(match_index.get(voter, 0) for voter in voters) for voters in halves)


def joint_vote_result(votes: Mapping[int, bool], halves: Iterable[Collection[int]]) -> VoteResult:
    """Won when both halves are, lost as soon as one of them is."""
    results = {vote_result(votes, voters) for voters in halves}
    for result in (VoteResult.LOST, VoteResult.PENDING):
        if result in results:
            return result
    return VoteResult.WON


def has_quorum(nodes: Container[int], halves: Iterable[Collection[int]]) -> bool:
    """Whether ``nodes`` hold a majority of each half."""
    return all(sum(voter in nodes for voter in voters) >= majority(len(voters)) for voters in halves)
