"""What the keyspace asks of the place where nodes are kept: a narrow interface, so that many stores can serve it.

A committed batch costs one ``get_many`` and one ``write``, however many commands it has, and a ``write`` is one
transaction.  Stores know nodes by their keys and parents, and nothing of what commands mean.

Keys are absolute paths (``/a/b``); the parent of ``/a`` is ``/``, which is itself never stored.  No other parent is
missing: what is above a node is in the store as well.
"""

from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
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

    def children(self, key: str, limit: int | None = None) -> list[Node]:
        """The nodes right below ``key``, in the order of their keys' bytes; if ``limit``, any that many of them."""

    def descendants(self, key: str) -> list[Node]:
        """All nodes below ``key``, in the order of their keys' bytes."""

    def listing(self, key: str, recursive: bool) -> list[Node]:
        """The node at ``key``, if there is one, and its ``children``, or ``descendants``: all of one moment."""

    def expired(self, before: int) -> list[Node]:
        """The nodes whose expiration lies at or before ``before``, in the order of (expiration, key's bytes)."""

    def next_expiration(self, after: int) -> int | None:
        """The first expiration behind ``after``; None if there is none."""

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        """Put all ``upserts``, remove all ``deletes`` and move the marks: all of it or nothing."""

    def view(self) -> "View":
        """All nodes as they are now, whatever is written from here on; one at a time.  Not during a ``write``."""

    def replace(self, index: int, applied: int) -> "Replacement":
        """Begin to put other nodes and marks in the place of all there are; nobody sees them before its ``commit``.

        No view is open, and nobody writes, meanwhile.
        """

    def settle(self) -> None:
        """Read the marks anew, after a ``write`` that raised StoreUnavailable: it was made if they have moved.

        Raises StoreError if they have gone back.
        """

    def claim(self, cluster: str, member: str) -> None:
        """From now on it holds that member's state, after restarts as well.  Raises StoreError for another's."""


class View(Marks, Protocol):
    """A store's nodes at one moment, in the order of their keys' ``rank``: pages of them, for ``next``.

    A page is at most a few hundred nodes, or a few hundred KiB; it may be empty, where that much work was done.
    Pages may be taken in a thread of their own, beside reads and writes.  Raises StoreUnavailable.
    """

    def __next__(self) -> Sequence[Node]: ...
    def close(self) -> None:
        """Writes are no longer kept apart from it.  In any thread, but not beside a ``next``; twice is fine."""


class Replacement(Protocol):
    """New nodes on their way into a store.  ``commit`` or ``abort`` ends it.  Raises StoreUnavailable."""

    def add(self, nodes: Sequence[Node]) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None:
        """The store is as it was.  After an end it does nothing."""


class AsyncStore(Marks, Protocol):
    """A store whose calls are awaited: see ``Store``.  Several may be under way at a time, but only one ``write``."""

    async def get_many(self, keys: Collection[str]) -> dict[str, Node | None]: ...
    async def children(self, key: str, limit: int | None = None) -> list[Node]: ...
    async def descendants(self, key: str) -> list[Node]: ...
    async def listing(self, key: str, recursive: bool) -> list[Node]: ...
    async def expired(self, before: int) -> list[Node]: ...
    async def next_expiration(self, after: int) -> int | None: ...
    async def write(
        self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int
    ) -> None: ...
    async def settle(self) -> None: ...
    async def claim(self, cluster: str, member: str) -> None: ...
    async def view(self) -> "AsyncView": ...
    async def replace(self, index: int, applied: int) -> "AsyncReplacement": ...


class AsyncView(Marks, Protocol):
    """See ``View``."""

    async def next(self) -> Sequence[Node] | None:
        """None: that was all."""

    def close(self) -> None: ...


class AsyncReplacement(Protocol):
    """See ``Replacement``."""

    async def add(self, nodes: Sequence[Node]) -> None: ...
    async def commit(self) -> None: ...
    async def abort(self) -> None: ...


#: Keys up to this length, in bytes, are their own rank.  PostgreSQL's indexes take no more than 2704 bytes.
MAX_PLAIN = 512


def rank(key: bytes) -> bytes:
    """What tells a key from all others in at most ``MAX_PLAIN + 32`` bytes, and begins as the key does.

    It is what stores put nodes in order by; it is the key itself but for very long ones.
    """
    if len(key) <= MAX_PLAIN:
        return key
    return key[:MAX_PLAIN] + sha256(key).digest()
