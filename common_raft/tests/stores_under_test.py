"""The stores that `test_stores` holds to one contract, each behind the same asynchronous face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

from common_raft.keyspace import AsyncStore, HashMapStore, Node, Store
from common_raft.stores import AsyncSqlStore, Database, Owner, PooledStore, SqlStore

OWNER = Owner("c1", "m1")
Opening = Callable[..., AbstractAsyncContextManager[Any]]


class Awaited:
    """A blocking store, called in the loop: for tests that have nothing else to do."""

    def __init__(self, store: Store) -> None:
        self.store = store

    index = property(lambda self: self.store.index)
    applied = property(lambda self: self.store.applied)

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        found = self.store.get_many(keys)
        assert {key: self.store.get(key) for key in list(keys)[:3]}.items() <= found.items()
        return found

    async def children(self, key: str) -> list[Node]:
        return self.store.children(key)

    async def descendants(self, key: str) -> list[Node]:
        return self.store.descendants(key)

    async def expired(self, before: int) -> list[Node]:
        return self.store.expired(before)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        self.store.write(upserts, deletes, index, applied)

    async def settle(self) -> None:
        self.store.settle()


@asynccontextmanager
async def hash_map(_url: str | None, _owner: Owner = OWNER, **_options: bool) -> AsyncIterator[AsyncStore]:
    yield Awaited(HashMapStore())


@asynccontextmanager
async def blocking(url: str | None, owner: Owner = OWNER, **options: bool) -> AsyncIterator[AsyncStore]:
    database = Database.parse(url, "blocking", durable=False)
    with closing(SqlStore(database, owner, **options)) as store:
        yield Awaited(store)


@asynccontextmanager
async def pooled(url: str | None, owner: Owner = OWNER, **options: bool) -> AsyncIterator[AsyncStore]:
    database = Database.parse(url, "blocking", durable=False)
    with closing(SqlStore(database, owner, **options)) as store:
        yield PooledStore(store)


@asynccontextmanager
async def asynchronous(url: str | None, owner: Owner = OWNER, **options: bool) -> AsyncIterator[AsyncStore]:
    store = AsyncSqlStore(Database.parse(url, "async", durable=False), **options)
    try:
        await store.open(owner)
        yield store
    finally:
        await store.close()


@dataclass(frozen=True)
class Kind:
    """``url``: with ``{file}`` for a file, or PostgreSQL's driver in ``postgresql+DRIVER``; None: in memory."""

    open: Opening
    url: str | None = None

    @property
    def sql(self) -> bool:
        return self.open is not hash_map


FILE = "sqlite:///{file}"
KINDS = {
    "HashMap": Kind(hash_map),
    "SQLite in memory": Kind(blocking),
    "SQLite in memory, pooled": Kind(pooled),
    "SQLite in memory, awaited": Kind(asynchronous),
    "SQLite file": Kind(blocking, FILE),
    "SQLite file, pooled": Kind(pooled, FILE),
    "SQLite file, awaited": Kind(asynchronous, FILE),
    "PostgreSQL, psycopg": Kind(blocking, "postgresql+psycopg"),
    "PostgreSQL, psycopg pooled": Kind(pooled, "postgresql+psycopg"),
    "PostgreSQL, psycopg awaited": Kind(asynchronous, "postgresql+psycopg"),
    "PostgreSQL, asyncpg": Kind(asynchronous, "postgresql+asyncpg"),
}
