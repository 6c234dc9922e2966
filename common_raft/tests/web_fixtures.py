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

from common_raft.tests.web_fakes import FakeNode
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.limits import Limits
from common_raft.web.servers import SERVERS, Running

FORM = "application/x-www-form-urlencoded"
FRONTS = sorted(SERVERS)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Served:
    """A front that serves a fake node."""

    def __init__(self, front: str, limits: Limits) -> None:
        self.node = FakeNode()
        self.port = free_port()
        self.front = front
        self._limits = limits
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self.running: Running
        self.api: EtcdV2
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"front-{front}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(20), f"{self.front} did not start"
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Does nothing the second time."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), f"{self.front} did not stop"

    def in_loop(self, function: object, *arguments: object) -> None:
        """Call a function in the front's loop, without waiting for it."""
        self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _run(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as failure:
            self.failure = failure
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.api = EtcdV2(self.node, self.node.keyspace)
        self.running = await SERVERS[self.front]([("127.0.0.1", self.port)], self.api, self._limits)
        self._ready.set()
        await self._stop.wait()
        await self.running.close(grace=2.0)

    def ask(
        self, method: str, target: str, body: str | bytes = b"", content_type: str | None = FORM
    ) -> Answer:
        return ask(self.port, method, target, body, content_type)

    def connect(self) -> socket.socket:
        return connect(self.port)


@contextmanager
def serving(front: str, limits: Limits | None = None) -> Iterator[Served]:
    served = Served(front, limits or Limits())
    served.start()
    try:
        yield served
    finally:
        served.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(port: int, timeout: float = 5.0) -> socket.socket:
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
