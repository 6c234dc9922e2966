"""The log against a simple model: a list of terms, and the definitions of the paper taken literally."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.core import Compacted, Entry, EntryKind, LogDamaged, RaftLog
from common_raft.core.log import MAX_APPLYING

#: Terms never fall along a log.
terms = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def entries(terms: list[int]) -> list[Entry]:
    return [Entry(term, EntryKind.COMMANDS, b"%d" % term) for term in terms]


def log_of(terms: list[int], first_index: int = 1, offset_term: int = 0) -> RaftLog:
    return RaftLog(first_index, entries(terms), offset_term)


def applied_log(terms: list[int]) -> RaftLog:
    log = log_of(terms)
    log.resume_at(len(terms))
    return log


def terms_of(log: RaftLog) -> list[int]:
    return [log.term(index) for index in range(log.first_index, log.last_index + 1)]


@st.composite
def appends(draw: st.DrawFn) -> tuple[list[int], int, int, list[int]]:
    """A follower's log, and an append of a leader whose log agrees with it up to some place."""
    mine, leader = draw(terms), draw(terms)
    common = draw(st.integers(0, min(len(mine), len(leader))))
    leader = sorted([*mine[:common], *leader[common:]])
    prev = draw(st.integers(0, len(leader)))
    prev_term = leader[prev - 1] if prev else 0
    end = draw(st.integers(prev, len(leader)))
    return mine, prev, prev_term, leader[prev:end]


@given(appends())
def test_merge_follows_the_rules_of_the_paper(append: tuple[list[int], int, int, list[int]]) -> None:
    """Figure 2, AppendEntries, rules 2 to 4, word by word, against `merge`."""
    mine, prev, prev_term, new = append
    log = log_of(mine)
    result = log.merge(prev, prev_term, entries(new))
    if prev > len(mine) or (prev and mine[prev - 1] != prev_term):
        assert result is None
        assert terms_of(log) == mine
        return
    model = list(mine)
    for position, term in enumerate(new):
        index = prev + position  # counted from 0
        if index < len(model) and model[index] != term:
            del model[index:]
        if index == len(model):
            model.append(term)
    assert terms_of(log) == model
    assert result == prev + len(new)


@given(appends())
def test_merging_twice_changes_nothing(append: tuple[list[int], int, int, list[int]]) -> None:
    mine, prev, prev_term, new = append
    log = log_of(mine)
    once = log.merge(prev, prev_term, entries(new))
    after = terms_of(log)
    assert log.merge(prev, prev_term, entries(new)) == once
    assert terms_of(log) == after


@given(appends(), st.integers(0, 12))
def test_the_marks_stay_in_order(append: tuple[list[int], int, int, list[int]], commit: int) -> None:
    mine, prev, prev_term, new = append
    log = log_of(mine)
    log.commit_to(min(commit, prev, log.last_index))
    log.merge(prev, prev_term, entries(new))
    assert log.applied <= log.handed_out <= min(log.committed, log.persisted)
    assert log.persisted <= log.written <= log.last_index
    first, unwritten = log.unwritten()
    assert first == log.written + 1
    assert [entry.term for entry in unwritten] == terms_of(log)[log.written :]


@given(terms, st.integers(0, 14), st.integers(0, 6))
def test_a_conflict_is_sought_at_the_last_place_that_may_match(
    terms: list[int], index: int, term: int
) -> None:
    log = log_of(terms)
    candidates = [0, *(i for i in range(1, len(terms) + 1) if i <= index and terms[i - 1] <= term)]
    expected = max(candidates)
    assert log.find_conflict_by_term(index, term) == (expected, terms[expected - 1] if expected else 0)


@given(terms, st.integers(0, 12), st.integers(0, 14), st.integers(0, 6))
def test_a_conflict_behind_the_offset_has_no_known_term(
    terms: list[int], dropped: int, index: int, term: int
) -> None:
    whole, log = log_of(terms), applied_log(terms)
    dropped = min(dropped, len(terms))
    log.compact(dropped)
    expected = whole.find_conflict_by_term(index, term)
    found = log.find_conflict_by_term(index, term)
    assert found == expected if expected[0] >= dropped else found == (min(index, dropped - 1), 0)


@given(terms, terms)
def test_the_search_never_skips_the_place_where_the_logs_meet(mine: list[int], leader: list[int]) -> None:
    """Both sides skip whole terms: the probe may land before the last match, never behind a mismatch for ever."""
    follower, log = log_of(mine), log_of(leader)
    meet = max(i for i in range(min(len(mine), len(leader)) + 1) if mine[:i] == leader[:i])
    prev, rounds = len(leader), 0
    while not follower.holds(prev, log.term(prev)):
        hint_index, hint_term = follower.find_conflict_by_term(prev, log.term(prev))
        if hint_term:
            hint_index, _ = log.find_conflict_by_term(hint_index, hint_term)
        assert hint_index < prev
        prev, rounds = hint_index, rounds + 1
    assert prev >= meet or mine[:prev] == leader[:prev]
    assert rounds <= len(set(mine)) + 1


@given(terms, terms)
def test_up_to_date_means_a_later_last_term_or_a_longer_log_of_the_same(
    mine: list[int], theirs: list[int]
) -> None:
    last_index, last_term = len(theirs), theirs[-1] if theirs else 0
    my_index, my_term = len(mine), mine[-1] if mine else 0
    expected = last_term > my_term or (last_term == my_term and last_index >= my_index)
    assert log_of(mine).is_up_to_date(last_index, last_term) is expected


