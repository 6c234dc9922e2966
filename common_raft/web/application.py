"""The API by which a Raft node in a process of its own drives this service.

    POST /application/apply   what is committed      POST /application/read   several keys
    GET  /application/marks   how far it is          GET  /health             whether it serves

Messages are those of ``application_wire``.  Nothing here replicates anything, and clients have no business here: they
ask the node.

Exactly once: a node says at which entry its batches begin, and they are applied only if the service is there.  The
last answer is kept for a node that did not get it and asks again.  A service in memory starts empty and under another
name (``instance``): the node learns that from the refusal, and feeds it again.
"""

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import msgspec

from common_raft.keyspace import AsyncKeyspace, Keyspace, StoreUnavailable
from common_raft.keyspace.keyspace import Answers
from common_raft.web.api import Api, Respond
from common_raft.web.application_wire import (
    APPLY,
    CONTENT_TYPE,
    MARKS,
    READ,
    Applied,
    Apply,
    Found,
    Marks,
    Read,
    decode,
    encode,
    to_outcome,
)
from common_raft.web.response import HEALTHY, Response, json_response, method_not_allowed

log = logging.getLogger(__name__)

_MSGPACK = f"Content-Type: {CONTENT_TYPE}\r\n".encode()
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_METHODS = {APPLY: "POST", READ: "POST", MARKS: "GET", "/health": "GET"}


def application(keyspace: Keyspace | AsyncKeyspace) -> Api:
    """The API over a keyspace, which nobody else may change."""
    if isinstance(keyspace, Keyspace):
        return BlockingApplication(keyspace)
    return AsyncApplication(keyspace)


class _Application:
    """What both kinds share.  One ``apply`` at a time: whoever calls ``_refused`` holds the lock until ``_done``."""

    def __init__(self, keyspace: Keyspace | AsyncKeyspace) -> None:
        self._marked = keyspace
        self._instance = uuid4().hex
        self._driver: tuple[int, int] | None = None  # (cluster, node): the first that asks
        self._applied = 0  # also counts entries that changed nothing, which the store does not write down
        self._last: tuple[int, int] | None = None  # (after, applied) of the last request that was carried out
        self._last_answer = b""
        self._begun: tuple[int, int] | None = (
            None  # one that may have been carried out, and may be asked for again
        )

    def handle(
        self, method: str, target: bytes, _content_type: bytes | None, body: bytes, respond: Respond
    ) -> None:
        """Answer one request: ``respond`` is called once, by the calling thread or in the calling loop."""
        path = target.partition(b"?")[0].decode("latin-1")
        allowed = _METHODS.get(path)
        if allowed is None:
            respond(_text(404, f"{path}: this service answers its Raft node; ask that for keys"))
        elif method != allowed:
            respond(method_not_allowed(allowed.encode()))
        elif path == MARKS:
            respond(self._about())
        elif path == "/health":
            respond(HEALTHY)
        else:
            self._take(path, body, respond)

    def _take(self, path: str, body: bytes, respond: Respond) -> None:
        try:
            if path == APPLY:
                self._apply(decode(body, Apply), respond)
            else:
                self._read(decode(body, Read), respond)
        except (msgspec.MsgspecError, UnicodeError) as error:
            respond(_text(400, f"{path}: {error}"))

    def _apply(self, request: Apply, respond: Respond) -> None:
        raise NotImplementedError

    def _read(self, request: Read, respond: Respond) -> None:
        raise NotImplementedError

    def _marks(self) -> Marks:
        return Marks(self._instance, self._marked.index, max(self._applied, self._marked.applied))

    def _about(self) -> Response:
        marks = self._marks()
        cluster, node = self._driver or (0, 0)
        about = {"cluster": f"{cluster:x}", "node": f"{node:x}", **msgspec.structs.asdict(marks)}
        return json_response(msgspec.json.encode(about))

    def _refused(self, request: Apply) -> Response | None:
        """Why these batches are not to be applied; None if they are."""
        sender = (request.cluster, request.node)
        if self._driver is None:
            self._driver = sender
            log.info("driven by member %x of cluster %x", request.node, request.cluster)
        if sender != self._driver:
            cluster, node = self._driver
            return _text(
                403,
                f"this service is driven by member {node:x} of cluster {cluster:x}, and not by member "
                f"{request.node:x} of cluster {request.cluster:x}: start a service for each node",
            )
        marks = self._marks()
        if request.instance == marks.instance:
            wanted = (request.after, request.applied)
            if request.after == marks.applied <= request.applied or wanted == self._begun:
                self._begun = wanted
                return None
            if wanted == self._last:
                return Response(200, _MSGPACK, self._last_answer)
        return Response(409, _MSGPACK, encode(marks))

    def _done(self, request: Apply, answers: Answers) -> Response:
        self._applied = request.applied
        self._begun = None
        results = [None if each is None else [to_outcome(result) for result in each] for each in answers]
        body = encode(Applied(self._marks(), results))
        if request.batches:
            self._last, self._last_answer = (request.after, request.applied), body
        return Response(200, _MSGPACK, body)

    def _refused_read(self, request: Read) -> Response | None:
        if request.instance != self._instance:
            return Response(409, _MSGPACK, encode(self._marks()))
        return None


