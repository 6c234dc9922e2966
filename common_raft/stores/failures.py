"""Which of a database's errors mean that it is away just now, and which that it is damaged."""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common_raft.keyspace.store import StoreError, StoreUnavailable

#: SQLite's primary result codes: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL.
_SQLITE_AWAY = {5, 6, 8, 10, 13, 14, 15}
#: CORRUPT, NOTADB.
_SQLITE_DAMAGED = {11, 26}
#: PostgreSQL's: connection exceptions, lack of resources, an operator intervened, a system error, and "read-only":
#: a standby that has not been promoted yet.
_SQLSTATES_AWAY = ("08", "53", "57", "58", "25006")


def away(error: Exception) -> StoreUnavailable | StoreError | None:
    """What to raise in place of ``error``; None when it says nothing of the database's state."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    said = " ".join(str(cause).split()) or type(cause).__name__
    if _is_away(error, cause):
        return StoreUnavailable(f"the database is away: {said}")
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_DAMAGED:
        return StoreError(
            f"the database is damaged: {said}; bring back a copy, or name a file that is not there yet"
        )
    return None


def _is_away(error: Exception, cause: BaseException) -> bool:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_AWAY
    # Not all that drivers raise while they connect is wrapped.
    if isinstance(cause, OSError | TimeoutError | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_SQLSTATES_AWAY)
    # psycopg, when the server could not even be asked.
    return type(cause).__name__ == "OperationalError"
