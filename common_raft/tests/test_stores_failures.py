"""What of a database's errors is tried again, and what ends the node."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Literal

import aiosqlite
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common_raft.keyspace import StoreError, StoreUnavailable
from common_raft.stores import AsyncSqlStore, Database, Owner, SqlStore
from common_raft.stores.failures import away


class Postgres(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("said by PostgreSQL")
        self.sqlstate = sqlstate


def of_sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("said by SQLite")
    error.sqlite_errorcode = code
    return error


AWAY = {
    "refused": ConnectionRefusedError(111, "Connection refused"),
    "too slow": TimeoutError(),
    "no connection free": PoolTimeout("queue"),
    "starting up, from the driver itself": Postgres("57P03"),
    "shut down": OperationalError("select", {}, Postgres("57P01")),
    "too many connections": OperationalError("select", {}, Postgres("53300")),
    "a standby": DBAPIError("update", {}, Postgres("25006")),
    "connection lost": DBAPIError("update", {}, Postgres(None), connection_invalidated=True),
    "SQLite: locked": OperationalError("update", {}, of_sqlite(sqlite3.SQLITE_BUSY)),
    "SQLite: the disk failed": OperationalError("update", {}, of_sqlite(sqlite3.SQLITE_IOERR_READ)),
    "SQLite: the disk is full": OperationalError("update", {}, of_sqlite(sqlite3.SQLITE_FULL)),
}
BUGS = {
    "constraint": IntegrityError("insert", {}, Postgres("23502")),
    "no such table": ProgrammingError("select", {}, Postgres("42P01")),
    "SQLite: no such table": OperationalError("select", {}, of_sqlite(sqlite3.SQLITE_ERROR)),
    "SQLite: damaged": DBAPIError("select", {}, of_sqlite(sqlite3.SQLITE_CORRUPT)),
    "ours": KeyError("x"),
}


@pytest.mark.parametrize("error", AWAY.values(), ids=list(AWAY))
def test_is_tried_again(error: Exception) -> None:
    unavailable = away(error)
    assert unavailable is not None
    assert str(unavailable).startswith("the database is away: ")
    assert "\n" not in str(unavailable)


@pytest.mark.parametrize("error", BUGS.values(), ids=list(BUGS))
def test_ends_the_node(error: Exception) -> None:
    assert not isinstance(away(error), StoreUnavailable)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_a_file_that_is_no_database_is_said_in_one_line(
    tmp_path: Path, content: bytes, kind: Literal["blocking", "async"]
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    database = Database.parse(f"sqlite:///{path}", kind, durable=False)
    with pytest.raises(StoreError, match=r"the database is damaged: .*; bring back a copy") as raised:
        asyncio.run(opened(database, kind))
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


async def opened(database: Database, kind: str) -> None:
    if kind == "blocking":
        SqlStore(database, Owner("c", "m"))
    store = AsyncSqlStore(database)
    try:
        await store.open(Owner("c", "m"))
    finally:
        await store.close()


def test_a_connection_that_cannot_be_made_leaves_no_thread_to_outlive_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = aiosqlite.Connection.stop

    def stop_late(connection: aiosqlite.Connection) -> None:
        threading.Timer(0.2, stop, [connection]).start()

    monkeypatch.setattr(aiosqlite.Connection, "stop", stop_late)

    async def scenario() -> set[threading.Thread]:
        before = set(threading.enumerate())
        with pytest.raises(StoreUnavailable):
            await opened(Database.parse("sqlite:////no/such/folder/a.db", "async", durable=False), "async")
        return set(threading.enumerate()) - before

    left = asyncio.run(scenario())
    assert [thread.name for thread in left if "_connection_worker_thread" in thread.name] == []
