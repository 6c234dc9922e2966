"""What the keyspace asks of the place where nodes are kept: a narrow interface, so that many stores can serve it.

A committed batch costs one ``get_many`` and one ``write``, however many commands it has, and a ``write`` is one
transaction.  Stores know nodes by their keys and parents, and nothing of what commands mean.

Keys are absolute paths (``/a/b``); the parent of ``/a`` is ``/``, which is itself never stored.  No other parent is
missing: what is above a node is in the store as well.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from common_raft.keyspace.node import Node


class StoreUnavailable(ConnectionError):
    """The store cannot be reached just now.  Whether a write under way was made, its marks tell when it is back."""

    @property
    def cause(self) -> str:
        return str(self)


class StoreError(Exception):
    """The store cannot serve this node, and trying again would not help: one line for the operator."""


class Marks(Protocol):
    """How far a store is, as of its last ``write``; both are 0 when nothing was ever written."""

    @property
    def index(self) -> int:
        """The etcd index."""

    @property
    def applied(self) -> int:
        """The Raft index of the last entry whose changes it holds."""


class Store(Marks, Protocol):
    """Nodes by key.  Calls return when they are done, and may come from several threads at a time.

    All of them raise StoreUnavailable when the store cannot be reached.
    """

    def get(self, key: str) -> Node | None:
        """The node at ``key``, for a client's read."""

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        """For each of ``keys`` its node or None, in a dict that the caller may keep and change."""

    def children(self, key: str) -> list[Node]:
        """The nodes right below ``key``, in the order of their keys' bytes."""

    def descendants(self, key: str) -> list[Node]:
        """All nodes below ``key``, in the order of their keys' bytes."""

    def expired(self, before: int) -> list[Node]:
        """The nodes whose expiration lies at or before ``before``, in the order of (expiration, key's bytes)."""

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        """Put all ``upserts``, remove all ``deletes`` and move the marks: all of it or nothing."""

    def settle(self) -> None:
        """Read the marks anew, after a ``write`` that raised StoreUnavailable: it was made if they have moved.

        Raises StoreError if they have gone back.
        """


class AsyncStore(Marks, Protocol):
    """A store whose calls are awaited: see ``Store``.  Several may be under way at a time, but only one ``write``."""

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]: ...
    async def children(self, key: str) -> list[Node]: ...
    async def descendants(self, key: str) -> list[Node]: ...
    async def expired(self, before: int) -> list[Node]: ...
    async def write(
        self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int
    ) -> None: ...
    async def settle(self) -> None: ...


def parent_of(key: str) -> str:
    """``/a/b`` is in ``/a``, ``/a`` in ``/``."""
    return key[: key.rindex("/")] or "/"
