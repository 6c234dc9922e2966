"""The last events of a keyspace, for watchers that ask for some from the past.

Source: etcd 3.5, ``server/etcdserver/api/v2store/event_history.go``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

import msgspec

from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.node import Event, is_inner

#: Events that are kept: so many does etcd keep (``newWatchHub(1000)``).
CAPACITY = 1000


class History:
    """Events in the order of their indexes, which follow one upon another."""

    __slots__ = ("_kept", "_pieces")

    def __init__(self) -> None:
        # Events that were applied together, with when that was.  Most are never looked at again, and so nothing is
        # done for each of them here.
        self._pieces: deque[tuple[int, Sequence[Event]]] = deque()
        self._kept = 0

    def add(self, events: Sequence[Event], seen: int) -> None:
        """At least one; ``seen``: when they were applied, in nanoseconds since 1970."""
        if len(events) > CAPACITY:
            events = events[-CAPACITY:]
        pieces = self._pieces
        pieces.append((seen, events))
        self._kept += len(events)
        while self._kept - len(pieces[0][1]) >= CAPACITY:
            self._kept -= len(pieces.popleft()[1])

    def clear(self) -> None:
        self._pieces.clear()
        self._kept = 0

    @property
    def start(self) -> int:
        """The index of the oldest event; 0 if there is none."""
        if not self._pieces:
            return 0
        return self._pieces[0][1][max(self._kept - CAPACITY, 0)].index

    def events(self) -> list[Event]:
        """All that are kept, each with when it was applied."""
        return list(self._all())

    def _all(self) -> Iterator[Event]:
        left_out = self._kept - CAPACITY
        for seen, events in self._pieces:
            for event in events[max(left_out, 0) :]:
                yield event if event.seen else msgspec.structs.replace(event, seen=seen)
            left_out -= len(events)

    def scan(self, key: str, recursive: bool, since: int) -> Event | None:
        """The first event at or after index ``since`` that a watcher of ``key`` would want, or None.

        Unlike those who wait for events, it is shown what is hidden; and it is shown the removal of each directory
        whose path its own begins with, ``/a`` for ``/ab`` as well, as in etcd.
        """
        prefix = key if key == "/" else key + "/"
        for seen, events in reversed(
            list(takewhile(lambda piece: piece[1][-1].index >= since, reversed(self._pieces)))
        ):
            for event in events:
                if event.index >= since and not event.refresh and _concerns(event, key, recursive, prefix):
                    return event if event.seen else msgspec.structs.replace(event, seen=seen)
        return None


def _concerns(event: Event, key: str, recursive: bool, prefix: str) -> bool:
    changed = event.node.key
    if is_inner(changed) and not is_inner(key):
        return False
    if changed == key or (recursive and changed.startswith(prefix)):
        return True
    removed = event.prev_node
    if removed is None or not removed.dir or event.action not in ("delete", "expire"):
        return False
    return key.startswith(removed.key)


def cleared(start: int, since: int, index: int) -> EtcdError:
    """For a watcher that asks for events that are not kept any more."""
    cause = f"the requested history has been cleared [{start}/{since}]"
    return EtcdError(Code.EVENT_INDEX_CLEARED, cause, index)


def contiguous(events: Iterable[Event], index: int) -> bool:
    """Whether these are the last events up to etcd index ``index``, without a gap."""
    following = None
    for event in events:
        if following is not None and event.index != following:
            return False
        following = event.index + 1
    return following is None or following == index + 1
