"""What the keyspace asks of the place where nodes are kept: a narrow interface, so that many stores can serve it.

A batch of commands costs one ``get_many`` and one ``write``, however many commands it has.
"""

from collections.abc import Collection, Iterable
from typing import Protocol

from common_raft.keyspace.node import Node


class Store(Protocol):
    """Nodes by key, and the etcd index that belongs to them."""

    @property
    def index(self) -> int:
        """The etcd index of the last ``write``; 0 when nothing was ever written."""

    def get(self, key: str) -> Node | None:
        """The node at ``key``, for a client's read."""

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        """For each of ``keys`` its node or None, in a dict that the caller may keep and change."""

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int) -> None:
        """Put all ``upserts``, remove all ``deletes`` and set the index to ``index``: all of it or nothing."""
