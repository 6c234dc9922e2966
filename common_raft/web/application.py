"""The API by which a Raft node in a process of its own drives this service.

    POST /application/apply     what is committed     POST /application/snapshot  its state, piece by piece
    POST /application/read      several keys          POST /application/restore   another state, piece by piece
    GET  /application/marks     how far it is         GET  /health                whether it serves
    GET  /metrics               what it counts

Messages are those of ``application_wire``.  Nothing here replicates anything, and clients have no business here: they
ask the node.

Exactly once: a node says at which entry its batches begin, and they are applied only if the service is there.  The
last answer is kept for a node that did not get it and asks again.  A service in memory starts empty and under another
name (``instance``): the node learns that from the refusal, and feeds it again: with a snapshot first, if its log does
not reach back that far.

A snapshot is taken, or put here, in pieces that are numbered (``pieces``), one at a time.  One that the node does not
go on with ends when it begins another or, if it is put here, has something applied; if it is taken, after ``LAPSE``
seconds.  While one is put here, nothing is read.
"""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4

import msgspec

from common_raft.keyspace import (
    BadSnapshot,
    Event,
    Expired,
    Keyspace,
    Query,
    Result,
    Snapshot,
    StoreError,
    StoreStats,
    StoreUnavailable,
)
from common_raft.keyspace.keyspace import AwaitedRestoring, Carried, Restoring
from common_raft.web.api import Respond
from common_raft.web.application_wire import (
    APPLY,
    CONTENT_TYPE,
    MARKS,
    READ,
    RESTORE,
    SNAPSHOT,
    Applied,
    Apply,
    Found,
    Marks,
    Outcome,
    Piece,
    PutPiece,
    Read,
    TakePiece,
    decode,
    encode,
    to_outcome,
)
from common_raft.web.metrics import Metrics, ProcessMetrics, StoreMetrics
from common_raft.web.pieces import Pieces
from common_raft.web.response import HEALTHY, Response, json_response, method_not_allowed

log = logging.getLogger(__name__)

_MSGPACK = f"Content-Type: {CONTENT_TYPE}\r\n".encode()
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
#: Seconds after which a snapshot that the node does not go on taking is let go of.
LAPSE = 30.0
#: Of a snapshot's steps, each of a few milliseconds at most, that a request for a piece makes until one has a chunk.
STEPS = 8

Driven = Apply | TakePiece | PutPiece
_KINDS: dict[str, type[Driven]] = {APPLY: Apply, SNAPSHOT: TakePiece, RESTORE: PutPiece}
_METHODS = {MARKS: "GET", "/health": "GET", READ: "POST", **dict.fromkeys(_KINDS, "POST")}


class _View(Protocol):
    def close(self) -> None: ...


class AwaitedView(_View, Protocol):
    """An ``AsyncSnapshot``, or what stands for one."""

    async def __anext__(self) -> bytes: ...


class AwaitedKeyspace(Protocol):
    """An ``AsyncKeyspace``, or what stands for one."""

    @property
    def index(self) -> int: ...
    @property
    def applied(self) -> int: ...
    @property
    def expires(self) -> int | None: ...
    @property
    def stats(self) -> StoreStats: ...
    async def carry_out(self, batches: Sequence[tuple[bytes, bool]], applied: int, /) -> Carried: ...
    def publish(self, carried: Carried, /) -> None: ...
    async def settle(self) -> None: ...
    async def claim(self, cluster: str, member: str, /) -> None: ...
    async def get_many(self, queries: Sequence[Query | str], /) -> list[Result]: ...
    async def snapshot(self, applied: int, /) -> AwaitedView: ...
    async def begin_restoring(self, first: bytes, /) -> AwaitedRestoring: ...


def application(keyspace: Keyspace | AwaitedKeyspace) -> "BlockingApplication | AsyncApplication":
    """The API over a keyspace, which nobody else may change.

    ``close`` it before the keyspace is, when no request is under way any more.
    """
    if isinstance(keyspace, Keyspace):
        return BlockingApplication(keyspace)
    return AsyncApplication(keyspace)


