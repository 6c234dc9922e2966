"""Clients' reads of a store that takes time: they share requests, and nobody is forgotten."""

import asyncio
import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from common_raft.keyspace import (
    AsyncKeyspace,
    Event,
    HashMapStore,
    Node,
    Result,
    SharedReads,
    StoreUnavailable,
    ThreadsSharedReads,
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
        assert store.asked == [["/a", "/b"], ["/a"]]
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


# --- threads ------------------------------------------------------------------------------------------------------

SOON = 10.0  # s


class Held:
    """A keyspace whose reads wait until they are let go, and fail if they are told to."""

    index = 7

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.error: BaseException | None = None

    def get_many(self, keys: Sequence[str]) -> list[Result]:
        self.asked.append(list(keys))
        self.begun.release()
        assert self.let_go.acquire(timeout=SOON)
        if self.error is not None:
            raise self.error
        return [Event("get", Node(key, key, 1, 1), None, 7) for key in keys]


def answer(reads: ThreadsSharedReads, key: str) -> Result | StoreUnavailable:
    answers: list[Result | StoreUnavailable] = []
    reads.read(key, answers.append)
    [found] = answers
    return found


def waiting(reads: ThreadsSharedReads, number: int) -> None:
    """Until so many threads wait for the read that is under way."""
    while len(reads._waiting) < number:
        threading.Event().wait(0.001)


def test_threads_that_come_during_a_read_share_the_next_one_and_each_gets_its_own_key() -> None:
    keyspace = Held()
    reads = ThreadsSharedReads(keyspace)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(answer, reads, "/a")
        assert keyspace.begun.acquire(timeout=SOON)
        later = [threads.submit(answer, reads, f"/{number}") for number in range(5)]
        waiting(reads, 5)
        keyspace.let_go.release(2)
        assert first.result(SOON) == Event("get", Node("/a", "/a", 1, 1), None, 7)
        for number, future in enumerate(later):
            assert future.result(SOON) == Event("get", Node(f"/{number}", f"/{number}", 1, 1), None, 7)
    assert [sorted(keys) for keys in keyspace.asked] == [["/a"], [f"/{number}" for number in range(5)]]


def test_a_read_after_all_others_were_answered_is_answered_too() -> None:
    keyspace = Held()
    keyspace.let_go.release(3)
    reads = ThreadsSharedReads(keyspace)
    for key in ("/a", "/b", "/c"):
        assert isinstance(answer(reads, key), Event)
    assert keyspace.asked == [["/a"], ["/b"], ["/c"]]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("broken")])
def test_a_read_that_fails_fails_all_that_share_it_and_the_next_is_made_all_the_same(
    error: Exception,
) -> None:
    keyspace = Held()
    reads = ThreadsSharedReads(keyspace)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(answer, reads, "/a")
        assert keyspace.begun.acquire(timeout=SOON)
        shared = [threads.submit(answer, reads, key) for key in ("/b", "/c", "/d")]
        waiting(reads, 3)
        keyspace.let_go.release()
        assert isinstance(first.result(SOON), Event)
        assert keyspace.begun.acquire(timeout=SOON)
        last = threads.submit(answer, reads, "/e")
        waiting(reads, 1)
        keyspace.error = error
        keyspace.let_go.release()
        outcomes = [future.exception(SOON) or future.result(SOON) for future in shared]
        assert sorted(str(outcome).removeprefix("ValueError: ") for outcome in outcomes) == [str(error)] * 3
        assert sum(isinstance(outcome, StoreUnavailable) for outcome in outcomes) >= 2
        assert keyspace.begun.acquire(timeout=SOON)
        keyspace.error = None
        keyspace.let_go.release()
        assert isinstance(last.result(SOON), Event)
