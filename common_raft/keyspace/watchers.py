"""Who waits for events, and which of them each is told.

Source: etcd 3.5, ``server/etcdserver/api/v2store/watcher_hub.go`` and ``watcher.go``.  Watchers belong to this node:
they are no part of the replicated state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from common_raft.keyspace.history import History, cleared, contiguous
from common_raft.keyspace.node import Event, is_inner

log = logging.getLogger(__name__)

#: Called with each event, or with None when there will be no more: the watcher is cleared.
Notify = Callable[[Event | None], None]

_REMOVALS = frozenset(("delete", "expire", "compareAndDelete"))


class Watch:
    """One watcher.  ``index`` is the etcd index at which it began."""

    __slots__ = ("_hub", "_key", "_notify", "_recursive", "_since", "_stream", "index")

    def __init__(
        self, hub: Watchers, key: str, recursive: bool, stream: bool, since: int, notify: Notify
    ) -> None:
        self._hub = hub
        self._key = key
        self._recursive = recursive
        self._stream = stream
        self._since = since
        self._notify = notify
        self.index = hub.index

    def close(self) -> None:
        """It is told nothing more, but for what another thread is just about to tell it.  Twice is fine."""
        self._hub._remove(self)


class Watchers:
    """All watchers of a keyspace, and its `History`.

    ``watch`` and ``close`` may be called in any thread; events are published by whoever applies them.  A ``notify``
    is called there, one event after another and without a lock held; it must not block.
    """

    def __init__(self, index: int, clock: Callable[[], int]) -> None:
        """``index``: the etcd index from which on events will be published.  ``clock``: nanoseconds since 1970."""
        self.index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._history = History()
        self._watches: dict[str, dict[Watch, None]] = {}  # by key, in the order in which they came
        self.count = 0  #: watchers that wait, those of the service's own keys left out
        self._closed = False
        self._soon: Callable[[Callable[[], None]], object] = _at_once

    def clear_in(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """``soon``: how watchers are cleared, say a loop's ``call_soon_threadsafe``.

        A snapshot may be put in the place of what there is in another thread than events are published in.
        """
        self._soon = soon

    def watch(self, key: str, *, recursive: bool, stream: bool, since: int, notify: Notify) -> Watch:
        """Calls ``notify`` with the first event that concerns ``key`` at or after index ``since``; 0: from now on.

        ``recursive``: also with what happens below; ``stream``: with all further ones, too.  An event of the past is
        told before this returns, and is the only one then, as in etcd.
        Raises EtcdError when events since then are not kept any more.
        """
        with self._lock:
            watch = Watch(self, key, recursive, stream, since or self.index + 1, notify)
            past = self._past(watch)
            if past is None and not self._closed:
                self._watches.setdefault(key, {})[watch] = None
                self.count += not is_inner(key)
        if past is not None or self._closed:
            notify(past)
        return watch

    def _past(self, watch: Watch) -> Event | None:
        since, start = watch._since, self._history.start or self.index + 1
        if since < start:
            raise cleared(start, since, self.index)
        if since > self.index:
            return None
        return self._history.scan(watch._key, watch._recursive, since)

    def publish(
        self,
        events: Sequence[Event],
        removed: Mapping[int, Sequence[str]] | None = None,
        *,
        plain: bool = False,
    ) -> None:
        """Tells watchers what has been applied, in its order.

        ``removed``: for events that removed a directory, by their index, the keys of what was in it.  ``plain``: none
        of these keys is the service's own.
        """
        if not events:
            return
        seen = self._clock()
        with self._lock:
            self._history.add(events, seen)
            self.index = events[-1].index
            if not self.count and (plain or not self._watches or not _any_inner(events)):
                return  # as ever while no client watches
            calls = self._calls(events, removed or {})
        for watch, event in calls:
            self._tell(watch, event)

    def _tell(self, watch: Watch, event: Event | None) -> None:
        try:
            watch._notify(event)
        except Exception:
            log.exception("a watcher of %s failed", watch._key)
            watch.close()

    def _calls(
        self, events: Sequence[Event], removed: Mapping[int, Sequence[str]]
    ) -> list[tuple[Watch, Event]]:
        calls: list[tuple[Watch, Event]] = []
        for event in events:
            if event.refresh:
                continue
            key = event.node.key
            if event.action in _REMOVALS:
                # Those who watch what is gone are told first; streams twice, as in etcd.
                for path in removed.get(event.index, ()):
                    self._match(path, event, calls, deleted=True)
                self._match(key, event, calls, deleted=True)
            if not is_inner(key):
                self._match("/", event, calls)
            end = key.find("/", 2)
            while end > 0:
                self._match(key[:end], event, calls)
                end = key.find("/", end + 1)
            self._match(key, event, calls)
        return calls

    def _match(
        self, path: str, event: Event, calls: list[tuple[Watch, Event]], *, deleted: bool = False
    ) -> None:
        """Adds those who watch ``path`` and want the event."""
        watches = self._watches.get(path)
        if watches is None:
            return
        is_itself = path == event.node.key
        if _is_hidden(path, event.node.key):
            return
        told = [
            watch
            for watch in watches
            if (watch._recursive or is_itself or deleted) and event.index >= watch._since
        ]
        for watch in told:
            calls.append((watch, event))
            if not watch._stream:
                self._forget(watch)

    def _forget(self, watch: Watch) -> None:
        watches = self._watches.get(watch._key, {})
        if watch in watches:
            del watches[watch]
            self.count -= not is_inner(watch._key)
            if not watches:
                del self._watches[watch._key]

    def _remove(self, watch: Watch) -> None:
        with self._lock:
            self._forget(watch)

    # --- the end of a watcher, or of all ----------------------------------------------------------------------

    def reset(self, index: int, history: Sequence[Event] = ()) -> None:
        """The keyspace was replaced by another: it is at ``index``, with that ``history``.  Clears all watchers."""
        with self._lock:
            self._history.clear()
            if contiguous(history, index):
                for event in history:
                    self._history.add((event,), event.seen)
            self.index = index
            watches = self._take_all()
        if watches:
            self._soon(lambda: self._clear(watches))

    def close(self) -> None:
        """Clears all watchers, and whoever comes later at once."""
        with self._lock:
            self._closed = True
            watches = self._take_all()
        self._clear(watches)

    def _clear(self, watches: Sequence[Watch]) -> None:
        for watch in watches:
            self._tell(watch, None)

    def _take_all(self) -> list[Watch]:
        watches = [watch for watches in self._watches.values() for watch in watches]
        self._watches.clear()
        self.count = 0
        return watches

    def history(self) -> list[Event]:
        """The events that are kept, each with when it was applied."""
        with self._lock:
            return self._history.events()


def _any_inner(events: Sequence[Event]) -> bool:
    return any(is_inner(event.node.key) for event in events)


def _at_once(call: Callable[[], None]) -> None:
    call()


def _is_hidden(watched: str, changed: str) -> bool:
    """Whether a path lies in something hidden, or is hidden, as seen from one that is watched."""
    if len(watched) > len(changed):
        return False  # something is gone, and what was in it with it
    return "/_" in "/" + changed[len(watched) :]
