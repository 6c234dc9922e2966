"""What ``--database-url`` names, opened for a node: blocking, or awaited.

The database belongs to one member of one cluster, or to one standalone service, and remembers to which.  Whether the
member has it itself, or a service that the member drives, makes no difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Literal

from common_raft.keyspace import StoreError, StoreUnavailable
from common_raft.service.cluster import FlagError
from common_raft.service.flags import UNSAFE, Settings
from common_raft.service.run import ServiceStopped
from common_raft.stores import AsyncSqlStore, Database, Owner, SqlStore


@contextmanager
def blocking_store(settings: Settings) -> Iterator[SqlStore]:
    """Raises FlagError for a database that cannot be this node's, ServiceStopped for one that is away."""
    with _said_with_flag():
        database = _database(settings, "blocking")
        store = SqlStore(database, _owner(settings), one_at_a_time=settings.standalone != UNSAFE)
    with closing(store):
        yield store


@asynccontextmanager
async def async_store(settings: Settings) -> AsyncIterator[AsyncSqlStore]:
    """`blocking_store`, in the running loop."""
    with _said_with_flag():
        database = _database(settings, "async")
        store = AsyncSqlStore(database, one_at_a_time=settings.standalone != UNSAFE)
    try:
        with _said_with_flag():
            await store.open(_owner(settings))
        yield store
    finally:
        await store.close()


def _database(settings: Settings, kind: Literal["blocking", "async"]) -> Database:
    # A member's log has all that was committed; without one, the database is all there is.
    return Database.parse(settings.database_url, kind, durable=settings.standalone is not None)


def _owner(settings: Settings) -> Owner | None:
    if settings.listen_application_urls:
        return None  # the node that drives this service claims it
    if settings.standalone:
        return Owner("standalone", settings.name)
    return Owner(f"{settings.cluster.id:x}", f"{settings.cluster.own_id:x}")


@contextmanager
def _said_with_flag() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise FlagError(f"--database-url: {error}") from None
    except StoreUnavailable as error:
        raise ServiceStopped(f"--database-url: {error}") from None
