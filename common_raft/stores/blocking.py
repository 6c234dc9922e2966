"""A store in a SQL database, reached through a blocking ``Session``."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from common_raft.keyspace.node import Node
from common_raft.stores import operations
from common_raft.stores.database import Database
from common_raft.stores.failures import away
from common_raft.stores.gates import Gate
from common_raft.stores.operations import Marks, Owner, Write
from common_raft.stores.views import Before

Argument = TypeVar("Argument")
Found = TypeVar("Found")


class SqlStore:
    """See ``Store``.  Each call is a session of its own, and calls may come from many threads."""

    def __init__(self, database: Database, owner: Owner | None, *, one_at_a_time: bool = True) -> None:
        """Opens it, and makes the tables if it has none: `close` it.

        ``owner``: whose state it is; None when `claim` says that later.
        ``one_at_a_time``: each write is decided on what the one before it left, so that another's write in between
        is an error.  Raises StoreError, with nothing changed, and StoreUnavailable.
        """
        self.index = self.applied = 0
        self._one_at_a_time = one_at_a_time
        self._gate = Gate(exclusive=database.in_memory)
        self._before: Before | None = None
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

    def children(self, key: str, limit: int | None = None) -> list[Node]:
        return self._read(operations.read_children, operations.Children(key, limit))

    def descendants(self, key: str) -> list[Node]:
        return self._read(operations.read_descendants, key)

    def listing(self, key: str, recursive: bool) -> list[Node]:
        return self._read(operations.read_listing, operations.Listing(key, recursive))

    def next_expiration(self, after: int) -> int | None:
        return self._read(operations.read_next_expiration, after)

    def expired(self, before: int) -> list[Node]:
        return self._read(operations.read_expired, before)

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        marks = Marks(index, applied)
        expected = Marks(self.index, self.applied) if self._one_at_a_time else None
        if (before := self._before) is not None:
            upserts, deletes = list(upserts), list(deletes)
            if missing := before.missing([*[node.key for node in upserts], *deletes]):
                before.keep(self._read(operations.read_many, missing))
        self._write(operations.write, Write(upserts, deletes, marks, expected))
        self._take(marks)

    def view(self) -> "SqlView":
        self._refuse_second()
        self._before = Before(Marks(self.index, self.applied))
        return SqlView(self, self._before)

    def replace(self, index: int, applied: int) -> "SqlReplacement":
        self._refuse_second()
        return SqlReplacement(self, Marks(index, applied))

    def _refuse_second(self) -> None:
        if self._before is not None:
            raise RuntimeError("a view of this store is open: close it first")

    def settle(self) -> None:
        before = Marks(self.index, self.applied) if self._one_at_a_time else None
        self._take(self._write(operations.settle, before))

    def claim(self, cluster: str, member: str) -> None:
        self._write(operations.claim, Owner(cluster, member))

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


class SqlView:
    """See ``View``."""

    def __init__(self, store: SqlStore, before: Before) -> None:
        self.index, self.applied = before.marks
        self._store = store
        self._before = before

    def __next__(self) -> list[Node]:
        if self._before.place is None:
            raise StopIteration
        return self._before.merge(self._store._read(operations.read_page, self._before.place))

    def close(self) -> None:
        if self._store._before is self._before:
            self._store._before = None


class SqlReplacement:
    """See ``Replacement``: one transaction, during which nobody else writes."""

    def __init__(self, store: SqlStore, marks: Marks) -> None:
        self._store = store
        self._marks = marks
        store._gate.start_writing()
        self._session: Session | None = _session(store._writer)
        self._run(operations.clear, marks)

    def add(self, nodes: Sequence[Node]) -> None:
        self._run(operations.insert_new, nodes)

    def commit(self) -> None:
        self._run(lambda session, _: session.commit(), None)
        self._store._take(self._marks)
        self.abort()

    def abort(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            finally:
                self._store._gate.end_writing()

    def _run(self, operation: Callable[[Session, Argument], None], argument: Argument) -> None:
        if self._session is None:
            raise RuntimeError("this replacement has ended")
        try:
            operation(self._session, argument)
        except BaseException as error:
            self.abort()
            raise (away(error) if isinstance(error, Exception) else None) or error from None


def _session(engine: Engine) -> Session:
    return Session(engine, autoflush=False, expire_on_commit=False)
