"""More requests than a node can serve: many connections, on each of which many requests wait for their answers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from common_raft.testing.processes import HOST

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CAUSE = re.compile(rb'"cause":"([^"]*)"')


@dataclass
class Told:
    """What clients were told: how many answers of each status, and of each cause of an error."""

    statuses: Counter[int] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    connections_lost: int = 0
    connections_refused: int = 0


class _Client(asyncio.Protocol):
    """Keeps as many requests under way on its connection as it began with."""

    def __init__(self, told: Told, request: bytes) -> None:
        self._told = told
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._left = b""
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def begin(self, window: int) -> None:
        if self._transport is not None:
            self._transport.write(self._request * window)

    def data_received(self, data: bytes) -> None:
        # An answer may come in two pieces: nothing is counted before the next one has begun, or its body has ended.
        data = self._left + data
        end = max(data.rfind(b"HTTP/1.1 "), data.rfind(b"}\n") + 2)
        whole, self._left = data[:end], data[end:]
        statuses = [int(status) for status in _STATUS.findall(whole)]
        self._told.statuses.update(statuses)
        self._told.causes.update(cause.decode() for cause in _CAUSE.findall(whole))
        if self._transport is not None and not self.stopping:
            self._transport.write(self._request * len(statuses))

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if not self.stopping:
            self._told.connections_lost += 1

    def close(self) -> None:
        self.stopping = True
        if self._transport is not None:
            self._transport.abort()


async def flood(ports: Sequence[int], request: bytes, connections: int, window: int, seconds: float) -> Told:
    """Asks for so long; ``connections`` to each port, with ``window`` requests under way on each.

    ``request`` is one request as it goes over the wire.
    """
    told = Told()
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for port in [port for _ in range(connections) for port in ports]:
        try:
            _, client = await loop.create_connection(lambda: _Client(told, request), HOST, port)
        except OSError:
            told.connections_refused += 1
        else:
            clients.append(client)
    for client in clients:
        client.begin(window)
    await asyncio.sleep(seconds)
    for client in clients:
        client.close()
    return told


def put(key: str, value: bytes) -> bytes:
    """A request that writes a key."""
    body = b"value=" + value
    return (
        f"PUT /v2/keys/{key} HTTP/1.1\r\nHost: flood\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
