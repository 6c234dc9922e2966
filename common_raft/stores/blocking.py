"""A store in a SQL database, reached through a blocking ``Session``."""

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node
from common_raft.stores import operations
from common_raft.stores.database import Database
from common_raft.stores.failures import away
from common_raft.stores.gates import Gate
from common_raft.stores.operations import Marks, Owner, Write

Argument = TypeVar("Argument")
Found = TypeVar("Found")


class SqlStore:
    """See ``Store``.  Each call is a session of its own, and calls may come from many threads."""

    def __init__(self, database: Database, owner: Owner, *, one_at_a_time: bool = True) -> None:
        """Opens it, and makes the tables if it has none: `close` it.

        ``one_at_a_time``: each write is decided on what the one before it left, so that another's write in between
        is an error.  Raises StoreError, with nothing changed, and StoreUnavailable.
        """
        self.index = self.applied = 0
        self._one_at_a_time = one_at_a_time
        self._gate = Gate(exclusive=database.in_memory)
        self._writer, self._readers = database.engines()
        try:
            with _session(self._writer) as session:
                self._take(operations.prepare(session, owner))
        except Exception as error:
            self.close()
            raise away(error) or error from None

    def close(self) -> None:
        self._readers.dispose()
        self._writer.dispose()

    def get(self, key: str) -> Node | None:
        return self._read(operations.read_one, key)

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        return self._read(operations.read_many, keys)

    def children(self, key: str) -> list[Node]:
        return self._read(operations.read_children, key)

    def descendants(self, key: str) -> list[Node]:
        return self._read(operations.read_descendants, key)

    def expired(self, before: int) -> list[Node]:
        return self._read(operations.read_expired, before)

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        marks = Marks(index, applied)
        expected = Marks(self.index, self.applied) if self._one_at_a_time else None
        self._write(operations.write, Write(upserts, deletes, marks, expected))
        self._take(marks)

    def settle(self) -> None:
        before = Marks(self.index, self.applied) if self._one_at_a_time else None
        self._take(self._write(operations.settle, before))

    def _take(self, marks: Marks) -> None:
        self.index, self.applied = marks

    def _read(self, operation: Callable[[Session, Argument], Found], argument: Argument) -> Found:
        self._gate.start_reading()
        try:
            with _session(self._readers) as session:
                return operation(session, argument)
        except Exception as error:
            raise away(error) or error from None
        finally:
            self._gate.end_reading()

    def _write(self, operation: Callable[[Session, Argument], Found], argument: Argument) -> Found:
        self._gate.start_writing()
        try:
            with _session(self._writer) as session:
                return operation(session, argument)
        except Exception as error:
            raise away(error) or error from None
        finally:
            self._gate.end_writing()


def _session(engine: Engine) -> Session:
    return Session(engine, autoflush=False, expire_on_commit=False)
