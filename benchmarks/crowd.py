"""Users in one thread, each with a connection: it sends a request, waits for the answer, and sends the next.

Cheaper than locust by far (some 15 us of CPU a request), and unlike wrk it keeps when each answer came: so that what
users saw can be told apart afterwards by what the nodes did at that moment.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError

#: Longer than a node may take for an answer, in seconds; whoever waits for longer is told.
PATIENCE = 60.0
#: A user whose requests fail so many times in a row gives up.
MOST_ERRORS = 20
#: How often those that should stop look whether they should, in seconds.
EVERY = 0.05

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_READ = 64 << 10

#: The next request of a user, whose number is given, as it goes over the wire; None when there is none left.
Next = Callable[[int], bytes | None]


@dataclass(slots=True)
class Answers:
    """What came: for each answer when (seconds since 1970, ascending) and how long it took (seconds).

    ``errors``: answers that are not 2xx; ``said`` is one of them.
    """

    ended: array[float] = field(default_factory=lambda: array("d"))
    took: array[float] = field(default_factory=lambda: array("d"))
    errors: int = 0
    said: str = ""

    def rate(self, began: float, ended: float) -> float:
        """Answers a second between two moments."""
        return (bisect_right(self.ended, ended) - bisect_left(self.ended, began)) / (ended - began)


class Crowd:
    """``users`` spread evenly over ``endpoints``; ``persistent`` ones repeat what was answered with an error."""

    def __init__(
        self, endpoints: Sequence[str], users: int, following: Next, *, persistent: bool = False
    ) -> None:
        self._endpoints = endpoints
        self._users = users
        self._following = following
        self._persistent = persistent
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self.answers = Answers()

    def run(self) -> Answers:
        """Until no user has a request left.

        :raises BenchmarkError: a connection is lost, an answer does not come, or is an error every time
        """
        connections = self._connect()
        try:
            self._serve(connections)
        except OSError as error:
            raise BenchmarkError(f"a connection to {', '.join(self._endpoints)} is lost: {error}") from error
        finally:
            for connection in connections:
                connection.socket.close()
        return self.answers

    @contextmanager
    def running(self) -> Iterator[Answers]:
        """The same beside the block, at the end of which the last answers are waited for."""
        thread = threading.Thread(target=self._run_beside, name="crowd", daemon=True)
        thread.start()
        try:
            yield self.answers
        finally:
            self._stop.set()
            thread.join()
        self.check()

    def check(self) -> None:
        """:raises BenchmarkError: what ended the users that run beside."""
        if self._failed is not None:
            raise self._failed

    def _run_beside(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._failed = error

    def _connect(self) -> list[_Connection]:
        places = [urlsplit(endpoint) for endpoint in self._endpoints]
        found: list[_Connection] = []
        for number in range(self._users):
            place = places[number % len(places)]
            try:
                connected = socket.create_connection((place.hostname, place.port or 80), timeout=PATIENCE)
            except OSError as error:
                for each in found:
                    each.socket.close()
                raise BenchmarkError(f"no connection to {place.geturl()}: {error}") from error
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setblocking(False)
            found.append(_Connection(number, connected))
        return found

    def _serve(self, connections: Sequence[_Connection]) -> None:
        by_descriptor = {each.socket.fileno(): each for each in connections}
        waiting = 0
        heard = time.monotonic()
        with select.epoll() as poll:
            for descriptor, connection in by_descriptor.items():
                poll.register(descriptor, select.EPOLLIN)
                waiting += self._ask(connection)
            while waiting:
                events = poll.poll(EVERY)
                if events:
                    heard = time.monotonic()
                elif time.monotonic() - heard > PATIENCE:
                    raise BenchmarkError(f"{', '.join(self._endpoints)}: no answer within {PATIENCE:g} s")
                for descriptor, _ in events:
                    connection = by_descriptor[descriptor]
                    status = connection.receive()
                    if status:
                        failed = self._note(connection, status)
                        waiting -= not self._ask(connection, again=failed and self._persistent)

    def _ask(self, connection: _Connection, *, again: bool = False) -> bool:
        """Sends the user's next request, or the last one; false when there is none."""
        if not again:
            request = None if self._stop.is_set() else self._following(connection.user)
            if request is None:
                return False
            connection.request = request
        connection.began = time.monotonic()
        connection.socket.sendall(connection.request)
        return True

    def _note(self, connection: _Connection, status: int) -> bool:
        """Whether it is an error."""
        answers = self.answers
        answers.took.append(time.monotonic() - connection.began)
        answers.ended.append(time.time())
        if 200 <= status < 300:
            connection.errors = 0
            return False
        connection.errors += 1
        answers.errors += 1
        answers.said = connection.last.decode(errors="replace")
        if connection.errors == MOST_ERRORS:
            raise BenchmarkError(f"{MOST_ERRORS} errors in a row, the last: {answers.said}")
        return True


class _Connection:
    """A user's: at most one request is under way.  ``last``: the body of the last answer."""

    __slots__ = ("_data", "began", "errors", "last", "request", "socket", "user")

    def __init__(self, user: int, connected: socket.socket) -> None:
        self.user = user
        self.socket = connected
        self.request = b""
        self.began = 0.0
        self.errors = 0  #: in a row
        self.last = b""
        self._data = b""

    def receive(self) -> int:
        """Takes what is there; the status once an answer is complete, else 0.  Raises OSError."""
        data = self.socket.recv(_READ)
        if not data:
            raise ConnectionError("the node has closed it")
        self._data = data = self._data + data if self._data else data
        head_end = data.find(_HEAD_END)
        if head_end < 0:
            return 0
        head = data[: head_end + 2].lower()
        at = head.find(_LENGTH)
        if at < 0:
            raise ConnectionError("an answer does not say how long it is")
        length = int(head[at + len(_LENGTH) : head.index(b"\r\n", at + 2)])
        body = data[head_end + len(_HEAD_END) :]
        if len(body) < length:
            return 0
        self._data, self.last = b"", body
        return int(head[9:12])
