"""A keyspace over a blocking store, called from a loop: in other threads, and in no more than it may."""

import asyncio
import threading
from collections.abc import Sequence

from common_raft.keyspace import Event, HashMapStore, Keyspace, Node, Result, Set
from common_raft.stores import PooledKeyspace


class Watched(Keyspace):
    """Notes which threads are in it, and how many at a time."""

    __slots__ = ("_lock", "at_once", "inside", "threads")

    def __init__(self) -> None:
        super().__init__(HashMapStore())
        self._lock = threading.Lock()
        self.inside = self.at_once = 0
        self.threads: set[int] = set()

    def get_many(self, keys: Sequence[str]) -> list[Result]:
        with self._lock:
            self.inside += 1
            self.at_once = max(self.at_once, self.inside)
            self.threads.add(threading.get_ident())
        threading.Event().wait(0.02)
        with self._lock:
            self.inside -= 1
        return super().get_many(keys)


def test_a_batch_is_applied_and_read_as_by_the_keyspace_itself() -> None:
    async def whole() -> None:
        pooled = PooledKeyspace(Keyspace(HashMapStore()))
        await pooled.settle()
        node = Node("/a", "x", 1, 1)
        batch = (pooled.encode([Set("/a", "x")]), True)
        assert await pooled.apply([batch], 5) == [[Event("set", node, None, 1)]]
        assert (pooled.index, pooled.applied) == (1, 5)
        assert await pooled.get_many(["/a"]) == [Event("get", node, None, 1)]

    asyncio.run(whole())


def test_calls_run_beside_the_loop_in_no_more_threads_than_allowed() -> None:
    keyspace = Watched()

    async def whole() -> None:
        pooled = PooledKeyspace(keyspace, threads=2)
        await asyncio.gather(*(pooled.get_many(["/a"]) for _ in range(6)))

    asyncio.run(whole())
    assert keyspace.at_once == 2
    assert threading.get_ident() not in keyspace.threads
