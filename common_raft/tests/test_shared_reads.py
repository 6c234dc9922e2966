"""Clients' reads of a store that is awaited: they share requests, and nobody is forgotten."""

import asyncio
from collections.abc import Collection, Iterable

import uvloop

from common_raft.keyspace import (
    AsyncKeyspace,
    Event,
    HashMapStore,
    Node,
    Result,
    SharedReads,
    StoreUnavailable,
)


class AwaitedStore:
    """A HashMap that takes a moment, and counts how often it is asked.  ``away``: it cannot be reached."""

    def __init__(self) -> None:
        self._store = HashMapStore()
        self.index = self.applied = 0
        self.asked: list[list[str]] = []
        self.away = False

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        self.asked.append(list(keys))
        await asyncio.sleep(0.01)
        if self.away:
            raise StoreUnavailable("the store is away")
        return self._store.get_many(keys)

    async def children(self, key: str) -> list[Node]:
        return self._store.children(key)

    async def descendants(self, key: str) -> list[Node]:
        return self._store.descendants(key)

    async def expired(self, before: int) -> list[Node]:
        return self._store.expired(before)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        self._store.write(upserts, deletes, index, applied)
        self.index, self.applied = index, applied


def read(reads: SharedReads, key: str) -> asyncio.Future[Result | StoreUnavailable]:
    future: asyncio.Future[Result | StoreUnavailable] = asyncio.get_running_loop().create_future()
    reads.read(key, future.set_result)
    return future


def test_reads_of_one_turn_share_a_request_and_those_that_come_meanwhile_the_next() -> None:
    async def whole() -> None:
        store = AwaitedStore()
        await store.write([Node("/a", "x", 1, 1)], [], 1, 1)
        reads = SharedReads(AsyncKeyspace(store))
        first = [read(reads, key) for key in ("/a", "/b")]
        await asyncio.sleep(0)
        later = [read(reads, "/a") for _ in range(3)]
        found = await asyncio.gather(*first, *later)
        assert store.asked == [["/a", "/b"], ["/a"] * 3]
        assert [isinstance(each, Event) for each in found] == [True, False, True, True, True]

    uvloop.run(whole())


def test_a_read_right_after_an_answer_is_answered_too() -> None:
    async def whole() -> None:
        reads = SharedReads(AsyncKeyspace(AwaitedStore()))
        async with asyncio.timeout(5):
            for _ in range(3):
                await read(reads, "/a")

    uvloop.run(whole())


def test_a_store_that_is_away_fails_the_reads_and_is_asked_again_by_later_ones() -> None:
    async def whole() -> None:
        store = AwaitedStore()
        reads = SharedReads(AsyncKeyspace(store))
        store.away = True
        failed = await read(reads, "/a")
        assert isinstance(failed, StoreUnavailable)
        assert failed.cause == "the store is away"
        store.away = False
        assert not isinstance(await read(reads, "/a"), StoreUnavailable)

    uvloop.run(whole())
