"""A store in a dict: what an in-memory service uses, and the model for the others."""

from collections.abc import Collection, Iterable

from common_raft.keyspace.node import Node


class HashMapStore:
    """See ``Store``. Not safe for use by several threads."""

    __slots__ = ("_nodes", "get", "index")

    def __init__(self) -> None:
        self.index = 0
        self._nodes: dict[str, Node] = {}
        self.get = self._nodes.get

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        get = self.get
        return {key: get(key) for key in keys}

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int) -> None:
        nodes = self._nodes
        for node in upserts:
            nodes[node.key] = node
        for key in deletes:
            nodes.pop(key, None)
        self.index = index