class _Application:
    """What both kinds share.  What a node orders is carried out one after another, with a lock held."""

    def __init__(self, keyspace: Keyspace | AwaitedKeyspace) -> None:
        self._marked = keyspace
        self._instance = uuid4().hex
        self._driver: tuple[int, int] | None = None  # (cluster, node): the first that asks
        self._applied = 0  # also counts entries that changed nothing, which the store does not write down
        self._last: tuple[int, int] | None = None  # (after, applied) of the last request that was carried out
        self._last_answer = b""
        # One that may have been carried out, and may be asked for again.
        self._begun: tuple[int, int] | None = None
        self._taken = Pieces()
        self._taken_at = 0.0
        self._put = Pieces()
        self._metrics = Metrics(ProcessMetrics(), StoreMetrics(keyspace))

    #: Nobody says who he is: there is no authentication.
    wants_authorization = False

    def handle(
        self,
        method: str,
        target: bytes,
        _content_type: bytes | None,
        body: bytes,
        respond: Respond,
        _authorization: bytes | None = None,
    ) -> None:
        """Answer one request: ``respond`` is called once, by the calling thread or in the calling loop."""
        path = target.partition(b"?")[0].decode("latin-1")
        if path == "/metrics":
            respond(self._metrics.respond())
            return
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
            if path == READ:
                self._read(decode(body, Read), respond)
            else:
                self._order(decode(body, _KINDS[path]), respond)
        except (msgspec.MsgspecError, UnicodeError) as error:
            respond(_text(400, f"{path}: {error}"))

    def _order(self, request: Driven, respond: Respond) -> None:
        raise NotImplementedError

    def _read(self, request: Read, respond: Respond) -> None:
        raise NotImplementedError

    def _marks(self) -> Marks:
        applied = max(self._applied, self._marked.applied)
        return Marks(self._instance, self._marked.index, applied, self._marked.expires)

    def _about(self) -> Response:
        marks = self._marks()
        cluster, node = self._driver or (0, 0)
        about = {"cluster": f"{cluster:x}", "node": f"{node:x}", **msgspec.structs.asdict(marks)}
        return json_response(msgspec.json.encode(about))

    def _belongs_to(self, request: Driven) -> None:
        self._driver = (request.cluster, request.node)
        log.info("driven by member %x of cluster %x", request.node, request.cluster)

    # --- what is not carried out: why, or the answer that was given before; None if it is ---------------------

    def _elsewhere(self) -> Response:
        return Response(409, _MSGPACK, encode(self._marks()))

    def _refused(self, request: Driven) -> Response | None:
        if self._driver != (request.cluster, request.node):
            cluster, node = self._driver or (0, 0)
            return _text(
                403,
                f"this service is driven by member {node:x} of cluster {cluster:x}, and not by member "
                f"{request.node:x} of cluster {request.cluster:x}: start a service for each node",
            )
        if request.instance != self._instance:
            return self._elsewhere()
        if isinstance(request, Apply):
            return self._refused_batches(request)
        pieces = self._taken if isinstance(request, TakePiece) else self._put
        answer = pieces.answered(request.name, request.number)
        if answer is not None:
            return Response(200, _MSGPACK, answer)
        if pieces.goes_on(request.name, request.number):
            return None
        at = self._marks().applied
        fits = request.applied == at if isinstance(request, TakePiece) else request.applied > at
        return None if fits and pieces.begins(request.name, request.number) else self._elsewhere()

    def _refused_batches(self, request: Apply) -> Response | None:
        applied = self._marks().applied
        wanted = (request.after, request.applied)
        if request.after == applied <= request.applied or wanted == self._begun:
            self._begun = wanted
            return None
        if wanted == self._last:
            return Response(200, _MSGPACK, self._last_answer)
        return self._elsewhere()

    def _refused_read(self, request: Read) -> Response | None:
        if request.instance != self._instance:
            return self._elsewhere()
        if self._is_being_put:  # a store may keep readers waiting until it has all
            return _text(503, "a snapshot is being restored")
        return None

    @property
    def _is_being_put(self) -> bool:
        raise NotImplementedError

    # --- what was carried out: its answer ---------------------------------------------------------------------

    def _done(self, request: Apply, carried: Carried) -> Response:
        self._marked.publish(carried)
        self._applied = request.applied
        self._begun = None
        body = encode(_told(carried, self._marks(), self._marked.stats, request.events))
        if request.batches:
            self._last, self._last_answer = (request.after, request.applied), body
        return Response(200, _MSGPACK, body)

    def _has_taken(self, chunk: bytes | None) -> Response:
        self._taken_at = monotonic()
        body = encode(Piece(chunk or b"", last=chunk is None))
        self._taken.carried_out(body, last=chunk is None)
        return Response(200, _MSGPACK, body)

    def _has_put(self, request: PutPiece) -> Response:
        if request.last:
            log.info("took the state of entry %d from a snapshot", request.applied)
            self._applied = request.applied
            self._begun = self._last = None
            self._last_answer = b""
        body = encode(self._marks())
        self._put.carried_out(body, last=request.last)
        return Response(200, _MSGPACK, body)


