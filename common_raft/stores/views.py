"""A database's nodes as they were, although it is written to: read page by page, with short reads.

A long transaction for reading would hold up the writer of SQLite's database in memory, and PostgreSQL's cleaning.  So
each page is a read of its own, and `Before` knows what was written since the view began: before a node is changed or
removed that no page has shown yet, the writer keeps what it was.  This is exact: if a page shows a change, what was
there before it has been kept before the change was committed, and so before the page is merged.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from threading import Lock

from common_raft.keyspace.node import Node
from common_raft.keyspace.store import rank
from common_raft.stores.operations import Marks, Page


class Before:
    """What nodes were when a view began, as far as that has changed and was not shown yet.

    The writer and the view may be in different threads.  Memory: at most the nodes of the view that were changed.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.place: bytes | None = b""  #: up to here the view has shown all; None: to the end
        self._nodes: dict[bytes, Node | None] = {}
        self._order: list[bytes] = []  # a heap of those that were there
        self._lock = Lock()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Which of the keys that are about to be written have to be read first, to be kept."""
        with self._lock:
            place, nodes = self.place, self._nodes
            if place is None:
                return []
            return [key for key in keys if (of := _rank(key)) > place and of not in nodes]

    def keep(self, found: Mapping[str, Node | None]) -> None:
        """What ``missing`` keys held, before they are written."""
        with self._lock:
            for key, node in found.items():
                of = _rank(key)
                self._nodes[of] = node
                if node is not None:
                    heapq.heappush(self._order, of)

    def merge(self, page: Page) -> list[Node]:
        """The page as it was when the view began."""
        with self._lock:
            self.place = page.end
            shown = {_rank(node.key): node for node in page.nodes}
            changed = shown.keys() & self._nodes.keys()
            for of in changed:
                del shown[of]
            while self._order and (page.end is None or self._order[0] <= page.end):
                of = heapq.heappop(self._order)
                node = self._nodes.pop(of)
                if node is not None:
                    shown[of] = node
                    changed.add(of)
            for of in changed:
                self._nodes.pop(of, None)
            return [shown[of] for of in sorted(shown)] if changed else page.nodes


def _rank(key: str) -> bytes:
    return rank(key.encode("utf-8", "surrogateescape"))
