"""A keyspace over a blocking store, for callers on an event loop: each call runs in a thread of a bounded pool."""

from collections.abc import AsyncIterable, Callable, Sequence
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from common_raft.keyspace import Command, Keyspace, Query, Result, Snapshot, StoreStats, Watchers
from common_raft.keyspace.keyspace import Answers, Carried, Restoring, restore_from

#: Threads that may be in the store at a time; further calls wait, and take no thread meanwhile.  Applying and
#: clients' reads, which share calls, need few; and they all share one interpreter.
THREADS = 4

Found = TypeVar("Found")


class PooledKeyspace:
    """Stands where an ``AsyncKeyspace`` stands, over a ``Keyspace``.

    A committed batch is one call, however often it asks the store: changing threads costs as much as a statement.
    """

    def __init__(self, keyspace: Keyspace, threads: int = THREADS) -> None:
        self._keyspace = keyspace
        self._limiter = CapacityLimiter(threads)

    @property
    def index(self) -> int:
        return self._keyspace.index

    @property
    def applied(self) -> int:
        return self._keyspace.applied

    def encode(self, commands: Sequence[Command]) -> bytes:
        return self._keyspace.encode(commands)

    @property
    def watchers(self) -> Watchers:
        return self._keyspace.watchers

    @property
    def stats(self) -> StoreStats:
        return self._keyspace.stats

    @property
    def expires(self) -> int | None:
        return self._keyspace.expires

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        carried = await self.carry_out(batches, applied)
        self.publish(carried)
        return carried.answers

    async def carry_out(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Carried:
        return await self._run(lambda: self._keyspace.carry_out(batches, applied))

    def publish(self, carried: Carried) -> None:
        """Watchers are told in the loop."""
        self._keyspace.publish(carried)

    async def settle(self) -> None:
        await self._run(self._keyspace.settle)

    async def claim(self, cluster: str, member: str) -> None:
        await to_thread.run_sync(self._keyspace.claim, cluster, member, limiter=self._limiter)

    async def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        return await self._run(lambda: self._keyspace.get_many(queries))

    async def snapshot(self, applied: int | None = None) -> "PooledSnapshot":
        """See `AsyncKeyspace.snapshot`."""
        return PooledSnapshot(self, await self._run(lambda: self._keyspace.snapshot(applied)))

    async def restore(self, chunks: AsyncIterable[bytes]) -> None:
        """See `AsyncKeyspace.restore`."""
        await restore_from(self, chunks)

    async def begin_restoring(self, first: bytes) -> "PooledRestoring":
        """See `AsyncKeyspace.begin_restoring`."""
        return PooledRestoring(self, await self._run(lambda: self._keyspace.begin_restoring(first)))

    async def _run(self, call: Callable[[], Found]) -> Found:
        return await to_thread.run_sync(call, limiter=self._limiter)


class PooledSnapshot:
    """A `Snapshot`, each step of which runs in the pool."""

    def __init__(self, keyspace: PooledKeyspace, snapshot: Snapshot) -> None:
        self._keyspace = keyspace
        self._snapshot = snapshot

    def __aiter__(self) -> "PooledSnapshot":
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._keyspace._run(lambda: next(self._snapshot, None))
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def close(self) -> None:
        """Lets go of the view; closing twice is fine."""
        self._snapshot.close()


class PooledRestoring:
    """A `Restoring`, each step of which runs in the pool."""

    def __init__(self, keyspace: PooledKeyspace, restoring: Restoring) -> None:
        self._keyspace = keyspace
        self._restoring = restoring

    async def add(self, chunk: bytes) -> None:
        await self._keyspace._run(lambda: self._restoring.add(chunk))

    async def commit(self) -> None:
        await self._keyspace._run(self._restoring.commit)

    async def abort(self) -> None:
        await self._keyspace._run(self._restoring.abort)
