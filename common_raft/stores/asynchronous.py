"""A store in a SQL database, awaited: ``AsyncSession``.

In memory, SQLite is reached through several connections (aiosqlite has a thread for each), so that a reader has a
connection of its own and never sees half of a write.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node
from common_raft.stores import operations
from common_raft.stores.database import Database
from common_raft.stores.failures import away
from common_raft.stores.gates import AsyncGate
from common_raft.stores.operations import Marks, Owner, Write

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
        self._writer, self._readers = database.async_engines()

    async def open(self, owner: Owner) -> None:
        """Makes the tables if there are none.  Raises StoreError, with nothing changed, and StoreUnavailable."""
        self._take(await self._write(operations.prepare, owner))

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.dispose()

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        return await self._read(operations.read_many, keys)

    async def children(self, key: str) -> list[Node]:
        return await self._read(operations.read_children, key)

    async def descendants(self, key: str) -> list[Node]:
        return await self._read(operations.read_descendants, key)

    async def expired(self, before: int) -> list[Node]:
        return await self._read(operations.read_expired, before)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        marks = Marks(index, applied)
        expected = Marks(self.index, self.applied) if self._one_at_a_time else None
        await self._write(operations.write, Write(upserts, deletes, marks, expected))
        self._take(marks)

    async def settle(self) -> None:
        before = Marks(self.index, self.applied) if self._one_at_a_time else None
        self._take(await self._write(operations.settle, before))

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


def _session(engine: AsyncEngine) -> AsyncSession:
    return AsyncSession(engine, autoflush=False, expire_on_commit=False)
