"""A front in a thread of its own, and a client that says exactly the bytes it is told to."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import NamedTuple

import uvloop

from common_raft.testing.processes import free_ports
from common_raft.tests.web_fakes import BlockingFakeNode, FakeNode
from common_raft.web import flask_servers
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.flask_servers import FLASK_SERVERS
from common_raft.web.limits import Limits
from common_raft.web.servers import SERVERS

FORM = "application/x-www-form-urlencoded"
FLASK = [f"flask-{name}" for name in sorted(FLASK_SERVERS)]
FRONTS = sorted(SERVERS) + FLASK


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Served:
    """A front that serves a fake node; made by `served_by`."""

    def __init__(self, front: str, limits: Limits, node: FakeNode) -> None:
        self.node = node
        self.api = EtcdV2(node, node.keyspace)
        self.port = free_port()
        self.front = front
        self.limits = limits

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """Does nothing the second time."""
        raise NotImplementedError

    def give(self, answer: Callable[[], None]) -> None:
        """Lets an answer that the node held go, where the front expects it; does not wait for that."""
        raise NotImplementedError

    @property
    def listen(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.port)]

    def ask(
        self, method: str, target: str, body: str | bytes = b"", content_type: str | None = FORM
    ) -> Answer:
        return ask(self.port, method, target, body, content_type)

    def connect(self) -> socket.socket:
        return connect(self.port)


class ServedInLoop(Served):
    """In an event loop, in a thread of its own."""

    def __init__(self, front: str, limits: Limits) -> None:
        super().__init__(front, limits, FakeNode())
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"front-{front}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20), f"{self.front} did not start"
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), f"{self.front} did not stop"

    def give(self, answer: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(answer)

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as failure:
            self._failure = failure
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        running = await SERVERS[self.front](self.listen, self.api, self.limits)
        self._ready.set()
        await self._stop.wait()
        await running.close(grace=2.0)


class ServedInThreads(Served):
    def __init__(self, front: str, limits: Limits) -> None:
        super().__init__(front, limits, BlockingFakeNode())
        self._running: flask_servers.Running | None = None

    def start(self) -> None:
        self._running = FLASK_SERVERS[self.front.removeprefix("flask-")](self.listen, self.api, self.limits)

    def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close(grace=2.0)
            running.wait()

    def give(self, answer: Callable[[], None]) -> None:
        answer()


def served_by(front: str, limits: Limits | None = None) -> Served:
    kind = ServedInThreads if front in FLASK else ServedInLoop
    return kind(front, limits or Limits())


@contextmanager
def serving(front: str, limits: Limits | None = None) -> Iterator[Served]:
    served = served_by(front, limits)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def free_port() -> int:
    return free_ports(1)[0]


def connect(port: int, timeout: float = 30.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout)


def request_bytes(method: str, target: str, body: bytes = b"", content_type: str | None = FORM) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
    if content_type is not None and body:
        head += f"Content-Type: {content_type}\r\n"
    if body or method in ("PUT", "POST"):
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def ask(
    port: int, method: str, target: str, body: str | bytes = b"", content_type: str | None = FORM
) -> Answer:
    """One request on a connection of its own; the target is sent as it stands."""
    data = body.encode() if isinstance(body, str) else body
    with connect(port) as client:
        client.sendall(request_bytes(method, target, data, content_type))
        return read_answer(client, method)


def read_answer(client: socket.socket, method: str = "GET") -> Answer:
    """The next answer. Only for a client without pipelined requests: more may be read than the answer."""
    response = HTTPResponse(client, method=method)
    response.begin()
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, body)


def read_until_closed(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    pieces: list[bytes] = []
    while True:
        try:
            piece = client.recv(1 << 20)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


class Listening:
    """A client that has asked for a stream, and reads it line by line."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self._response = HTTPResponse(client, method="GET")
        self._response.begin()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    def line(self) -> bytes:
        """The next line; empty at the end."""
        return self._response.readline()

    def rest(self) -> bytes:
        """All until the end.  Raises http.client.IncompleteRead if it is not a clean one."""
        return self._response.read()

    def leave(self) -> None:
        """As a client that is killed."""
        self._response.close()
        self.client.close()


def listen(served: Served, target: str) -> Listening:
    """Asks for a stream on a connection of its own; returns when its head is there."""
    client = served.connect()
    client.sendall(request_bytes("GET", target))
    return Listening(client)
