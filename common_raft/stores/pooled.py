"""A blocking store for callers on an event loop: each call runs in a thread of a bounded pool, never in the loop."""

from collections.abc import Collection, Iterable

from anyio import CapacityLimiter, to_thread

from common_raft.keyspace.node import Node
from common_raft.keyspace.store import Store

#: Threads that may be in the store at a time; further calls wait, and take no thread meanwhile.  A write, the read
#: that it is decided on, and clients' reads, which share calls, need few; and they all share one interpreter.
THREADS = 4


class PooledStore:
    """See ``AsyncStore``: ``store``'s calls, in at most ``threads`` threads."""

    def __init__(self, store: Store, threads: int = THREADS) -> None:
        self._store = store
        self._limiter = CapacityLimiter(threads)

    @property
    def index(self) -> int:
        return self._store.index

    @property
    def applied(self) -> int:
        return self._store.applied

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        return await to_thread.run_sync(self._store.get_many, keys, limiter=self._limiter)

    async def children(self, key: str) -> list[Node]:
        return await to_thread.run_sync(self._store.children, key, limiter=self._limiter)

    async def descendants(self, key: str) -> list[Node]:
        return await to_thread.run_sync(self._store.descendants, key, limiter=self._limiter)

    async def expired(self, before: int) -> list[Node]:
        return await to_thread.run_sync(self._store.expired, before, limiter=self._limiter)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        await to_thread.run_sync(self._store.write, upserts, deletes, index, applied, limiter=self._limiter)

    async def settle(self) -> None:
        await to_thread.run_sync(self._store.settle, limiter=self._limiter)