class BlockingApplication(_Application):
    """Over a blocking keyspace: called from several threads, or in a loop if it never waits."""

    def __init__(self, keyspace: Keyspace) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._lock = threading.Lock()

    def _apply(self, request: Apply, respond: Respond) -> None:
        with self._lock:
            try:
                self._keyspace.settle()  # else the marks are not known
                response = self._refused(request)
                if response is None:
                    response = self._done(request, self._keyspace.apply(request.batches, request.applied))
            except Exception as error:
                response = _failed(error)
        respond(response)

    def _read(self, request: Read, respond: Respond) -> None:
        response = self._refused_read(request)
        if response is None:
            try:
                response = _found(self._keyspace.get_many(request.keys))
            except Exception as error:
                response = _failed(error)
        respond(response)


class AsyncApplication(_Application):
    """Over an asynchronous keyspace, in the loop that first calls it."""

    def __init__(self, keyspace: AsyncKeyspace) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._lock = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()  # each with a connection, and those are bounded

    def _apply(self, request: Apply, respond: Respond) -> None:
        self._start(self._applied_response(request), respond)

    def _read(self, request: Read, respond: Respond) -> None:
        self._start(self._read_response(request), respond)

    def _start(self, answering: Coroutine[Any, Any, Response], respond: Respond) -> None:
        async def answer() -> None:
            try:
                response = await answering
            except Exception as error:
                response = _failed(error)
            respond(response)

        task = asyncio.get_running_loop().create_task(answer())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _applied_response(self, request: Apply) -> Response:
        async with self._lock:
            await self._keyspace.settle()  # else the marks are not known
            response = self._refused(request)
            if response is None:
                answers = await self._keyspace.apply(request.batches, request.applied)
                response = self._done(request, answers)
            return response

    async def _read_response(self, request: Read) -> Response:
        return self._refused_read(request) or _found(await self._keyspace.get_many(request.keys))


def _found(results: list[Any]) -> Response:
    return Response(200, _MSGPACK, encode(Found([to_outcome(result) for result in results])))


def _failed(error: Exception) -> Response:
    """Nothing was done, or nobody knows: the node asks again, from where this service then is."""
    if isinstance(error, msgspec.MsgspecError):
        return _text(400, f"{APPLY}: {error}")
    if not isinstance(error, StoreUnavailable):
        log.error("a request of the node failed", exc_info=error)
    return _text(503, f"{type(error).__name__}: {error}")


def _text(status: int, text: str) -> Response:
    return Response(status, _TEXT, f"{text}\n".encode())
