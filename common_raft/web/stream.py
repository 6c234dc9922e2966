"""Responses whose body comes in pieces, over time: what a watch is answered with.

Between who has pieces and the front that passes them on: pieces wait in the stream until the front takes them, which
it does as fast as its client does.  So it is here that a client shows to be too slow.
"""

import sys
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic

from common_raft.web.response import EMPTY, Response

#: Pieces that may wait for a client: etcd's channel for a watcher's events holds as many (v2store/watcher_hub.go).
UNREAD = 100
#: Seconds for which more may wait: a batch of the log may hold more events than ``UNREAD``, and comes all at once.
PATIENCE = 1.0
#: Pieces that may wait however short the time.
MOST = 10_000


def _nothing() -> None:
    pass


class Stream:
    """A response that is not over: a header block as in ``Response``, and pieces to be taken.  Its status is 200.

    One thread has the pieces and one takes them; who cancels may be any.  The front sends the head at once, calls
    ``start`` and takes what there is; and again each time that it is called back.

    A client that leaves more than ``UNREAD`` pieces untaken for longer than ``PATIENCE``, or more than ``MOST``, is
    given those that wait, and no more.
    """

    __slots__ = ("_clock", "_ended", "_late", "_pieces", "_ready", "_release", "head", "instead")

    status = 200

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.head = b""
        self.instead = EMPTY
        self._clock = clock
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._late = 0.0  # when those that wait will have waited too long; 0.0 while they are few
        self._ready = _nothing
        self._release: Callable[[], None] | None = None

    # -- for who has pieces

    def open(self, head: bytes, release: Callable[[], None], instead: Response) -> None:
        """How it begins, and what is to be called when nobody takes any more (perhaps twice, in any thread).

        ``instead`` is the answer of a front that has no room for one more stream.  Called before the front gets the
        stream; there may be pieces already.
        """
        self.head = head
        self.instead = instead
        self._release = release
        if self._ended:
            release()

    def put(self, piece: bytes, *, last: bool = False) -> None:
        """The next piece of the body; the front hears of the last and of the end at once, and writes once."""
        if self._ended:
            return
        waiting = len(self._pieces)
        if waiting < UNREAD:
            self._late = 0.0
        elif self._is_too_slow(waiting):
            self.cancel()
            return
        self._pieces.append(piece)
        if last:
            self._ended = True
        self._ready()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._ready()

    def _is_too_slow(self, waiting: int) -> bool:
        now = self._clock()
        if not self._late:
            self._late = now + PATIENCE
        return now > self._late or waiting >= MOST

    # -- for a front

    def start(self, ready: Callable[[], None]) -> None:
        """``ready`` is called, by who has pieces, whenever there is something to take."""
        self._ready = ready

    def take(self) -> tuple[list[bytes], bool]:
        """The pieces that wait, oldest first, and whether they are the last."""
        ended = self._ended  # looked at first: what is put before the end is then seen
        pieces: list[bytes] = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        return pieces, ended

    def cancel(self) -> None:
        """End it early: nobody is there to take more, or the front stops.  Twice is fine."""
        self.end()
        if self._release is not None:
            self._release()


class Streams:
    """Those that a front is passing on, at most ``limit`` of them; to be ended when it stops."""

    def __init__(self, limit: int = sys.maxsize) -> None:
        self._limit = limit
        self._open: set[Stream] = set()
        self._stopping = False
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> bool:
        """Whether there is room for it.  It ends at once if the front is stopping.  Twice is fine."""
        with self._lock:
            if len(self._open) >= self._limit and stream not in self._open:
                return False
            self._open.add(stream)
            stopping = self._stopping
        if stopping:
            stream.cancel()
        return True

    def discard(self, stream: Stream) -> None:
        with self._lock:
            self._open.discard(stream)

    def stop(self) -> None:
        """End all, and all that are still to come."""
        with self._lock:
            self._stopping = True
            streams = list(self._open)
        for stream in streams:
            stream.cancel()
