"""``--database-url``: which database, through which driver, with which connections.

Two engines a store: one connection that writes, and some that read, each statement by itself (a read is one
statement, and a transaction around it would only be two more trips to the database).
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import URL, AsyncAdaptedQueuePool, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from common_raft.keyspace.store import StoreError

_BLOCKING = {"sqlite": ("pysqlite",), "postgresql": ("psycopg",)}
_ASYNC = {"sqlite": ("aiosqlite",), "postgresql": ("asyncpg", "psycopg")}
#: Databases in memory with a name, shared by the connections of a process: since then.
_SQLITE = (3, 36)
#: Seconds until a database that does not answer is taken for away.
CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
#: Connections that read; further readers wait for one.
READERS = 8


@dataclass(frozen=True, slots=True)
class Database:
    """A checked URL with its driver.  ``durable``: a commit is on the disk when it returns.

    Where a log holds all that was committed, a database that loses its last commits in a power cut is brought up to
    date from it, so that SQLite need not wait for the disk a second time.
    """

    url: URL
    in_memory: bool
    durable: bool

    @classmethod
    def parse(cls, text: str | None, kind: Literal["blocking", "async"], *, durable: bool) -> "Database":
        """``text``: SQLAlchemy's URL; a driver of this ``kind`` is chosen if it names none.  None: SQLite in memory.

        Raises StoreError.
        """
        try:
            url = make_url(text or "sqlite://")
        except (SQLAlchemyError, ValueError) as error:
            raise StoreError(f"{text!r} is no URL ({error}); it looks like sqlite:///FILE") from None
        backend, _, driver = url.drivername.partition("+")
        drivers = (_BLOCKING if kind == "blocking" else _ASYNC).get(backend)
        if drivers is None:
            raise StoreError(f"{_shown(url)}: {backend} is not served, only sqlite and postgresql are")
        if driver and driver not in drivers:
            raise StoreError(
                f"{_shown(url)}: {driver} is not a driver for this service; write {backend}+{drivers[0]}://"
            )
        in_memory = backend == "sqlite" and (
            url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"
        )
        if backend == "sqlite" and sqlite3.sqlite_version_info < _SQLITE:
            raise StoreError(f"SQLite 3.36 or newer is needed, and this Python has {sqlite3.sqlite_version}")
        return cls(url.set(drivername=f"{backend}+{driver or drivers[0]}"), in_memory, durable)

    @property
    def shown(self) -> str:
        """The URL, without its password."""
        return "SQLite in memory" if self.in_memory else _shown(self.url)

    def engines(self) -> tuple[Engine, Engine]:
        """One that writes, and one that reads.  Raises StoreError when there is no driver."""
        url = self._connectable()
        return self._checked(create_engine, url, writes=True), self._checked(create_engine, url, writes=False)

    def async_engines(self) -> tuple[AsyncEngine, AsyncEngine]:
        """`engines`, for a driver that is awaited."""
        url = self._connectable()
        return (
            self._checked(create_async_engine, url, writes=True),
            self._checked(create_async_engine, url, writes=False),
        )

    def _connectable(self) -> URL:
        if not self.in_memory:
            return self.url
        # A name of its own, in the one place in memory that all connections of a process see.
        return self.url.set(database=f"file:/raftstacks-{uuid4().hex}", query={"vfs": "memdb", "uri": "true"})

    def _checked(self, create: Any, url: URL, *, writes: bool) -> Any:
        options: dict[str, Any] = {
            "poolclass": AsyncAdaptedQueuePool if create is create_async_engine else QueuePool
        }
        options |= {"pool_size": 1 if writes else READERS, "max_overflow": 0}
        if not writes:
            options |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
        try:
            engine = create(
                url, connect_args=self._connect_args(), hide_parameters=True, pool_use_lifo=True, **options
            )
        except ImportError as error:
            raise StoreError(
                f"{self.shown} needs the module {error.name}: pip install 'raftstacks[postgresql]'"
            ) from None
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.shown}: {error}") from None
        if url.get_backend_name() == "sqlite":
            sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
            event.listen(sync, "connect", self._set_up_sqlite)
        return engine

    def _connect_args(self) -> Mapping[str, Any]:
        given = self.url.query
        match self.url.get_driver_name():
            case "psycopg":
                options = {
                    "connect_timeout": CONNECT_SECONDS, "keepalives_idle": 5, "keepalives_interval": 5,
                    "tcp_user_timeout": ANSWER_SECONDS * 1000,
                }  # fmt: skip
            case "asyncpg":
                options = {"timeout": CONNECT_SECONDS, "command_timeout": ANSWER_SECONDS}
            case _:
                options = {"timeout": CONNECT_SECONDS, "check_same_thread": False}
        return {name: value for name, value in options.items() if name not in given}

    def _set_up_sqlite(self, connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        if not self.in_memory:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={'FULL' if self.durable else 'NORMAL'}")
        cursor.close()


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)
