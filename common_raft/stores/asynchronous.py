"""A store in a SQL database, awaited: ``AsyncSession``.

In memory, SQLite is reached through several connections (aiosqlite has a thread for each), so that a reader has a
connection of its own and never sees half of a write.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node
from common_raft.stores import operations
from common_raft.stores.database import Database
from common_raft.stores.failures import away
from common_raft.stores.gates import AsyncGate
from common_raft.stores.operations import Marks, Owner, Write
from common_raft.stores.views import Before

Argument = TypeVar("Argument")
Found = TypeVar("Found")


class AsyncSqlStore:
    """See ``AsyncStore``.  Each call is a session of its own; many may be under way, and their awaits interleave.

    A session runs its operation with ``run_sync``: every statement is awaited by the driver, and the code that makes
    statements and reads rows is the blocking store's own.
    """

    def __init__(self, database: Database, *, one_at_a_time: bool = True) -> None:
        """`open` it, in the loop in which it is used, and `close` it.

        ``one_at_a_time``: see `SqlStore`.  Raises StoreError when the database has no driver here.
        """
        self.index = self.applied = 0
        self._one_at_a_time = one_at_a_time
        self._gate = AsyncGate(exclusive=database.in_memory)
        self._before: Before | None = None
        self._writer, self._readers = database.async_engines()

    async def open(self, owner: Owner | None) -> None:
        """Makes the tables if there are none; ``owner``: see `SqlStore`.

        Raises StoreError, with nothing changed, and StoreUnavailable.
        """
        before = set(threading.enumerate())
        try:
            self._take(await self._write(operations.prepare, owner))
        except BaseException:
            await asyncio.to_thread(_join, set(threading.enumerate()) - before)
            raise

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.dispose()

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        return await self._read(operations.read_many, keys)

    async def children(self, key: str, limit: int | None = None) -> list[Node]:
        return await self._read(operations.read_children, operations.Children(key, limit))

    async def descendants(self, key: str) -> list[Node]:
        return await self._read(operations.read_descendants, key)

    async def listing(self, key: str, recursive: bool) -> list[Node]:
        return await self._read(operations.read_listing, operations.Listing(key, recursive))

    async def next_expiration(self, after: int) -> int | None:
        return await self._read(operations.read_next_expiration, after)

    async def expired(self, before: int) -> list[Node]:
        return await self._read(operations.read_expired, before)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        marks = Marks(index, applied)
        expected = Marks(self.index, self.applied) if self._one_at_a_time else None
        if (before := self._before) is not None:
            upserts, deletes = list(upserts), list(deletes)
            if missing := before.missing([*[node.key for node in upserts], *deletes]):
                before.keep(await self._read(operations.read_many, missing))
        await self._write(operations.write, Write(upserts, deletes, marks, expected))
        self._take(marks)

    async def view(self) -> "AsyncSqlView":
        self._refuse_second()
        self._before = Before(Marks(self.index, self.applied))
        return AsyncSqlView(self, self._before)

    async def replace(self, index: int, applied: int) -> "AsyncSqlReplacement":
        self._refuse_second()
        await self._gate.start_writing()
        replacement = AsyncSqlReplacement(self, Marks(index, applied))
        await replacement.clear()
        return replacement

    def _refuse_second(self) -> None:
        if self._before is not None:
            raise RuntimeError("a view of this store is open: close it first")

    async def settle(self) -> None:
        before = Marks(self.index, self.applied) if self._one_at_a_time else None
        self._take(await self._write(operations.settle, before))

    async def claim(self, cluster: str, member: str) -> None:
        await self._write(operations.claim, Owner(cluster, member))

    def _take(self, marks: Marks) -> None:
        self.index, self.applied = marks

    async def _read(self, operation: Callable[[Session, Argument], Found], argument: Argument) -> Found:
        await self._gate.start_reading()
        try:
            async with _session(self._readers) as session:
                return await session.run_sync(operation, argument)
        except Exception as error:
            raise away(error) or error from None
        finally:
            self._gate.end_reading()

    async def _write(self, operation: Callable[[Session, Argument], Found], argument: Argument) -> Found:
        await self._gate.start_writing()
        try:
            async with _session(self._writer) as session:
                return await session.run_sync(operation, argument)
        except Exception as error:
            raise away(error) or error from None
        finally:
            self._gate.end_writing()


class AsyncSqlView:
    """See ``View``."""

    def __init__(self, store: AsyncSqlStore, before: Before) -> None:
        self.index, self.applied = before.marks
        self._store = store
        self._before = before

    async def next(self) -> list[Node] | None:
        if self._before.place is None:
            return None
        return self._before.merge(await self._store._read(operations.read_page, self._before.place))

    def close(self) -> None:
        if self._store._before is self._before:
            self._store._before = None


class AsyncSqlReplacement:
    """See ``Replacement``: one transaction, during which nobody else writes."""

    def __init__(self, store: AsyncSqlStore, marks: Marks) -> None:
        """For `AsyncSqlStore.replace`, which has entered the gate."""
        self._store = store
        self._marks = marks
        self._session: AsyncSession | None = _session(store._writer)

    async def clear(self) -> None:
        await self._run(operations.clear, self._marks)

    async def add(self, nodes: Sequence[Node]) -> None:
        await self._run(operations.insert_new, nodes)

    async def commit(self) -> None:
        await self._run(lambda session, _: session.commit(), None)
        self._store._take(self._marks)
        await self.abort()

    async def abort(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.close()
            finally:
                self._store._gate.end_writing()

    async def _run(self, operation: Callable[[Session, Argument], None], argument: Argument) -> None:
        if self._session is None:
            raise RuntimeError("this replacement has ended")
        try:
            await self._session.run_sync(operation, argument)
        except BaseException as error:
            await self.abort()
            raise (away(error) if isinstance(error, Exception) else None) or error from None


def _session(engine: AsyncEngine) -> AsyncSession:
    return AsyncSession(engine, autoflush=False, expire_on_commit=False)


def _join(begun: Iterable[threading.Thread]) -> None:
    """Waits for the threads of connections that could not be made.

    aiosqlite does not; such a thread still calls the loop, and says a lot if that has ended by then.
    """
    for thread in begun:
        if thread.name.endswith("(_connection_worker_thread)"):
            thread.join(5.0)
