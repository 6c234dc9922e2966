"""The HTTP servers to choose from where each request has a thread, all started and stopped the same way.

A server is imported when it is started, so that a service needs only the one it uses.
"""

import asyncio
import contextlib
import io
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import uvloop

from common_raft.web import servers
from common_raft.web.api import Api
from common_raft.web.fronts.flask import Pieces, application
from common_raft.web.fronts.relay import relay
from common_raft.web.limits import Address, Limits
from common_raft.web.servers import probe
from common_raft.web.stream import Stream, Streams


class Running(Protocol):
    """A server that serves, in threads of its own."""

    def close(self, grace: float = 5.0) -> None:
        """Stop listening, answer what is under way for at most ``grace`` seconds, and close every connection."""

    def wait(self) -> None:
        """Until it is closed. Raises what made the server end, if it was not ``close``."""


Start = Callable[[Sequence[Address], Api, Limits], Running]


# --- hypercorn ------------------------------------------------------------------------------------------------


def start_hypercorn(listen: Sequence[Address], api: Api, limits: Limits) -> Running:
    """Flask on hypercorn: its loop has one thread, and a pool of threads runs the application. Raises ListenError."""
    streams = Streams(limits.streams)
    app = _InThreads(application(api, limits, streams), limits, streams)
    return _InLoop(partial(servers.serve_hypercorn, app, listen, limits, streams), app.close)


class _InThreads:
    """A WSGI application as an ASGI one: each request runs in a thread of a pool, and streams in the loop.

    Hypercorn has an adapter of its own, but that does not tell the application the target as it was sent, has no
    answer where the body is empty, runs only as many requests at a time as asyncio's default pool has threads (six
    on two processors), and goes to the loop and back for each part of an answer.
    """

    def __init__(self, app: Any, limits: Limits, streams: Streams) -> None:
        self._app = app
        self._streams = streams
        self._limit = limits.body_bytes
        # Threads are made as they are needed. Past the limit a request waits for its turn, with its connection.
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="request")

    def close(self) -> None:
        """Without waiting: the node may have to stop before it answers the last requests."""
        self._pool.shutdown(wait=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"scope {scope['type']!r}: only HTTP is served")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body") or len(body) > self._limit:
                break  # the application says that a body is too large
        environ = _environ(scope, bytes(body))
        loop = asyncio.get_running_loop()
        status, headers, answer = await loop.run_in_executor(self._pool, self._run, environ)
        if isinstance(answer, Stream):
            await relay(answer, self._streams, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _run(self, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes | Stream]:
        started: list[tuple[int, list[tuple[bytes, bytes]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
            encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            started.append((int(status[:3]), encoded))

        answer = self._app(environ, start_response)
        if isinstance(answer, Pieces):
            return *started[-1], answer.stream
        return *started[-1], b"".join(answer)


def _environ(scope: Any, body: bytes) -> dict[str, Any]:
    query = scope["query_string"]
    server = scope.get("server") or ("localhost", 80)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


class _InLoop:
    """A server on an event loop, with a thread that runs the loop. Raises what keeps it from starting."""

    def __init__(self, start: Callable[[], Awaitable[servers.Running]], closed: Callable[[], None]) -> None:
        self._start = start
        self._closed = closed
        self._grace = 5.0
        self._ended: Future[None] = Future()
        started: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, args=(started,), name="http")
        self._thread.start()
        started.result()

    def close(self, grace: float = 5.0) -> None:
        self._grace = grace
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def wait(self) -> None:
        self._ended.result()

    def _run(self, started: Future[None]) -> None:
        try:
            uvloop.run(self._serve(started))
        except BaseException as error:
            if started.done():
                self._ended.set_exception(error)
            else:
                started.set_exception(error)
        else:
            self._ended.set_result(None)
        finally:
            self._closed()

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        running = await self._start()
        started.set_result(None)
        stop, ended = (self._loop.create_task(each) for each in (self._stop.wait(), running.wait()))
        await asyncio.wait([stop, ended], return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            await running.close(self._grace)
        await ended


# --- granian --------------------------------------------------------------------------------------------------


def start_granian(listen: Sequence[Address], api: Api, limits: Limits) -> Running:
    """Flask on granian: its own runtime speaks HTTP, and its threads run the application. Raises ListenError."""
    streams = Streams(limits.streams)
    app = application(api, limits, streams, chunks_are_whole=False)  # a body that breaks off just ends
    addresses = probe(listen, limits.backlog)
    return _Granian([_granian_worker(app, *address, limits) for address in addresses], streams)


def _granian_worker(app: Any, host: str, port: int, limits: Limits) -> "_GranianWorker":
    """Granian's own servers run WSGI only in processes of their own: this is what such a process does."""
    from granian import _futures, _granian, wsgi
    from granian.constants import HTTPModes
    from granian.http import HTTP1Settings

    logging.getLogger("_granian").setLevel(logging.WARNING)  # starting and stopping is told by the service
    private: Any = _granian  # its stub is not up to date
    schedule: Any = _futures._new_cbscheduler
    no_tls: tuple[Any, ...] = (False, None, None, None, "1.3", None, [], False)
    worker = private.WSGIWorker(
        1,
        (private.ListenerSpec(host, port, max(limits.backlog, 128)), None),
        None,
        1,  # threads that speak HTTP
        512,  # at most so many more for what blocks in there
        limits.threads,  # at most so many that run the application
        30,  # seconds without work after which such a thread ends
        limits.connections,
        HTTPModes.http1,
        HTTP1Settings(max_buffer_size=max(limits.header_bytes, 8192)),
        None,
        None,
        *no_tls,
        (None, None),
    )
    loop = asyncio.new_event_loop()  # asked for, and never run
    scheduler = schedule(loop, _streams_apart(wsgi._callback_wrapper(app, {})), impl_asyncio=True)
    return _GranianWorker(worker, scheduler, loop, private.WorkerSignal())


def _streams_apart(run: Callable[[Any, Any], int]) -> Callable[[Any, Any], None]:
    """What granian calls in one of its threads for each request, so that a stream does not keep that thread."""

    def apart(protocol: Any, scope: Any) -> None:
        run(_Protocol(protocol), scope)

    return apart


class _Protocol:
    """Granian's means to answer one request; a body that comes in pieces gets a thread of its own."""

    __slots__ = ("_protocol", "response_bytes")

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.response_bytes = protocol.response_bytes

    def response_iter(self, *answer: Any) -> None:
        threading.Thread(target=self._protocol.response_iter, args=answer, name="stream", daemon=True).start()


class _GranianWorker:
    def __init__(self, worker: Any, scheduler: Any, loop: asyncio.AbstractEventLoop, signal: Any) -> None:
        self._signal = signal
        self._loop = loop
        self.ended = threading.Event()
        signal.add_cb(self.ended.set)
        worker.serve_str(scheduler, loop, signal)

    def stop(self) -> None:
        self._signal.set()

    def close(self) -> None:
        self._loop.close()


class _Granian:
    def __init__(self, workers: list[_GranianWorker], streams: Streams) -> None:
        self._workers = workers
        self._streams = streams

    def close(self, grace: float = 5.0) -> None:
        self._streams.stop()
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.ended.wait(grace)
            worker.close()

    def wait(self) -> None:
        for worker in self._workers:
            worker.ended.wait()


FLASK_SERVERS: dict[str, Start] = {"hypercorn": start_hypercorn, "granian": start_granian}
