"""The table of members: what changes it, what must not, and what it remembers."""

import pytest

from common_raft.core import ConfChangeKind, LogDamaged
from common_raft.drivers.membership import (
    ID_EXISTS,
    ID_NOT_FOUND,
    ID_REMOVED,
    NOT_ENOUGH_STARTED,
    NOT_LEARNER,
    TOO_MANY_LEARNERS,
    UNHEALTHY,
    URL_EXISTS,
    Change,
    ChangeError,
    ChangeKind,
    MemberInfo,
    Members,
    decode_change,
    new_member,
)


def info(
    node_id: int, *, name: str | None = None, url: str | None = None, learner: bool = False
) -> MemberInfo:
    return MemberInfo(
        node_id,
        f"n{node_id}" if name is None else name,
        (url or f"http://127.0.0.1:{node_id}",),
        (f"http://c:{node_id}",),
        learner,
    )


def table(*ids: int) -> Members:
    return Members(map(info, ids))


def test_entries_change_the_table_in_their_order_and_each_but_once() -> None:
    members = table(1, 2)
    added = info(3, name="")
    steps = [
        Change(ChangeKind.ADD, added),
        Change(ChangeKind.PUBLISH, MemberInfo(3, "three", (), ("http://c",))),
        Change(ChangeKind.UPDATE, MemberInfo(3, "", ("http://new:3",))),
        Change(ChangeKind.REMOVE, MemberInfo(1, "", ())),
    ]
    for index, step in enumerate(steps, start=10):
        assert members.apply(index, step)
    assert members.all() == [info(2), MemberInfo(3, "three", ("http://new:3",), ("http://c",))]
    assert members.removed == {1}
    known = members.encode()
    for index, step in enumerate(steps, start=10):
        assert not members.apply(index, step)
    assert members.encode() == known
    members.apply(20, Change(ChangeKind.ADD, info(1)))
    assert members.get(1) is None  # an id never comes back


def test_a_table_is_the_same_after_it_was_written_and_read() -> None:
    members = table(1, 2, 3)
    members.apply(7, Change(ChangeKind.REMOVE, info(3)))
    again = Members.decode(members.encode())
    assert (again.all(), again.removed, again.index) == (members.all(), {3}, 7)
    with pytest.raises(ValueError, match=r"MessagePack|Expected|Invalid"):
        Members.decode(b"what is this")


def test_a_snapshot_takes_the_table_on_and_never_back() -> None:
    ahead, behind = table(1, 2), table(1, 2)
    ahead.apply(9, Change(ChangeKind.REMOVE, info(2)))
    behind.restore(ahead.encode())
    assert behind.encode() == ahead.encode()
    ahead.restore(table(1, 2).encode())
    assert behind.encode() == ahead.encode()


def test_a_url_that_is_added_again_is_another_member() -> None:
    first, second = (new_member(["http://b:1", "http://a:1"]) for _ in range(2))
    assert first.peer_urls == ("http://a:1", "http://b:1")
    assert first.id != second.id


