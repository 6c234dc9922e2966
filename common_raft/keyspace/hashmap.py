"""A store in a dict: what an in-memory service uses, and the model for the others."""

from collections.abc import Collection, Iterable

from common_raft.keyspace.node import Node
from common_raft.keyspace.store import parent_of


class HashMapStore:
    """See ``Store``. One thread at a time may write; others may read meanwhile."""

    __slots__ = ("_below", "_expiring", "_nodes", "applied", "get", "index")

    def __init__(self) -> None:
        self.index = 0
        self.applied = 0
        self._nodes: dict[str, Node] = {}
        self._below: dict[str, dict[str, None]] = {}  # of each parent, the keys right below it
        self._expiring: dict[str, Node] = {}
        self.get = self._nodes.get

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        get = self.get
        return {key: get(key) for key in keys}

    def children(self, key: str) -> list[Node]:
        return [self._nodes[child] for child in sorted(self._below.get(key, ()), key=_bytes)]

    def descendants(self, key: str) -> list[Node]:
        found: list[str] = []
        parents = [key]
        while parents:
            below = self._below.get(parents.pop(), ())
            found += below
            parents += below
        return [self._nodes[child] for child in sorted(found, key=_bytes)]

    def expired(self, before: int) -> list[Node]:
        due = [
            (node.expiration, _bytes(node.key), node)
            for node in self._expiring.values()
            if node.expiration is not None and node.expiration <= before
        ]
        return [node for _, _, node in sorted(due, key=lambda each: each[:2])]

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        nodes = self._nodes
        for node in upserts:
            key = node.key
            if key not in nodes:
                self._below.setdefault(parent_of(key), {})[key] = None
            nodes[key] = node
            if node.expiration is not None:
                self._expiring[key] = node
            elif self._expiring:
                self._expiring.pop(key, None)
        for key in deletes:
            if nodes.pop(key, None) is not None:
                self._expiring.pop(key, None)
                self._leave_parent(key)
        self.index = index
        self.applied = applied

    def settle(self) -> None:
        """Nothing is ever in doubt."""

    def _leave_parent(self, key: str) -> None:
        parent = parent_of(key)
        below = self._below[parent]
        del below[key]
        if not below:
            del self._below[parent]


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
