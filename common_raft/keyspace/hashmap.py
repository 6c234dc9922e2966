"""A store in a dict: what an in-memory service uses, and the model for the others.

While a view is open, the dict stays as it is, and what is written goes into a second one that is laid over it; both
are one again some writes after the view was closed.  So a view costs nothing when it is taken, however many keys
there are, and no write ever copies them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import Enum
from itertools import islice
from threading import Lock
from typing import Literal

from common_raft.keyspace.deadlines import Deadlines
from common_raft.keyspace.node import Node, parent_of, to_bytes
from common_raft.keyspace.sorting import in_steps

#: Nodes that a write moves from the upper dict to the lower one, once no view is open: about 0.15 ms.
MOVED_AT_ONCE = 64
#: Nodes in a page of a view; to encode them takes about as long.
PAGE = 512


class _Absent(Enum):
    ABSENT = 0


_ABSENT: Literal[_Absent.ABSENT] = _Absent.ABSENT


class HashMapStore:
    """See ``Store``. One thread at a time may write; others may read meanwhile.

    A key by itself is read without a lock; what looks at several keys keeps the writer out.
    """

    __slots__ = (
        "_below",
        "_deadlines",
        "_lock",
        "_moving",
        "_nodes",
        "_recent",
        "_view",
        "applied",
        "get",
        "index",
    )

    get: Callable[[str], Node | None]

    def __init__(self) -> None:
        self.index = 0
        self.applied = 0
        self._lock = Lock()
        self._view: HashMapView | None = None
        # Written since a view was opened; None is a node that is gone.
        self._recent: dict[str, Node | None] | None = None
        self._moving: Iterator[str] | None = None  # keys of _recent that are not in _nodes yet
        self._take({}, {}, Deadlines())

    def _take(self, nodes: dict[str, Node], below: dict[str, dict[str, None]], deadlines: Deadlines) -> None:
        self._nodes = nodes
        self._below = below  # of each parent, the keys right below it
        self._deadlines = deadlines
        self.get = nodes.get

    def get_many(self, keys: Collection[str]) -> dict[str, Node | None]:
        get = self.get
        return {key: get(key) for key in keys}

    def children(self, key: str, limit: int | None = None) -> list[Node]:
        with self._lock:
            return self._all(islice(self._below.get(key, ()), limit))

    def descendants(self, key: str) -> list[Node]:
        with self._lock:
            return self._all(self._all_below(key))

    def listing(self, key: str, recursive: bool) -> list[Node]:
        with self._lock:
            node = self.get(key)
            below = self._all(self._all_below(key) if recursive else self._below.get(key, ()))
        return below if node is None else [node, *below]

    def _all_below(self, key: str) -> list[str]:
        found: list[str] = []
        parents = [key]
        while parents:
            below = self._below.get(parents.pop(), ())
            found += below
            parents += below
        return found

    def _all(self, keys: Iterable[str]) -> list[Node]:
        get = self.get
        return [node for key in sorted(keys, key=to_bytes) if (node := get(key)) is not None]

    def expired(self, before: int) -> list[Node]:
        return self._deadlines.expired(before)

    def next_expiration(self, after: int) -> int | None:
        return self._deadlines.next_after(after)

    def write(self, upserts: Iterable[Node], deletes: Iterable[str], index: int, applied: int) -> None:
        with self._lock:
            if self._recent is not None:
                self._write_over(upserts, deletes)
            else:
                self._write(upserts, deletes)
            self.index = index
            self.applied = applied

    def _write(self, upserts: Iterable[Node], deletes: Iterable[str]) -> None:
        nodes, deadlines = self._nodes, self._deadlines
        expiring = deadlines.seconds_of
        for node in upserts:
            key = node.key
            if key not in nodes:
                self._below.setdefault(parent_of(key), {})[key] = None
            nodes[key] = node
            if node.expiration is not None or expiring:
                deadlines.put(node)
        for key in deletes:
            if nodes.pop(key, None) is not None:
                deadlines.remove(key)
                self._leave_parent(key)

    def settle(self) -> None:
        """Nothing is ever in doubt."""

    # --- views ------------------------------------------------------------------------------------------------

    def view(self) -> HashMapView:
        self._refuse_second()
        if self._recent is not None:
            self._move(len(self._recent) + 1)
        recent: dict[str, Node | None] = {}
        self._recent = recent
        nodes = self._nodes

        def get(key: str) -> Node | None:
            node = recent.get(key, _ABSENT)
            return nodes.get(key) if node is _ABSENT else node

        self.get = get
        self._view = HashMapView(self, nodes)
        return self._view

    def _write_over(self, upserts: Iterable[Node], deletes: Iterable[str]) -> None:
        get = self.get
        for node in upserts:
            key = node.key
            if get(key) is None:
                self._below.setdefault(parent_of(key), {})[key] = None
            self._put(key, node)
            self._deadlines.put(node)
        for key in deletes:
            if get(key) is not None:
                self._put(key, None)
                self._deadlines.remove(key)
                self._leave_parent(key)
        if self._view is None:
            self._move(MOVED_AT_ONCE)

    def _put(self, key: str, node: Node | None) -> None:
        recent = self._recent
        assert recent is not None
        if self._moving is None or key in recent:  # while keys move, there are no new ones among them
            recent[key] = node
        if self._moving is not None:
            self._settle_down(key, node)

    def _settle_down(self, key: str, node: Node | None) -> None:
        if node is None:
            self._nodes.pop(key, None)
        else:
            self._nodes[key] = node

    def _move(self, count: int) -> None:
        """Readers in other threads look into the upper dict first: it keeps what it has until all is moved."""
        recent = self._recent
        assert recent is not None
        if self._moving is None:
            self._moving = iter(recent)
        moved = 0
        for key in islice(self._moving, count):
            self._settle_down(key, recent[key])
            moved += 1
        if moved < count:
            self.get = self._nodes.get
            self._recent = self._moving = None

    # --- replacing --------------------------------------------------------------------------------------------

    def replace(self, index: int, applied: int) -> HashMapReplacement:
        self._refuse_second()
        return HashMapReplacement(self, index, applied)

    def _refuse_second(self) -> None:
        if self._view is not None:
            raise RuntimeError("a view of this store is open: close it first")

    def claim(self, cluster: str, member: str) -> None:
        """It ends with its process: nobody else can come to have it."""

    def _leave_parent(self, key: str) -> None:
        parent = parent_of(key)
        below = self._below[parent]
        del below[key]
        if not below:
            del self._below[parent]


class HashMapView:
    """See ``View``."""

    __slots__ = ("_pages", "_store", "applied", "index")

    def __init__(self, store: HashMapStore, nodes: dict[str, Node]) -> None:
        self.index = store.index
        self.applied = store.applied
        self._store: HashMapStore | None = store
        self._pages = _pages(nodes)

    def __next__(self) -> Sequence[Node]:
        return next(self._pages)

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store._view = None  # the next write begins to move what was written meanwhile


class HashMapReplacement:
    """See ``Replacement``."""

    __slots__ = ("_applied", "_index", "_new", "_store")

    def __init__(self, store: HashMapStore, index: int, applied: int) -> None:
        self._store = store
        self._new = HashMapStore()
        self._index = index
        self._applied = applied

    def add(self, nodes: Sequence[Node]) -> None:
        self._new.write(nodes, (), 0, 0)

    def commit(self) -> None:
        store, new = self._store, self._new
        store._refuse_second()
        with store._lock:
            store._recent = store._moving = None
            store._take(new._nodes, new._below, new._deadlines)
            store.index, store.applied = self._index, self._applied

    def abort(self) -> None:
        self._new = HashMapStore()


def _pages(nodes: dict[str, Node]) -> Iterator[list[Node]]:
    for keys in in_steps(nodes):
        for start in range(0, len(keys), PAGE):
            yield [nodes[key] for key in keys[start : start + PAGE]]
        if not keys:
            yield []
