"""The stores that `test_stores` holds to one contract, each behind the same asynchronous face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

from common_raft.keyspace import AsyncStore, HashMapStore, Node, Store
from common_raft.keyspace.store import Replacement, View
from common_raft.stores import AsyncSqlStore, Database, Owner, SqlStore

OWNER = Owner("c1", "m1")
Opening = Callable[..., AbstractAsyncContextManager[Any]]


def clock() -> int:
    """A clock for keyspaces whose bytes are to be the same each time."""
    return 1_800_000_000 * 10**9


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

    async def children(self, key: str, limit: int | None = None) -> list[Node]:
        return self.store.children(key, limit)

    async def listing(self, key: str, recursive: bool) -> list[Node]:
        return self.store.listing(key, recursive)

    async def next_expiration(self, after: int) -> int | None:
        return self.store.next_expiration(after)

    async def descendants(self, key: str) -> list[Node]:
        return self.store.descendants(key)

    async def expired(self, before: int) -> list[Node]:
        return self.store.expired(before)

    async def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        self.store.write(upserts, deletes, index, applied)

    async def settle(self) -> None:
        self.store.settle()

    async def claim(self, cluster: str, member: str) -> None:
        self.store.claim(cluster, member)

    async def view(self) -> AwaitedView:
        return AwaitedView(self.store.view())

    async def replace(self, index: int, applied: int) -> AwaitedReplacement:
        return AwaitedReplacement(self.store.replace(index, applied))


class AwaitedView:
    def __init__(self, view: View) -> None:
        self.view = view
        self.index, self.applied = view.index, view.applied

    async def next(self) -> Sequence[Node] | None:
        return next(self.view, None)

    def close(self) -> None:
        self.view.close()


class AwaitedReplacement:
    def __init__(self, replacement: Replacement) -> None:
        self.replacement = replacement

    async def add(self, nodes: Sequence[Node]) -> None:
        self.replacement.add(nodes)

    async def commit(self) -> None:
        self.replacement.commit()

    async def abort(self) -> None:
        self.replacement.abort()


@asynccontextmanager
async def hash_map(
    _url: str | None, _owner: Owner | None = OWNER, **_options: bool
) -> AsyncIterator[AsyncStore]:
    yield Awaited(HashMapStore())


@asynccontextmanager
async def blocking(
    url: str | None, owner: Owner | None = OWNER, **options: bool
) -> AsyncIterator[AsyncStore]:
    database = Database.parse(url, "blocking", durable=False)
    with closing(SqlStore(database, owner, **options)) as store:
        yield Awaited(store)


@asynccontextmanager
async def asynchronous(
    url: str | None, owner: Owner | None = OWNER, **options: bool
) -> AsyncIterator[AsyncStore]:
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
    "SQLite in memory, awaited": Kind(asynchronous),
    "SQLite file": Kind(blocking, FILE),
    "SQLite file, awaited": Kind(asynchronous, FILE),
    "PostgreSQL, psycopg": Kind(blocking, "postgresql+psycopg"),
    "PostgreSQL, psycopg awaited": Kind(asynchronous, "postgresql+psycopg"),
    "PostgreSQL, asyncpg": Kind(asynchronous, "postgresql+asyncpg"),
}
