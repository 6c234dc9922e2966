"""Quorum arithmetic against a brute force that tries every majority."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.core.quorum import (
    VoteResult,
    committed_index,
    has_quorum,
    joint_committed_index,
    joint_vote_result,
    majority,
    vote_result,
)

indexes = st.lists(st.integers(0, 12), min_size=1, max_size=7)
voters = st.sets(st.integers(1, 9), min_size=1, max_size=7).map(sorted)
votes = st.dictionaries(st.integers(1, 9), st.booleans())
halves = st.lists(voters, min_size=1, max_size=2)
reached = st.dictionaries(st.integers(1, 9), st.integers(0, 12))


def majorities(members: list[int]) -> list[tuple[int, ...]]:
    """All sets of more than half of the members."""
    sizes = range(len(members) // 2 + 1, len(members) + 1)
    return [chosen for size in sizes for chosen in combinations(members, size)]


@given(indexes)
def test_the_committed_index_is_the_highest_that_some_majority_has_reached(match_indexes: list[int]) -> None:
    positions = list(range(len(match_indexes)))
    reached = max(min(match_indexes[p] for p in chosen) for chosen in majorities(positions))
    assert committed_index(match_indexes) == reached


@given(indexes, st.randoms())
def test_the_committed_index_does_not_depend_on_the_order(match_indexes: list[int], random: object) -> None:
    shuffled = list(match_indexes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert committed_index(shuffled) == committed_index(iter(match_indexes))


@given(indexes, st.integers(0, 6))
def test_the_committed_index_never_falls_when_a_follower_catches_up(
    match_indexes: list[int], who: int
) -> None:
    before = committed_index(match_indexes)
    match_indexes[who % len(match_indexes)] += 1
    assert committed_index(match_indexes) >= before


def test_nothing_is_committed_by_nobody() -> None:
    with pytest.raises(ValueError, match="at least one voter"):
        committed_index([])


@given(votes, voters)
def test_an_election_is_won_by_a_majority_and_lost_when_none_is_possible(
    votes: dict[int, bool], voters: list[int]
) -> None:
    won = any(all(votes.get(voter) is True for voter in chosen) for chosen in majorities(voters))
    possible = any(all(votes.get(voter) is not False for voter in chosen) for chosen in majorities(voters))
    expected = VoteResult.WON if won else VoteResult.PENDING if possible else VoteResult.LOST
    assert vote_result(votes, voters) is expected


@given(votes, voters)
def test_votes_of_strangers_do_not_count(votes: dict[int, bool], voters: list[int]) -> None:
    known = {voter: vote for voter, vote in votes.items() if voter in voters}
    assert vote_result(votes, voters) is vote_result(known, voters)


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(size: int, needed: int) -> None:
    assert majority(size) == needed


# --- joint configurations ------------------------------------------------------------------------------------


def joint_majorities(halves: list[list[int]]) -> list[set[int]]:
    """All sets that hold more than half of each half, and no more than they need."""
    sets: list[set[int]] = [set()]
    for members in halves:
        sets = [{*chosen, *more} for chosen in sets for more in majorities(members)]
    return sets


@given(reached, halves)
def test_what_a_joint_configuration_has_committed_some_majority_of_both_has_reached(
    reached: dict[int, int], halves: list[list[int]]
) -> None:
    highest = max(min(reached.get(voter, 0) for voter in chosen) for chosen in joint_majorities(halves))
    assert joint_committed_index(reached, halves) == highest


@given(votes, halves)
def test_a_joint_election_is_won_by_both_majorities_and_lost_when_one_is_impossible(
    votes: dict[int, bool], halves: list[list[int]]
) -> None:
    won = any(all(votes.get(voter) is True for voter in chosen) for chosen in joint_majorities(halves))
    possible = any(
        all(votes.get(voter) is not False for voter in chosen) for chosen in joint_majorities(halves)
    )
    expected = VoteResult.WON if won else VoteResult.PENDING if possible else VoteResult.LOST
    assert joint_vote_result(votes, halves) is expected


@given(st.sets(st.integers(1, 9)), halves)
def test_a_quorum_is_a_majority_of_each_half(nodes: set[int], halves: list[list[int]]) -> None:
    assert has_quorum(nodes, halves) is any(chosen <= nodes for chosen in joint_majorities(halves))


@given(reached, votes, voters)
def test_one_half_is_a_plain_majority(
    reached: dict[int, int], votes: dict[int, bool], voters: list[int]
) -> None:
    assert joint_committed_index(reached, [voters]) == committed_index(reached.get(v, 0) for v in voters)
    assert joint_vote_result(votes, [voters]) is vote_result(votes, voters)
