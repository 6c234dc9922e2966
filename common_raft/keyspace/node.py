"""What a key holds, and what a change of it looks like to those who asked for or watch it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct


class Node(Struct, array_like=True, frozen=True, gc=False):
    """A key and what it holds at one moment; never changed in place, so a result may keep one.

    ``value`` is None only where etcd shows none: for a directory, and for a node that an event has just deleted.
    Keys and values are bytes to etcd; here they are ``str``, with bytes that are not UTF-8 as lone surrogates (PEP
    383).  Indexes count the keyspace's own changes, not Raft's entries.  ``expiration`` is in nanoseconds since 1970,
    by the log's clock; None for a node that stays.
    """

    key: str
    value: str | None
    modified_index: int
    created_index: int
    dir: bool = False
    expiration: int | None = None


#: The root is in no store: it is always there, and has never been changed.
ROOT = Node("/", None, 0, 0, dir=True)


class Tree(Struct, array_like=True, frozen=True, gc=False):
    """A node in a listing; ``nodes`` are those in it, None for a file and where etcd does not look further."""

    node: Node
    nodes: list[Tree] | None = None


class Event(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """The outcome of an operation that succeeded.

    ``index`` is the etcd index right after it; ``prev_node`` is what the key held before, if it held something.
    ``nodes``: what is in a directory that was read.  ``refresh``: a change of which watchers are not told.
    ``seen``: when this node applied it, in nanoseconds since 1970 by its own clock, where that was some time ago and
    a ttl is to be what it was then; 0 is now.
    """

    action: str
    node: Node
    prev_node: Node | None
    index: int
    nodes: Sequence[Tree] | None = None
    refresh: bool = False
    seen: int = 0

    @property
    def created(self) -> bool:
        """Whether etcd answers 201 rather than 200."""
        return self.action == "create" or (self.action == "set" and self.prev_node is None)


class Query(Struct, array_like=True, frozen=True, gc=False):
    """GET of a key, ``/`` for the root; of a directory with all that is in it if ``recursive``.

    ``sorted`` is what a client asks for; it gets the order of the keys' bytes in any case.
    """

    key: str
    recursive: bool = False
    sorted: bool = False


def parent_of(key: str) -> str:
    """``/a/b`` is in ``/a``, ``/a`` in ``/``."""
    return key[: key.rindex("/")] or "/"


def ancestors_of(key: str) -> Iterator[str]:
    """The directories that a key is in, the highest first, and the root left out."""
    end = key.find("/", 2)  # behind the two slashes of a key of the service's own
    while end > 0:
        yield key[:end]
        end = key.find("/", end + 1)


def is_inner(key: str) -> bool:
    """Whether a key is the service's own, which no client can name or see."""
    return key.startswith("//")


def to_bytes(text: str) -> bytes:
    """A key or value as the bytes that it is to etcd."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """The reverse; any bytes will do."""
    return data.decode("utf-8", "surrogateescape")
