"""Configurations and how they may change: the rules one by one, and what must hold along any sequence of changes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common_raft.core import (
    ConfChange,
    ConfChangeKind,
    ConfChanges,
    Configuration,
    InvalidConfChange,
    LogDamaged,
    Transition,
    decode_changes,
)
from common_raft.core.configuration import changed, encode_changes

KINDS = {"+": ConfChangeKind.ADD_VOTER, "~": ConfChangeKind.ADD_LEARNER, "-": ConfChangeKind.REMOVE}


def changes(text: str, transition: Transition = Transition.AUTO) -> ConfChanges:
    """``+4 ~5 -3``: a voter, a learner, one less."""
    return ConfChanges([ConfChange(KINDS[word[0]], int(word[1:])) for word in text.split()], transition)


def after(configuration: Configuration, *steps: str) -> str:
    """The configuration after these changes; an empty one leaves it."""
    for step in steps:
        transition = Transition.EXPLICIT if step.startswith("explicit ") else Transition.AUTO
        configuration = changed(configuration, changes(step.removeprefix("explicit "), transition))
    return str(configuration)


THREE = Configuration((1, 2, 3))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["+4"], "(1 2 3 4)"),
        (["-3"], "(1 2)"),
        (["~4"], "(1 2 3) learners=(4)"),
        (["~4", "+4"], "(1 2 3 4)"),
        (["~4", "-4"], "(1 2 3)"),
        (["~3"], "(1 2) learners=(3)"),
        # Saying it again changes nothing, nor does removing somebody who is not there.
        (["+3"], "(1 2 3)"),
        (["~4", "~4"], "(1 2 3) learners=(4)"),
        (["-9"], "(1 2 3)"),
        # Several at once.
        (["+4 +5"], "(1 2 3 4 5)&&(1 2 3) auto-leave"),
        (["+4 -3", ""], "(1 2 4)"),
        (["explicit +4"], "(1 2 3 4)&&(1 2 3)"),
        (["~4", "+5 +6"], "(1 2 3 5 6)&&(1 2 3) learners=(4) auto-leave"),
        (["+4 -1 -2 -3"], "(4)&&(1 2 3) auto-leave"),
        # Nobody is voter and learner at once.
        (["~3 +4"], "(1 2 4)&&(1 2 3) next=(3) auto-leave"),
        (["~3 +4", ""], "(1 2 4) learners=(3)"),
        (["~3 +3"], "(1 2 3)&&(1 2 3) auto-leave"),
        (["~3 -3"], "(1 2)&&(1 2 3) auto-leave"),
        (["~3 -3", ""], "(1 2)"),
        (["~4 +4"], "(1 2 3 4)&&(1 2 3) auto-leave"),
        (["+4 ~4"], "(1 2 3)&&(1 2 3) learners=(4) auto-leave"),
        (["~4", "~3 +4"], "(1 2 4)&&(1 2 3) next=(3) auto-leave"),
    ],
)
def test_changes_give(steps: list[str], expected: str) -> None:
    assert after(THREE, *steps) == expected


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([""], "not joint"),
        (["explicit +4", "+5"], "is joint: it must be left first"),
        (["explicit +4", "explicit +5"], "is joint"),
        (["-1 -2 -3"], "no voter would be left"),
        (["-1 ~2 ~3"], "no voter would be left"),
        (["-1", "-2", "-3"], "no voter would be left"),
        (["+0"], "0 is no node's id"),
    ],
)
def test_these_are_against_the_rules(steps: list[str], complaint: str) -> None:
    with pytest.raises(InvalidConfChange, match=complaint):
        after(THREE, *steps)


def test_who_takes_part() -> None:
    joint = Configuration((1, 4), (1, 2, 3), (5,), (3,))
    assert joint.joint
    assert joint.halves == ((1, 4), (1, 2, 3))
    assert joint.members == (1, 2, 3, 4, 5)
    assert [node for node in range(7) if joint.is_voter(node)] == [1, 2, 3, 4]
    assert not THREE.joint
    assert THREE.halves == ((1, 2, 3),)


def test_ids_are_written_in_hexadecimal_as_everywhere() -> None:
    assert str(Configuration((10, 255), learners=(16,))) == "(a ff) learners=(10)"


def quorums(configuration: Configuration) -> list[set[int]]:
    """All sets of members that can decide something."""
    members = configuration.members
    return [
        set(chosen)
        for size in range(len(members) + 1)
        for chosen in combinations(members, size)
        if all(2 * len(set(half) & set(chosen)) > len(half) for half in configuration.halves)
    ]


random_changes = st.builds(
    ConfChanges,
    st.lists(st.builds(ConfChange, st.sampled_from(ConfChangeKind), st.integers(1, 6)), max_size=4),
    st.sampled_from(Transition),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(random_changes, max_size=8))
def test_along_any_changes_neighbours_overlap_and_nobody_is_two_things(steps: list[ConfChanges]) -> None:
    """Any majority of a configuration meets any majority of the next one (thesis 4.1 and 4.3)."""
    configuration = THREE
    for step in steps:
        try:
            following = changed(configuration, step)
        except InvalidConfChange:
            continue
        assert all(one & other for one in quorums(configuration) for other in quorums(following))
        voters, learners = {*following.voters, *following.outgoing}, {*following.learners}
        assert following.voters
        assert not voters & learners
        assert {*following.learners_next} <= {*following.outgoing} - {*following.voters}
        assert following.joint or not (following.learners_next or following.auto_leave)
        configuration = following


@given(random_changes)
def test_what_an_entry_encodes_comes_back(proposed: ConfChanges) -> None:
    assert decode_changes(encode_changes(proposed)) == proposed


def test_the_bytes_of_a_change_are_these() -> None:
    """They are in logs and snapshots: what is written today must be read by every later version."""
    whole = ConfChanges(
        [ConfChange(ConfChangeKind.ADD_LEARNER, 4)], Transition.IMPLICIT, b"n4", Configuration((1,), (1, 2))
    )
    assert encode_changes(whole).hex() == "949192010401c4026e3495910192010290" + "90c2"
    removal = ConfChanges([ConfChange(ConfChangeKind.REMOVE, 4), ConfChange(ConfChangeKind.ADD_VOTER, 5)])
    assert encode_changes(removal).hex() == "949292020492000500c400c0"
    assert encode_changes(ConfChanges(transition=Transition.EXPLICIT)).hex() == "949002c400c0"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x90\x07\xc4\x00", b"\x80"])
def test_an_entry_that_holds_no_change_is_damage(data: bytes) -> None:
    with pytest.raises(LogDamaged, match="holds no change"):
        decode_changes(data)
