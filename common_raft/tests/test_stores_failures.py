"""What of a database's errors is tried again, and what ends the node."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

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
    assert away(error) is None
