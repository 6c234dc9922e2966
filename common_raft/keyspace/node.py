"""What a key holds, and what a change of it looks like to those who asked for or watch it."""

from msgspec import Struct


class Node(Struct, array_like=True, frozen=True, gc=False):
    """A key and what it holds at one moment; never changed in place, so a result may keep one.

    ``value`` is None only where etcd shows none: for a node that an event has just deleted. Keys and values are
    bytes to etcd; here they are ``str``, with bytes that are not UTF-8 as lone surrogates (PEP 383).
    Indexes count the keyspace's own changes, not Raft's entries.  ``expiration`` is in nanoseconds since 1970, by the
    log's clock; None for a node that stays.
    """

    key: str
    value: str | None
    modified_index: int
    created_index: int
    dir: bool = False
    expiration: int | None = None


class Event(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """The outcome of an operation that succeeded.

    ``index`` is the etcd index right after it; ``prev_node`` is what the key held before, if it held something.
    """

    action: str
    node: Node
    prev_node: Node | None
    index: int

    @property
    def created(self) -> bool:
        """Whether etcd answers 201 rather than 200."""
        return self.action == "create" or (self.action == "set" and self.prev_node is None)
