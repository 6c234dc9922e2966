"""Nodes by when they expire, for a store in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from common_raft.keyspace.node import Node, to_bytes

#: Nodes are found by the 2**30 nanoseconds, about a second, in which they expire.
_BITS = 30


class Deadlines:
    """However many nodes there are, only those that expire at about the time that is asked for are looked at."""

    __slots__ = ("_order", "_seconds", "seconds_of")

    def __init__(self) -> None:
        self.seconds_of: dict[str, int] = {}  #: the second of each key that expires
        self._seconds: dict[int, dict[str, Node]] = {}
        self._order: list[int] = []  # of the seconds, sorted

    def put(self, node: Node) -> None:
        """Of what was known under this key, nothing is left."""
        self.remove(node.key)
        if node.expiration is None:
            return
        second = node.expiration >> _BITS
        nodes = self._seconds.get(second)
        if nodes is None:
            nodes = self._seconds[second] = {}
            insort(self._order, second)
        nodes[node.key] = node
        self.seconds_of[node.key] = second

    def remove(self, key: str) -> None:
        second = self.seconds_of.pop(key, None)
        if second is None:
            return
        nodes = self._seconds[second]
        del nodes[key]
        if not nodes:
            del self._seconds[second]
            del self._order[bisect_left(self._order, second)]

    def expired(self, before: int) -> list[Node]:
        """See `Store.expired`."""
        due = [
            (node.expiration, to_bytes(node.key), node)
            for second in self._order[: bisect_right(self._order, before >> _BITS)]
            for node in self._seconds[second].values()
            if node.expiration is not None and node.expiration <= before
        ]
        return [node for _, _, node in sorted(due, key=lambda each: each[:2])]

    def next_after(self, after: int) -> int | None:
        """See `Store.next_expiration`."""
        first = bisect_left(self._order, after >> _BITS)
        for second in self._order[first : first + 2]:  # in the first, all may be sooner
            later = [
                node.expiration
                for node in self._seconds[second].values()
                if node.expiration is not None and node.expiration > after
            ]
            if later:
                return min(later)
        return None
