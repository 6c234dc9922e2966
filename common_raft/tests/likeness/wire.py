"""HTTP/1.1 as bytes: what a client library would tidy up (paths, duplicates, bad escapes) goes out as it is."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

HOST = "127.0.0.1"


class Head(NamedTuple):
    """A response's status line and headers; names in lower case, in the order in which they came."""

    status: int
    headers: Sequence[tuple[str, str]]

    def get(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each == name), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is what had come when somebody looked; ``ended``: it is all of it.  ``at``: seconds since 1970."""

    head: Head
    body: bytes
    ended: bool
    at: float


class Broken(ConnectionError):
    """The server closed the connection before it had answered, or said what is no HTTP."""


class Connection:
    """One connection, with one answer at a time."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self._timeout = timeout
        self._socket = socket.create_connection((HOST, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = bytearray()
        self._eof = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            pass  # it may have answered before all was sent

    def head(self) -> Head:
        """The next answer's head.  Raises Broken, TimeoutError."""
        while True:
            while (end := self._read.find(b"\r\n\r\n")) < 0:
                self._more()
            lines = bytes(self._read[:end]).decode("latin-1").split("\r\n")
            del self._read[: end + 4]
            try:
                status = int(lines[0].split(" ", 2)[1])
            except (IndexError, ValueError):
                raise Broken(f"no status line: {lines[0]!r}") from None
            if status != 100:
                break
        pairs = (line.partition(":") for line in lines[1:])
        return Head(status, [(name.lower(), value.strip()) for name, _, value in pairs])

    def answer(self, method: str) -> Answer:
        """The next answer, all of it."""
        head = self.head()
        body = self._body(method, head)
        return Answer(head, body, True, time.time())

    def _body(self, method: str, head: Head) -> bytes:
        if method == "HEAD" or head.status in (204, 304):
            return b""
        if head.get("transfer-encoding") == "chunked":
            while True:
                body, used, ended = unchunked(self._read)
                if ended:
                    del self._read[:used]
                    return body
                self._more()
        length = head.get("content-length")
        if length is None:
            while not self._eof:
                self._more(until_closed=True)
            return self._take(len(self._read))
        while len(self._read) < int(length):
            self._more()
        return self._take(int(length))

    def so_far(self, head: Head, lines: int, seconds: float) -> tuple[bytes, bool]:
        """What has come of the body, and whether that is all of it.

        Waits for so many seconds at most: until the end, or (unless 0) until there are so many lines.
        """
        deadline = time.monotonic() + seconds
        body, ended = self._part(head)
        while not ended and not self._eof and not 0 < lines <= body.count(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._socket.settimeout(left)
            try:
                self._more(until_closed=True)
            except TimeoutError:
                break
            finally:
                self._socket.settimeout(self._timeout)
            body, ended = self._part(head)
        return body, ended

    def _part(self, head: Head) -> tuple[bytes, bool]:
        if head.get("transfer-encoding") == "chunked":
            body, _, ended = unchunked(self._read)
            return body, ended
        length = head.get("content-length")
        return bytes(self._read), self._eof if length is None else len(self._read) >= int(length)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._read[:length])
        del self._read[:length]
        return taken

    def _more(self, *, until_closed: bool = False) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            self._eof = True
            if not until_closed:
                raise Broken(f"closed after {bytes(self._read[:200])!r}")
        self._read += data


def unchunked(data: bytes | bytearray) -> tuple[bytes, int, bool]:
    """The body of the chunks that are whole, how many bytes of ``data`` they took, and whether the last was there."""
    body, at = bytearray(), 0
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        end = line + 2 + size
        if len(data) < end + 2:
            break
        body += data[line + 2 : end]
        at = end + 2
        if not size:
            return bytes(body), at, True
    return bytes(body), at, False