def test_what_is_committed_is_never_cut_off() -> None:
    log = log_of([1, 1, 2])
    log.commit_to(2)
    with pytest.raises(LogDamaged, match="entry 2 conflicts"):
        log.merge(1, 1, entries([3]))
    assert terms_of(log) == [1, 1, 2]


def test_a_commit_index_past_the_end_is_damage() -> None:
    with pytest.raises(LogDamaged, match="commit index 4 lies beyond the end"):
        log_of([1, 1, 2]).commit_to(4)


def test_the_commit_index_never_falls() -> None:
    log = log_of([1, 1, 2])
    assert log.commit_to(2)
    assert not log.commit_to(1)
    assert log.committed == 2


def test_a_slice_holds_one_entry_at_least_and_then_what_fits() -> None:
    log = RaftLog(1, [Entry(1, EntryKind.COMMANDS, b"12345") for _ in range(4)])
    assert len(log.slice(1, 4)) == 4
    assert log.slice(3, 2) == []
    for max_bytes, count in ((20, 4), (19, 3), (10, 2), (9, 1), (0, 1)):
        entries, size = log.slice_within(1, 4, max_bytes)
        assert (len(entries), size) == (count, 5 * count)
    assert log.slice_within(3, 2, 10) == ([], 0)


def test_a_log_that_starts_behind_1() -> None:
    log = log_of([3, 4], first_index=11, offset_term=2)
    assert (log.first_index, log.last_index, log.last_term) == (11, 12, 4)
    assert log.holds(10, 2)
    assert not log.holds(9, 2)
    assert log.term(10) == 2
    for outside in (9, 10, 13):
        with pytest.raises(IndexError, match="the log holds 11 to 12"):
            log.entry(outside)


def test_only_what_is_committed_and_persisted_is_applied() -> None:
    log = log_of([1])
    log.append(entries([1, 1]))
    log.commit_to(3)
    assert log.to_apply(1000) == (1, entries([1]))
    log.persisted = 2
    assert log.to_apply(1000) == (1, entries([1, 1]))
    assert log.to_apply(1) == (1, entries([1]))


# --- snapshots -----------------------------------------------------------------------------------------------


@given(terms, st.lists(st.integers(0, 12), max_size=4))
def test_what_is_left_of_a_compacted_log_is_as_before(terms: list[int], places: list[int]) -> None:
    log, whole = applied_log(terms), log_of(terms)
    for place in places:
        log.compact(min(place, len(terms)))
    assert log.offset == max([0, *(min(place, len(terms)) for place in places)])
    assert (log.last_index, log.last_term) == (whole.last_index, whole.last_term)
    for index in range(log.offset, log.last_index + 1):
        assert log.term(index) == whole.term(index)
    assert log.slice(log.first_index, log.last_index) == whole.slice(log.first_index, whole.last_index)
    assert log.unwritten() == whole.unwritten()


@given(appends(), st.integers(0, 12))
def test_compaction_does_not_change_what_a_merge_does(
    append: tuple[list[int], int, int, list[int]], dropped: int
) -> None:
    """A leader's append never begins before what is committed, and so never before the offset."""
    mine, prev, prev_term, new = append
    log, whole = log_of(mine), log_of(mine)
    log.resume_at(min(dropped, prev, len(mine)))
    log.compact(log.applied)
    assert log.merge(prev, prev_term, entries(new)) == whole.merge(prev, prev_term, entries(new))
    assert terms_of(log) == terms_of(whole)[log.offset :]


def test_only_what_is_applied_is_dropped() -> None:
    log = log_of([1, 1, 2])
    log.resume_at(2)
    with pytest.raises(ValueError, match="only those up to 2 are applied"):
        log.compact(3)
    assert log.offset == 0
    log.compact(2)
    log.compact(1)
    assert (log.offset, log.offset_term, terms_of(log)) == (2, 1, [2])


def test_a_restored_log_is_empty_and_hands_out_nothing_until_the_machine_is_restored() -> None:
    log = log_of([1, 1, 1])
    log.resume_at(1)
    log.restore(5, 2)
    assert (log.first_index, log.last_index, log.last_term) == (6, 5, 2)
    assert (log.committed, log.persisted, log.written) == (5, 5, 5)
    assert log.merge(5, 2, entries([2])) == 6
    log.commit_to(6)
    log.persisted_to(6, log.truncations)
    assert log.restoring
    assert log.to_apply(1000) == (6, [])
    log.applied = 5
    assert not log.restoring
    assert log.to_apply(1000) == (6, entries([2]))


def test_a_write_of_before_a_restored_log_says_nothing_about_it() -> None:
    log = log_of([1, 1, 1])
    before = log.truncations
    log.restore(2, 2)
    log.merge(2, 2, entries([2, 2]))
    log.persisted_to(4, before)
    assert log.persisted == 2


def test_a_machine_that_is_behind_the_log_needs_the_snapshot() -> None:
    log = applied_log([1, 1, 1])
    log.compact(2)
    with pytest.raises(Compacted, match="applied entry 1, but this log begins behind 2: restore a snapshot"):
        log.resume_at(1)
    log.resume_at(2)
    assert log.to_apply(1000) == (3, entries([1]))


def test_a_state_machine_that_has_much_to_apply_is_given_no_more() -> None:
    log = log_of([1] * (MAX_APPLYING + 1))
    log.commit_to(MAX_APPLYING)
    first, handed_out = log.to_apply(1 << 20)
    assert (first, len(handed_out)) == (1, MAX_APPLYING)
    log.handed_out = MAX_APPLYING
    log.commit_to(MAX_APPLYING + 1)
    assert not log.can_apply
    log.applied = 1
    assert log.can_apply
