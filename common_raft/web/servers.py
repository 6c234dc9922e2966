"""The HTTP servers to choose from, all started the same way in the running loop.

A server is imported when it is started, so that a service needs only the one it uses.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from common_raft.web.api import Api
from common_raft.web.limits import Address, Limits, ListenError, bind
from common_raft.web.stream import Streams


class Running(Protocol):
    """A server that serves."""

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, answer what is under way for at most ``grace`` seconds, and close every connection."""

    async def wait(self) -> None:
        """Until it is closed. Raises what made the server end, if it was not ``close``."""


Start = Callable[[Sequence[Address], Api, Limits], Awaitable[Running]]


class _Task:
    """A server that is a coroutine and ends when it is told to, and the streams that would keep it from ending."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], stop: Callable[[], None], streams: Streams
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(coroutine)
        self._stop = stop
        self._streams = streams

    async def until_reachable(self, addresses: Sequence[Address]) -> None:
        """Until it accepts connections. Raises what made it end before."""
        for host, port in addresses:
            while True:
                if self._task.done():
                    self._task.result()
                    raise ListenError(f"the server for {host}:{port} ended as soon as it was started")
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break

    async def close(self, grace: float = 5.0) -> None:
        self._streams.stop()
        asyncio.get_running_loop().set_exception_handler(_but_cut_off)
        self._stop()
        done, _ = await asyncio.wait([self._task], timeout=grace)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def wait(self) -> None:
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


async def start_native(listen: Sequence[Address], api: Api, limits: Limits) -> Running:
    """httptools in this loop, without a framework. Raises ListenError."""
    from common_raft.web.fronts import native

    return await native.start(listen, api, limits)


async def start_hypercorn(listen: Sequence[Address], api: Api, limits: Limits) -> Running:
    """Starlette on hypercorn. Raises ListenError."""
    from common_raft.web.fronts.starlette import application

    streams = Streams()
    return await serve_hypercorn(application(api, limits, streams), listen, limits, streams)


async def serve_hypercorn(app: Any, listen: Sequence[Address], limits: Limits, streams: Streams) -> Running:
    """An ASGI application on hypercorn, which passes on these ``streams``. Raises ListenError."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    sockets = bind(listen, limits.backlog)
    config = Config()
    config.bind = [f"fd://{opened.detach()}" for opened in sockets]
    config.backlog = limits.backlog
    config.include_server_header = False
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = int(limits.idle)
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = limits.header_bytes
    config.graceful_timeout = 2
    stop = asyncio.Event()
    return _Task(serve(app, config, shutdown_trigger=stop.wait, mode="asgi"), stop.set, streams)


def _but_cut_off(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A stop cuts off connections that do not end by themselves.  That is no failure, and yet told as one, at length:
    by asyncio before Python 3.12, of hypercorn's tasks, and by granian, which ends a future that was cancelled.
    """
    if not isinstance(context.get("exception"), asyncio.CancelledError | asyncio.InvalidStateError):
        loop.default_exception_handler(context)


async def start_granian(listen: Sequence[Address], api: Api, limits: Limits) -> Running:
    """Starlette on granian. Raises ListenError."""
    from common_raft.web.fronts.starlette import application

    addresses = probe(listen, limits.backlog)
    streams = Streams()
    app = application(api, limits, streams)
    servers = [_granian(app, host, port, limits) for host, port in addresses]

    async def serve() -> None:
        await asyncio.gather(*(server.serve() for server in servers))

    def stop() -> None:
        for server in servers:
            server.stop()

    running = _Task(serve(), stop, streams)
    await running.until_reachable(addresses)
    return running


def _granian(app: object, host: str, port: int, limits: Limits) -> Any:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    return Server(
        app,
        host,
        port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=max(limits.header_bytes, 8192)),
        websockets=False,
        backlog=limits.backlog,
        backpressure=limits.connections,
        log_enabled=False,
        # Otherwise it would set up the handlers of the whole process anew.
        log_dictconfig={"incremental": True, "root": {}, "handlers": {}, "loggers": {}},
    )


def probe(listen: Sequence[Address], backlog: int) -> list[Address]:
    """The numeric addresses, found to be free just now: granian binds by itself, and says too little if it cannot."""
    sockets = bind(listen, backlog)
    try:
        return [opened.getsockname()[:2] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


SERVERS: dict[str, Start] = {"native": start_native, "hypercorn": start_hypercorn, "granian": start_granian}
#: Those that serve Starlette.
STARLETTE_SERVERS: dict[str, Start] = {"hypercorn": start_hypercorn, "granian": start_granian}
