"""Nodes by when they expire: the model is a list that is looked through."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common_raft.keyspace.deadlines import Deadlines
from common_raft.keyspace.node import Node

SECOND = 1 << 30
TIMES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3 * SECOND, 3 * SECOND), st.integers(0, 5)
)
CHANGES = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), TIMES), max_size=40)


@given(CHANGES, st.lists(TIMES.filter(lambda time: time is not None), max_size=5))
def test_it_agrees_with_looking_at_all(changes: list[tuple[str, bool, int | None]], times: list[int]) -> None:
    deadlines, model = Deadlines(), dict[str, Node]()
    for index, (key, removed, expiration) in enumerate(changes):
        if removed:
            deadlines.remove(key)
            model.pop(key, None)
        else:
            model[key] = Node(key, "", index, index, expiration=expiration)
            deadlines.put(model[key])
    left = [(node.expiration, key, node) for key, node in model.items() if node.expiration is not None]
    assert set(deadlines.seconds_of) == {key for _, key, _ in left}
    for time in [*times, -(2**63), 2**63 - 1]:
        due = sorted(each for each in left if each[0] <= time)
        assert deadlines.expired(time) == [node for _, _, node in due]
        assert deadlines.next_after(time) == min((each[0] for each in left if each[0] > time), default=None)


def test_nothing_is_left_of_what_was_removed() -> None:
    deadlines = Deadlines()
    for number in range(1000):
        deadlines.put(Node(f"/{number}", "", 1, 1, expiration=number * SECOND // 3))
    for number in range(1000):
        deadlines.put(Node(f"/{number}", "", 2, 2, expiration=number * SECOND // 3 if number % 2 else None))
    for number in range(1000):
        deadlines.remove(f"/{number}")
    assert (deadlines._order, deadlines._seconds, deadlines.seconds_of) == ([], {}, {})
