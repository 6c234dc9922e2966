"""The fast front: an ``asyncio.Protocol`` on httptools' parser, in the loop that also runs Raft.

Speed: no task, future or timer per request; one small object for each that waits; one join and one write per answer.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate

from common_raft.web.api import Api
from common_raft.web.fronts.connection import LENGTH, Connection
from common_raft.web.limits import Address, Limits, bind

#: Seconds of a turn of the loop that go to those who send many requests at once; Raft's messages want their turns.
_TURN = 0.005


class NativeFront:
    """The listening sockets and all connections. Use ``start``."""

    sweep_seconds = 1.0  #: between two looks for connections past a deadline

    def __init__(self, api: Api, limits: Limits) -> None:
        self.api = api
        self.limits = limits
        self.stopping = False
        self.now = 0.0  # the loop's time, as of the last sweep: exact enough for deadlines of many seconds
        self.date = b""  # the header lines that end every answer, up to the length
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._postponed: deque[Connection] = deque()
        self._will_go_on = False
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        self._sweep()

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        for opened in sockets:
            server = await self._loop.create_server(self.connection, sock=opened, backlog=self.limits.backlog)
            self._servers.append(server)

    def connection(self) -> Connection:
        """The protocol for a new client."""
        return Connection(self)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._loop.call_later(seconds, callback)

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self.stopping:
            connection.stop()  # the kernel had let it in before: it is as if it had come too late
        elif len(self._connections) > self.limits.connections:
            connection.turn_away()

    def postpone(self, connection: Connection) -> None:
        """Has a connection go on with what it has received, when others have had their turn."""
        if not connection.postponed:
            connection.postponed = True
            self._postponed.append(connection)
            if not self._will_go_on:
                self._will_go_on = True
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        until = self._loop.time() + _TURN
        while self._postponed and self._loop.time() < until:
            self._postponed.popleft().go_on()
        self._will_go_on = bool(self._postponed)
        if self._will_go_on:
            self._loop.call_soon(self._go_on)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _sweep(self) -> None:
        self.now = self._loop.time()
        self.date = f"Date: {formatdate(time.time(), usegmt=True)}\r\n".encode() + LENGTH
        for connection in list(self._connections):
            connection.sweep(self.now)
        self._timer = self._loop.call_later(self.sweep_seconds, self._sweep)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, answer what is under way for at most ``grace`` seconds, and close every connection."""
        self.stopping = True
        for server in self._servers:
            server.close()
        self._empty.clear()
        for connection in list(self._connections):
            connection.stop()
        if self._connections:
            try:
                await asyncio.wait_for(self._empty.wait(), grace)
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()
        if self._timer is not None:
            self._timer.cancel()
        self._closed.set()

    async def wait(self) -> None:
        """Until the front is closed."""
        await self._closed.wait()


async def start(listen: Sequence[Address], api: Api, limits: Limits) -> NativeFront:
    """Serve ``api`` on these addresses, in the running loop. Raises ListenError."""
    sockets = bind(listen, limits.backlog)
    front = NativeFront(api, limits)
    await front.listen(sockets)
    return front
