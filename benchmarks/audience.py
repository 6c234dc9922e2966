"""Watchers of one key, each on a connection of its own, and one writer, all in one event loop.

What a watcher costs here is measured as well, since the last of them is read after all others: some microseconds
each, most of them the kernel's, because a watcher looks for the end of a line and for nothing else.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import Final, Self, TypeVar, cast
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError

#: Longer than any event may take, and any answer, in seconds.
PATIENCE = 30.0
#: Connections that are made at once: fewer than a node lets wait at its door.
AT_ONCE = 50

WAIT, STREAM = "wait", "stream"
#: What a watcher of each kind asks for: the next event alone, or all of them on one connection.
QUERIES: Final = {WAIT: "wait=true", STREAM: "wait=true&stream=true"}
KEY: Final = "watched"

_STATUS: Final = b"HTTP/1.1 "
_HEAD_END: Final = b"\r\n\r\n"
#: How events and answers end, and where else nothing does: JSON escapes line feeds.
_JSON_END: Final = b"}\n"

_P = TypeVar("_P", bound="_Connection")


class Audience:
    """``size`` watchers of one ``kind``, spread evenly over ``endpoints``.  Use it in an ``async with``.

    :raises BenchmarkError: from everything: a node refuses, a connection is lost, or somebody waits for longer than
        PATIENCE
    """

    def __init__(self, endpoints: Sequence[str], size: int, kind: str) -> None:
        self._places = [urlsplit(endpoint) for endpoint in endpoints]
        self._size = size
        self._kind = kind
        self._watchers: list[_Watcher] = []
        self._writers: list[_Writer] = []
        self._written = 0
        self._missing = 0
        self._over = asyncio.Event()
        self._failure = ""
        self._heard: array[float] = array("d")

    async def __aenter__(self) -> Self:
        """Connects all; then each watcher waits for an event."""
        try:
            self._expect(self._size)
            for number in range(0, self._size, AT_ONCE):
                several = range(number, min(number + AT_ONCE, self._size))
                self._watchers += await asyncio.gather(*map(self._watch, several))
            await self._all()
            for number in range(len(self._places)):
                self._writers.append(await self._connect(number, _Writer(self)))
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (*self._watchers, *self._writers):
            each.close()
        await asyncio.sleep(0)

    async def tell(self) -> list[float]:
        """One PUT, through the nodes in turn: the seconds from its sending until each watcher had its event."""
        writer = self._writers[self._written % len(self._writers)]
        self._written += 1
        self._heard = array("d")
        self._expect(self._size + 1)  # the writer's answer as well
        began = perf_counter()
        writer.put(self._written)
        await self._all()
        return [at - began for at in self._heard]

    async def ready(self) -> None:
        """Until each watcher waits for an event again."""
        if self._kind == WAIT:
            self._expect(self._size)
            for watcher in self._watchers:
                watcher.ask()
            await self._all()

    # --- what connections say ---------------------------------------------------------------------------------

    def on_event(self, at: float) -> None:
        self._heard.append(at)
        self.on_done()

    def on_done(self) -> None:
        """One of those that something was expected of has it."""
        self._missing -= 1
        if not self._missing:
            self._over.set()

    def on_failed(self, why: str) -> None:
        self._failure = self._failure or why
        self._over.set()

    # --- what it is made of -----------------------------------------------------------------------------------

    def _expect(self, number: int) -> None:
        self._missing = number
        if not self._failure:
            self._over.clear()

    async def _all(self) -> None:
        named = ", ".join(place.geturl() for place in self._places)
        try:
            await asyncio.wait_for(self._over.wait(), PATIENCE)
        except TimeoutError as error:
            raise BenchmarkError(
                f"{named}: {self._missing} of {self._size} watchers got nothing within {PATIENCE:g} s"
            ) from error
        if self._failure:
            raise BenchmarkError(f"{named}: {self._failure}")

    async def _watch(self, number: int) -> _Watcher:
        place = self._places[number % len(self._places)]
        request = (
            f"GET /v2/keys/{KEY}?{QUERIES[self._kind]} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()
        )
        return await self._connect(number, _Watcher(self, request))

    async def _connect(self, number: int, connection: _P) -> _P:
        place = self._places[number % len(self._places)]
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection, str(place.hostname), place.port or 80
            )
        except OSError as error:
            raise BenchmarkError(f"no connection to {place.geturl()}: {error}") from error
        return connection


class _Connection(asyncio.Protocol):
    __slots__ = ("_audience", "_closed", "_data", "_transport")

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._closed = False
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closed:
            self._audience.on_failed(f"a connection is lost: {error or 'the node has closed it'}")

    def close(self) -> None:
        self._closed = True
        self._transport.abort()

    def _after_head(self, data: bytes) -> bytes | None:
        """What follows the head of an answer; None while that is not complete, or says that it is an error.

        In front of it may be what ends the answer before.
        """
        begin = data.find(_STATUS)
        end = data.find(_HEAD_END, begin)
        if begin < 0 or end < 0:
            return None
        if data[begin + len(_STATUS) :][:1] != b"2":
            self._audience.on_failed(f"a node answers {data[begin:].decode(errors='replace').strip()}")
            return None
        return data[end + len(_HEAD_END) :]


class _Watcher(_Connection):
    """Says when it is let watch, which the head of the answer tells at once, and when an event came."""

    __slots__ = ("_in_head", "_request")

    def __init__(self, audience: Audience, request: bytes) -> None:
        super().__init__(audience)
        self._request = request
        self._in_head = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.ask()

    def ask(self) -> None:
        self._in_head = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        data = self._data + data if self._data else data
        if self._in_head:
            rest = self._after_head(data)
            if rest is None:
                self._data = data
                return
            self._in_head = False
            self._audience.on_done()
            data = rest
        if _JSON_END in data:
            self._audience.on_event(now)
            data = b""
        self._data = data


class _Writer(_Connection):
    """Says when it is answered."""

    __slots__ = ()

    def put(self, number: int) -> None:
        body = f"value={number}"
        self._data = b""
        self._transport.write(
            f"PUT /v2/keys/{KEY} HTTP/1.1\r\nHost: node\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._data += data
        rest = self._after_head(self._data)
        if rest is not None and rest.endswith(_JSON_END):
            self._data = b""
            self._audience.on_done()
