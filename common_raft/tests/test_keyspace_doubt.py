"""A store that goes away during a write: the same batch comes again, and takes effect once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from common_raft.keyspace import (
    AsyncKeyspace,
    Create,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Put,
    Set,
    StoreUnavailable,
)
from common_raft.tests.stores_under_test import Awaited

SOON = 2_000_000_000 * 10**9
BATCH = Sequence[tuple[bytes, bool]]


class AwayStore(HashMapStore):
    """Its next write raises StoreUnavailable, made or not; the marks show which once they are settled."""

    __slots__ = ("away", "held", "made")

    def __init__(self) -> None:
        super().__init__()
        self.away = False  # when asked to settle
        self.made: bool | None = None  # what becomes of the next write; None: nothing special
        self.held: tuple[int, int] | None = None

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        if self.made is None:
            super().write(upserts, deletes, index, applied)
            return
        before = (self.index, self.applied)
        if self.made:
            super().write(upserts, deletes, index, applied)
        self.held = (self.index, self.applied)
        self.index, self.applied = before  # what it remembers: nobody has told it
        self.made = None
        raise StoreUnavailable("away")

    def settle(self) -> None:
        if self.away:
            raise StoreUnavailable("still away")
        assert self.held is not None
        self.index, self.applied = self.held


class InLoop:
    """An AsyncKeyspace behind a Keyspace's face."""

    def __init__(self, store: AwayStore) -> None:
        self._keyspace = AsyncKeyspace(Awaited(store))
        self.encode = self._keyspace.encode

    index = property(lambda self: self._keyspace.index)
    watchers = property(lambda self: self._keyspace.watchers)
    expires = property(lambda self: self._keyspace.expires)
    stats = property(lambda self: self._keyspace.stats)

    def apply(self, batches: BATCH, applied: int) -> Any:
        return asyncio.run(self._keyspace.apply(batches, applied))


@pytest.fixture
def store() -> AwayStore:
    return AwayStore()


@pytest.fixture(params=[Keyspace, InLoop])
def keyspace(request: pytest.FixtureRequest, store: AwayStore) -> Any:
    return request.param(store)


@pytest.mark.parametrize("made", [True, False])
def test_a_write_in_doubt_takes_effect_once_and_whoever_waits_is_told(
    keyspace: Any, store: AwayStore, made: bool
) -> None:
    batch = [(keyspace.encode([Create("/a", "x"), Set("/a", "y")]), True)]
    store.made = made
    with pytest.raises(StoreUnavailable):
        keyspace.apply(batch, 5)
    first, second = Node("/a", "x", 1, 1), Node("/a", "y", 2, 2)
    assert keyspace.apply(batch, 5) == [[Event("create", first, None, 1), Event("set", second, first, 2)]]
    assert (store.index, store.applied, store.get("/a")) == (2, 5, second)
    assert keyspace.apply(batch, 5) == [None]


def test_watchers_are_told_once_when_it_is_known_that_the_write_was_made(
    keyspace: Any, store: AwayStore
) -> None:
    told: list[Event | None] = []
    keyspace.watchers.watch("/a", recursive=False, stream=True, since=0, notify=told.append)
    batch = [(keyspace.encode([Set("/a", "x")]), False)]
    event = Event("set", Node("/a", "x", 1, 1), None, 1)
    store.made = True
    with pytest.raises(StoreUnavailable):
        keyspace.apply(batch, 5)
    assert told == []
    keyspace.apply(batch, 5)
    keyspace.apply(batch, 5)
    assert told == [event]


@pytest.mark.parametrize("made", [True, False])
def test_what_is_known_of_a_write_only_when_the_next_comes_is_told_before_that(
    keyspace: Any, store: AwayStore, made: bool
) -> None:
    told: list[Event | None] = []
    keyspace.watchers.watch("/", recursive=True, stream=True, since=0, notify=told.append)
    store.made = made
    with pytest.raises(StoreUnavailable):
        keyspace.apply([(keyspace.encode([Put("/a", "x", SOON)]), False)], 5)
    keyspace.apply([(keyspace.encode([Set("/b", "y")]), False)], 6)
    assert [each and (each.node.key, each.index) for each in told] == (
        [("/a", 1), ("/b", 2)] if made else [("/b", 1)]
    )
    assert keyspace.expires == (SOON if made else None)
    assert keyspace.stats.sets_success == (2 if made else 1)


def test_a_snapshot_right_after_a_write_in_doubt_has_no_history_with_a_gap(store: AwayStore) -> None:
    keyspace = Keyspace(store)
    keyspace.apply([(keyspace.encode([Set("/a", "x")]), False)], 4)
    store.made = True
    with pytest.raises(StoreUnavailable):
        keyspace.apply([(keyspace.encode([Set("/b", "y")]), False)], 5)
    other = Keyspace(HashMapStore())
    other.restore(filter(None, keyspace.snapshot()))
    assert (other.index, other.watchers.index, other.watchers.history()) == (2, 2, [])


def test_a_store_that_cannot_tell_yet_leaves_the_write_in_doubt(keyspace: Any, store: AwayStore) -> None:
    batch = [(keyspace.encode([Set("/a", "x")]), True)]
    store.made, store.away = True, True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            keyspace.apply(batch, 5)
    store.away = False
    assert keyspace.apply(batch, 5) == [[Event("set", Node("/a", "x", 1, 1), None, 1)]]
    assert keyspace.index == 1


def test_another_batch_after_a_write_in_doubt_is_no_repetition_of_it(keyspace: Any, store: AwayStore) -> None:
    store.made = True
    with pytest.raises(StoreUnavailable):
        keyspace.apply([(keyspace.encode([Set("/a", "x")]), True)], 5)
    other = [(keyspace.encode([Set("/b", "y")]), True)]
    assert keyspace.apply(other, 5) == [None]
    assert keyspace.apply(other, 6) == [[Event("set", Node("/b", "y", 2, 2), None, 2)]]
