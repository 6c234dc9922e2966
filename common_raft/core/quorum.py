"""Quorum arithmetic: pure functions over what the voters have said.

A majority of the voters decides (paper, section 5.2 and 5.3).  Joint configurations will ask these functions
once for each half (thesis 4.3), which is why they take the voters as an argument and know nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
