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
    Set,
    StoreUnavailable,
)
from common_raft.tests.stores_under_test import Awaited

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