class BlockingApplication(_Application):
    """Over a blocking keyspace: called from several threads, or in a loop if it never waits."""

    def __init__(self, keyspace: Keyspace) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._lock = threading.Lock()
        self._view: Snapshot | None = None
        self._restoring: Restoring | None = None

    @property
    def _is_being_put(self) -> bool:
        return self._restoring is not None

    def close(self) -> None:
        with self._lock:
            self._let_go()
            self._abort()

    def _order(self, request: Driven, respond: Respond) -> None:
        with self._lock:
            try:
                response = self._carried_out(request)
            except Exception as error:
                response = _failed(error)
        respond(response)

    def _carried_out(self, request: Driven) -> Response:
        if self._driver is None:
            self._keyspace.claim(*_owner(request))
            self._belongs_to(request)
        if not self._is_being_put:
            self._keyspace.settle()  # else the marks are not known
        response = self._refused(request)
        if response is not None:
            return response
        if isinstance(request, TakePiece):
            return self._has_taken(self._next_chunk(request))
        if isinstance(request, PutPiece):
            return self._restored(request)
        self._abort()
        if monotonic() - self._taken_at > LAPSE:
            self._let_go()
        return self._done(request, self._keyspace.carry_out(request.batches, request.applied))

    def _next_chunk(self, request: TakePiece) -> bytes | None:
        if request.number == 0:
            self._abort()
            self._let_go()
            self._view = self._keyspace.snapshot(request.applied)
            self._taken.begin(request.name)
        view = self._view
        assert view is not None
        for _ in range(STEPS):
            chunk = next(view, None)
            if chunk is None:
                self._view = None
            if chunk != b"":
                break
        return chunk

    def _restored(self, request: PutPiece) -> Response:
        try:
            if request.number == 0:
                self._abort()
                self._let_go()
                self._restoring = self._keyspace.begin_restoring(request.data)
                self._put.begin(request.name)
            else:
                assert self._restoring is not None
                self._restoring.add(request.data)
            if request.last:
                self._restoring.commit()
                self._restoring = None
        except BaseException:
            self._abort()
            raise
        return self._has_put(request)

    def _let_go(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            self._taken.give_up()
            view.close()

    def _abort(self) -> None:
        restoring, self._restoring = self._restoring, None
        if restoring is not None:
            self._put.give_up()
            restoring.abort()

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

    def __init__(self, keyspace: AwaitedKeyspace) -> None:
        super().__init__(keyspace)
        self._keyspace = keyspace
        self._lock = asyncio.Lock()
        self._view: AwaitedView | None = None
        self._restoring: AwaitedRestoring | None = None
        self._under_way: set[asyncio.Task[None]] = set()  # each with a connection, and those are bounded

    @property
    def _is_being_put(self) -> bool:
        return self._restoring is not None

    async def close(self) -> None:
        async with self._lock:
            self._let_go()
            await self._abort()

    def _order(self, request: Driven, respond: Respond) -> None:
        self._start(self._ordered(request), respond)

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

    async def _ordered(self, request: Driven) -> Response:
        async with self._lock:
            return await self._carried_out(request)

    async def _carried_out(self, request: Driven) -> Response:
        if self._driver is None:
            await self._keyspace.claim(*_owner(request))
            self._belongs_to(request)
        if not self._is_being_put:
            await self._keyspace.settle()  # else the marks are not known
        response = self._refused(request)
        if response is not None:
            return response
        if isinstance(request, TakePiece):
            return self._has_taken(await self._next_chunk(request))
        if isinstance(request, PutPiece):
            return await self._restored(request)
        await self._abort()
        if monotonic() - self._taken_at > LAPSE:
            self._let_go()
        return self._done(request, await self._keyspace.carry_out(request.batches, request.applied))

    async def _next_chunk(self, request: TakePiece) -> bytes | None:
        if request.number == 0:
            await self._abort()
            self._let_go()
            self._view = await self._keyspace.snapshot(request.applied)
            self._taken.begin(request.name)
        view = self._view
        assert view is not None
        for _ in range(STEPS):
            try:
                chunk = await view.__anext__()
            except StopAsyncIteration:
                self._view = None
                return None
            if chunk:
                break
        return chunk

    async def _restored(self, request: PutPiece) -> Response:
        try:
            if request.number == 0:
                await self._abort()
                self._let_go()
                self._restoring = await self._keyspace.begin_restoring(request.data)
                self._put.begin(request.name)
            else:
                assert self._restoring is not None
                await self._restoring.add(request.data)
            if request.last:
                await self._restoring.commit()
                self._restoring = None
        except BaseException:
            await self._abort()
            raise
        return self._has_put(request)

    def _let_go(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            self._taken.give_up()
            view.close()

    async def _abort(self) -> None:
        restoring, self._restoring = self._restoring, None
        if restoring is not None:
            self._put.give_up()
            await restoring.abort()

    async def _read_response(self, request: Read) -> Response:
        return self._refused_read(request) or _found(await self._keyspace.get_many(request.keys))


def _owner(request: Driven) -> tuple[str, str]:
    return f"{request.cluster:x}", f"{request.node:x}"


def _told(carried: Carried, marks: Marks, stats: StoreStats, with_events: bool) -> Applied:
    """What a node is told of batches that were carried out."""
    events: list[Event] = []
    removed: list[tuple[int, list[str]]] = []
    if with_events:
        for batches in carried.done:
            events += batches.events
            removed += (batches.view.removed or {}).items()
    numbers = {event.index: number for number, event in enumerate(events)}

    def outcome(result: Result) -> Outcome | int | None:
        if isinstance(result, Event) and with_events:
            return numbers[result.index]
        return None if isinstance(result, Expired) else to_outcome(result)

    results = [None if each is None else [outcome(result) for result in each] for each in carried.answers]
    return Applied(marks, results, events, removed, stats)


def _found(results: list[Any]) -> Response:
    return Response(200, _MSGPACK, encode(Found([to_outcome(result) for result in results])))


def _failed(error: Exception) -> Response:
    """Nothing was done, or nobody knows: the node asks again, from where this service then is."""
    if isinstance(error, msgspec.MsgspecError):
        return _text(400, f"{APPLY}: {error}")
    if isinstance(error, BadSnapshot):
        return _text(400, f"{RESTORE}: {error}")
    if isinstance(error, StoreError):  # the store is another's, and will stay so: the node must not go on
        log.error("%s", error)
        return _text(403, str(error))
    if not isinstance(error, StoreUnavailable):
        log.error("a request of the node failed", exc_info=error)
    return _text(503, f"{type(error).__name__}: {error}")


def _text(status: int, text: str) -> Response:
    return Response(status, _TEXT, f"{text}\n".encode())
