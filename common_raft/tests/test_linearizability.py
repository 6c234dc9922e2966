"""The checker accepts what one register, used by one client at a time, could have answered, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common_raft.testing.key_values import (
    Create,
    Delete,
    Get,
    Input,
    KeyOperation,
    KeyValueModel,
    Put,
    Register,
    Told,
    Update,
    load_history,
    save_history,
)
from common_raft.testing.linearizability import Operation, Undecided, Violation, check

MODEL = KeyValueModel()
NOTHING = Told(False)


def op(
    asked: Input, invoked: float, returned: float | None = None, told: Told | None = None, key: str = "k"
) -> KeyOperation:
    return Operation("c", key, asked, invoked, returned, told)


def get(value: str | None, invoked: float, returned: float, index: int = 0) -> KeyOperation:
    return op(Get(), invoked, returned, Told(value is not None, value, index))


def put(
    value: str, invoked: float, returned: float | None = None, before: str | None = None, index: int = 0
) -> KeyOperation:
    return op(Put(value), invoked, returned, None if returned is None else Told(True, before, index))


GOOD = {
    "nothing": [],
    "a read of a key that nobody wrote": [get(None, 0, 1)],
    "one after another": [put("a", 0, 1), get("a", 2, 3), put("b", 4, 5, "a"), get("b", 6, 7)],
    "a read beside a write sees the old value": [put("a", 0, 1), put("b", 2, 9, "a"), get("a", 3, 4)],
    "a read beside a write sees the new value": [put("a", 0, 1), put("b", 2, 9, "a"), get("b", 3, 4)],
    "first the new value, and the new value from then on": [put("a", 0, 9), get("a", 1, 2), get("a", 3, 4)],
    "what touches at one instant is at the same time": [put("a", 0, 2), get(None, 2, 3)],
    "a write that was never answered, and read later": [put("a", 0), get(None, 1, 2), get("a", 3, 4)],
    "a write that was never answered, and never read": [put("a", 0), get(None, 1, 2), get(None, 3, 4)],
    "a late write that overwrites": [
        put("a", 0), put("b", 1, 2), get("b", 3, 4), get("a", 5, 6), get("a", 7, 8)
    ],
    "two unknown writes, one of which needs the other": [
        op(Update("b"), 0), op(Create("a"), 1), get("b", 2, 3)
    ],
    "a create between two deletes": [
        op(Create("a"), 0, 1, Told(True)),
        op(Create("b"), 2, 3, NOTHING),
        op(Delete(), 4, 5, Told(True, "a")),
        op(Delete(), 6, 7, NOTHING),
        op(Update("c"), 8, 9, NOTHING),
    ],
    "indexes that grow": [put("a", 0, 1, index=3), put("b", 2, 3, "a", index=7), get("b", 4, 5, index=7)],
    "a read that tells the index of an unknown write": [
        put("a", 0), get("a", 1, 2, index=5), put("b", 3, 4, "a", index=6)
    ],
}  # fmt: skip

BAD = {
    "a value that nobody wrote": [get("a", 0, 1)],
    "a lost write": [put("a", 0, 1), get(None, 2, 3)],
    "a stale read": [put("a", 0, 1), put("b", 2, 3, "a"), get("a", 4, 5)],
    "back to the old value": [put("a", 0, 1), put("b", 2, 9, "a"), get("b", 3, 4), get("a", 5, 6)],
    "two readers disagree on the order": [
        put("a", 0, 9, "b"), put("b", 0, 9, "a"), get("a", 10, 11),
    ],
    "a value from the future": [get("a", 0, 1), put("a", 2, 3)],
    "an unknown write that is read before it began": [get("a", 0, 1), put("a", 2)],
    "an unknown write that takes effect twice": [
        put("a", 0), put("b", 1, 2), get("a", 3, 4), put("c", 5, 6, "a"), get("a", 7, 8)
    ],
    "two creates that both succeed": [op(Create("a"), 0, 9, Told(True)), op(Create("b"), 0, 9, Told(True))],
    "two deletes of one node": [
        put("a", 0, 1), op(Delete(), 2, 9, Told(True, "a")), op(Delete(), 2, 9, Told(True, "a"))
    ],
    "an update of nothing": [op(Update("a"), 0, 1, Told(True))],
    "a create refused for no reason": [op(Create("a"), 0, 1, NOTHING)],
    "a write that did not see what was there": [put("a", 0, 1), put("b", 2, 3, None)],
    "an index that goes back": [put("a", 0, 1, index=7), put("b", 2, 3, "a", index=3)],
    "two writes with one index": [put("a", 0, 1, index=7), put("b", 2, 3, "a", index=7)],
    "a later write with an earlier one's index": [
        put("a", 0, 1, index=7), put("b", 2), get("b", 3, 4, index=7)
    ],
    "a read with another write's index": [put("a", 0, 1, index=7), get("a", 2, 3, index=8)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name: str) -> None:
    assert check(GOOD[name], MODEL) is None
    assert brute_force(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    assert check(BAD[name], MODEL) is not None
    assert not brute_force(BAD[name])


def test_each_key_is_judged_by_itself() -> None:
    other = [
        op(each.input, each.invoked, each.returned, each.output, "other") for each in BAD["a lost write"]
    ]
    assert check(GOOD["one after another"], MODEL) is None
    violation = check([*GOOD["one after another"], *other], MODEL)
    assert violation is not None
    assert violation.key == "other"


def test_a_violation_shows_how_far_all_is_well_and_what_does_not_fit() -> None:
    well = [put("a", 0, 1), put("b", 2, 3, "a"), get("b", 4, 5)]
    stale, beside, later = get("a", 6, 8), put("c", 7, 20, "b"), get("c", 9, 10)
    violation = check([*well, stale, beside, later], MODEL)
    assert violation == Violation("k", well, Register("b", 0, False), stale, [beside])
    told = str(violation)
    assert "not linearizable: key k" in told
    assert (
        told.index("Put(value='b')")
        < told.index("does not fit")
        < told.index("Get() -> Told(done=True, value='a'")
    )


def test_a_message_leaves_out_what_is_long_past() -> None:
    many = [put(str(n), 2 * n, 2 * n + 1, str(n - 1) if n else None) for n in range(100)]
    told = str(check([*many, get("98", 300, 301)], MODEL))
    assert "... 88 operations" in told
    assert len(told.splitlines()) < 20


def test_a_search_that_grows_too_large_says_so() -> None:
    together = [put(str(n), 0, 100, "never") for n in range(3)] + [op(Get(), 0, 100, NOTHING)] * 12
    with pytest.raises(Undecided, match="key k: 50 places"):
        check([*together, get("9", 101, 102)], MODEL, limit=50)


def overlapping_writes(number: int) -> list[KeyOperation]:
    """Each write tells what it replaced; each tenth was never answered, and every second of these took effect."""
    history = []
    value: str | None = None
    for count in range(number):
        at, wanted = 10.0 * count, str(count)
        known = count % 10 > 0
        history.append(put(wanted, at, at + 25, value) if known else put(wanted, at))
        if known or count % 20:
            value = wanted
    return history


def test_a_long_history_with_many_unknown_outcomes_is_judged_in_little_time() -> None:
    assert check(overlapping_writes(10_000), MODEL, limit=100_000) is None


def test_a_wrong_read_behind_many_unknown_outcomes_is_found_in_bounded_time() -> None:
    history = overlapping_writes(400)
    late = get("380", 5000, 5001)  # of a write that was never answered and may have come late
    assert check([*history, late], MODEL) is None
    wrong = get("381", 5000, 5001)
    violation = check([*history, wrong], MODEL, limit=50_000)
    assert violation is not None
    assert violation.misfit == wrong


def test_a_history_comes_back_from_a_file_as_it_was(tmp_path: Path) -> None:
    history = [operation for each in [*GOOD.values(), *BAD.values()] for operation in each]
    save_history(tmp_path / "history", history)
    assert load_history(tmp_path / "history") == history


# --- against brute force, on small histories ------------------------------------------------------------------


def brute_force(history: Iterable[KeyOperation]) -> bool:
    """Every order of the known operations and of every choice of the unknown ones."""
    operations = list(history)
    known = [each for each in operations if each.returned is not None]
    unknown = [each for each in operations if each.returned is None]
    return any(
        fits(order)
        for number in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, number)
        for order in itertools.permutations([*known, *chosen])
    )


def fits(order: tuple[KeyOperation, ...]) -> bool:
    for before, after in itertools.combinations(order, 2):
        if after.returned is not None and after.returned < before.invoked:
            return False
    state: Register | None = MODEL.initial()
    for each in order:
        assert state is not None
        state = MODEL.step(state, each.input, each.output)
        if state is None:
            return False
    return True


INPUTS = st.one_of(
    st.just(Get()),
    st.just(Delete()),
    *(st.builds(kind, st.sampled_from("abc")) for kind in (Put, Create, Update)),
)


@st.composite
def right_histories(draw: st.DrawFn, most: int) -> list[KeyOperation]:
    """A sequential execution, each operation at an instant of its own, stretched to overlapping intervals."""
    value, index = None, 0
    history = []
    for instant, asked in enumerate(draw(st.lists(INPUTS, max_size=most))):
        known = draw(st.integers(0, 3)) > 0
        effective = known or draw(st.booleans())
        told, value, index = executed(asked, value, index) if effective else (None, value, index)
        reach = st.floats(0, 4)
        invoked = instant - draw(reach)
        history.append(op(asked, invoked, instant + draw(reach) if known else None, told if known else None))
    return history


def executed(asked: Input, value: str | None, index: int) -> tuple[Told, str | None, int]:
    """A register, written down once more and differently from the model."""
    exists = value is not None
    if isinstance(asked, Get):
        return Told(exists, value, index if exists else 0), value, index
    if (isinstance(asked, Create) and exists) or (isinstance(asked, Update | Delete) and not exists):
        return NOTHING, value, index
    new = None if isinstance(asked, Delete) else asked.value
    return Told(True, value, index + 1), new, index + 1


@given(right_histories(40))
@settings(deadline=None)
def test_what_a_real_execution_answered_is_accepted(history: list[KeyOperation]) -> None:
    assert check(history, MODEL) is None


@st.composite
def changed_histories(draw: st.DrawFn) -> list[KeyOperation]:
    """A right history in which some answers, times and outcomes are others."""
    history = draw(right_histories(6))
    for position in range(len(history)):
        each = history[position]
        if each.returned is None or draw(st.booleans()):
            continue
        told = Told(
            draw(st.booleans()), draw(st.sampled_from(["a", "b", None])), draw(st.sampled_from([0, 0, 1, 2]))
        )
        kind = draw(st.sampled_from(["answer", "shorter", "lost"]))
        if kind == "answer":
            history[position] = op(each.input, each.invoked, each.returned, told)
        elif kind == "shorter":
            history[position] = op(each.input, each.invoked, each.invoked, each.output)
        else:
            history[position] = op(each.input, each.invoked)
    return history


@given(changed_histories())
@settings(deadline=None, max_examples=300)
def test_a_changed_history_is_judged_as_brute_force_judges_it(history: list[KeyOperation]) -> None:
    assert (check(history, MODEL) is None) == brute_force(history)