def test_what_the_core_is_told() -> None:
    members = Members([info(1), info(2, learner=True)])

    def kinds(change: Change) -> list[tuple[ConfChangeKind, int]]:
        changes = members.conf_changes(change)
        assert decode_change(changes.context) == change
        return [(each.kind, each.id) for each in changes.changes]

    voter, learner, remove = ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER, ConfChangeKind.REMOVE
    assert kinds(Change(ChangeKind.ADD, info(3))) == [(voter, 3)]
    assert kinds(Change(ChangeKind.ADD, info(3, learner=True))) == [(learner, 3)]
    assert kinds(Change(ChangeKind.REMOVE, info(2))) == [(remove, 2)]
    for kind in (ChangeKind.UPDATE, ChangeKind.PUBLISH):  # nothing that the core would notice
        assert kinds(Change(kind, info(1))) == [(voter, 1)]
        assert kinds(Change(kind, info(2))) == [(learner, 2)]
    assert kinds(Change(ChangeKind.PROMOTE, info(2))) == [(voter, 2)]
    with pytest.raises(LogDamaged):
        decode_change(b"\xc1")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Change(ChangeKind.ADD, info(3)), None),
        (Change(ChangeKind.ADD, info(2, url="http://x:1")), ID_EXISTS),
        (Change(ChangeKind.ADD, info(3, url="http://127.0.0.1:1")), URL_EXISTS),
        (Change(ChangeKind.ADD, info(9)), ID_REMOVED),
        (Change(ChangeKind.ADD, info(3, learner=True)), TOO_MANY_LEARNERS),
        (Change(ChangeKind.REMOVE, info(3)), ID_NOT_FOUND),
        (Change(ChangeKind.REMOVE, info(9)), ID_REMOVED),
        (Change(ChangeKind.UPDATE, info(2)), None),
        (Change(ChangeKind.UPDATE, info(3)), ID_NOT_FOUND),
        (Change(ChangeKind.UPDATE, info(2, url="http://127.0.0.1:1")), URL_EXISTS),
        (Change(ChangeKind.PUBLISH, info(9)), ID_REMOVED),
        (Change(ChangeKind.PROMOTE, info(2)), NOT_LEARNER),
        (Change(ChangeKind.PROMOTE, info(4)), None),
        (Change(ChangeKind.PROMOTE, info(9)), ID_REMOVED),
    ],
)
def test_what_does_not_fit_the_table(change: Change, error: ChangeError | None) -> None:
    members = Members([info(1), info(2), info(4, learner=True)], removed=[9])
    assert members.check(change, {1, 2, 4}, strict=False) == error


@pytest.mark.parametrize(
    ("started", "silent", "connected", "change", "error"),
    [
        # One that runs may become two: there is no other way to grow.
        ((1,), (), {1}, Change(ChangeKind.ADD, info(8)), None),
        ((1, 2), (), {1, 2}, Change(ChangeKind.ADD, info(8)), None),
        ((1, 2), (), {1}, Change(ChangeKind.ADD, info(8)), UNHEALTHY),
        ((1,), (2,), {1}, Change(ChangeKind.ADD, info(8)), NOT_ENOUGH_STARTED),
        ((1, 2, 3), (4,), {1, 2, 3}, Change(ChangeKind.ADD, info(8)), UNHEALTHY),
        ((1, 2), (3, 4), {1, 2}, Change(ChangeKind.ADD, info(8)), NOT_ENOUGH_STARTED),
        ((1,), (), {1}, Change(ChangeKind.REMOVE, info(1)), NOT_ENOUGH_STARTED),
        ((1, 2), (), {1, 2}, Change(ChangeKind.REMOVE, info(1)), None),
        ((1, 2, 3), (), {1, 2}, Change(ChangeKind.REMOVE, info(2)), UNHEALTHY),
        ((1, 2, 3), (), {1, 2}, Change(ChangeKind.REMOVE, info(3)), None),
        ((1, 2), (3,), {1, 2}, Change(ChangeKind.REMOVE, info(3)), None),
        ((1, 2), (3,), {1, 2}, Change(ChangeKind.REMOVE, info(2)), NOT_ENOUGH_STARTED),
        ((1, 2, 3, 4, 5), (), {1, 2, 3}, Change(ChangeKind.REMOVE, info(2)), UNHEALTHY),
        ((1, 2, 3, 4, 5), (), {1, 2, 3, 4}, Change(ChangeKind.REMOVE, info(2)), None),
        ((1,), (2,), {1}, Change(ChangeKind.UPDATE, info(2)), None),
        ((1,), (2,), {1}, Change(ChangeKind.PUBLISH, info(2)), None),
    ],
)
def test_what_the_cluster_cannot_afford_is_refused_when_it_is_asked_to_be_strict(
    started: tuple[int, ...],
    silent: tuple[int, ...],
    connected: set[int],
    change: Change,
    error: ChangeError | None,
) -> None:
    members = Members([*map(info, started), *(info(each, name="") for each in silent)])
    assert members.check(change, connected, strict=True) == error
    assert members.check(change, connected, strict=False) is None
