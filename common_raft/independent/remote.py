"""The keyspace of a node whose state a service keeps: what the node asks of it goes over HTTP.

What this end knows of the service is its last `Marks`.  Each request names them; when the service is elsewhere (it
was started anew, or finished a request of this node's earlier life), it refuses, and the node goes on from there.

A request is sent once.  What asks again is the node, with the same batches, and the service knows those.  Only pieces
of a snapshot are asked for, or sent, some times more: there are many, and one that got lost need not make all others
be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import TypeVar
from uuid import uuid4

import aiohttp
import msgspec

from common_raft.drivers.machine import Misplaced
from common_raft.keyspace import (
    Command,
    Event,
    Expired,
    Query,
    Result,
    StoreStats,
    StoreUnavailable,
    Watchers,
)
from common_raft.keyspace.commands import encode as encode_commands
from common_raft.keyspace.keyspace import Answers
from common_raft.keyspace.snapshot import ChunkDecoder, events_in
from common_raft.web.application_wire import (
    APPLY,
    CONTENT_TYPE,
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
    to_result,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds for one request, from looking the host up to the answer's last byte.
TIMEOUT = 3.0
#: For a request to put the first or the last piece: a database has to remove, or to write out, all that it has.
LONG_TIMEOUT = 30.0
#: How often a piece of a snapshot is asked for, or sent, until the service is taken for away.
ATTEMPTS = 3
#: Seconds between two of them.
PAUSE = 0.2
#: One for what is applied, and one each for what is read and for the snapshot that is taken meanwhile.
CONNECTIONS = 3

_OK, _ELSEWHERE = 200, 409


class ApplicationRefused(Exception):
    """The service will never take this: it is another node's, or none of ours.  The node must not go on."""


class RemoteKeyspace:
    """Stands where an `AsyncKeyspace` stands, in the running loop."""

    #: The service's own number is found out when it is asked for the first time.
    applied = 0

    def __init__(self, url: str, cluster_id: int, node_id: int) -> None:
        self._url = url
        self._ids = (cluster_id, node_id)
        self._marks = Marks("", 0, 0)
        self.watchers = Watchers(0, time.time_ns)
        self._stats = StoreStats()
        self._seen = 0  # the furthest entry that a service was at: one that has less must not be read
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": CONTENT_TYPE},
        )

    async def close(self) -> None:
        await self._session.close()

    @property
    def index(self) -> int:
        """The etcd index, as the service last told it."""
        return self._marks.index

    @property
    def expires(self) -> int | None:
        """No key expires before this, as the service last told it; None: none has a ttl."""
        return self._marks.expires

    @property
    def stats(self) -> StoreStats:
        """The service's counters, as it last told them, and the watchers here."""
        return msgspec.structs.replace(self._stats, watchers=self.watchers.count)

    def encode(self, commands: Sequence[Command]) -> bytes:
        return encode_commands(commands)

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """Has the service apply batches.

        Raises StoreUnavailable when it does not answer, Misplaced when it is not where this end believed it to be,
        and ApplicationRefused.
        """
        marks = self._marks
        known = list(batches) if marks.instance else []  # else it will only say where it is
        request = Apply(*self._ids, marks.instance, marks.applied, applied, known, events=True)
        status, body = await self._post(APPLY, encode(request))
        if status == _ELSEWHERE:
            self._marks = self._decoded(APPLY, body, Marks)
            self._catch_up([], {})
            raise Misplaced(self._marks.applied)
        answer = self._decoded(APPLY, body, Applied)
        self._marks = answer.marks
        self._seen = max(self._seen, answer.marks.applied)
        if answer.stats is not None:
            self._stats = answer.stats
        self._catch_up(answer.events, dict(answer.removed))
        return _results(answer)

    def _catch_up(self, events: Sequence[Event], removed: Mapping[int, Sequence[str]]) -> None:
        """Tells watchers what they do not know yet: a service that was started anew is given the rest once more."""
        known = self.watchers.index
        if events and events[0].index <= known:
            events = [event for event in events if event.index > known]
        if events and events[0].index == known + 1:
            self.watchers.publish(events, removed)
        elif self._marks.index > known:  # what lies in between nobody can tell
            self.watchers.reset(self._marks.index, events)

    async def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        """Answers several reads with one request.  Raises StoreUnavailable, also if there is less than before."""
        marks = self._marks
        if not marks.instance:
            raise StoreUnavailable(f"application {self._url} was not reached yet")
        if marks.applied < self._seen:
            raise StoreUnavailable(
                f"application {self._url} was restarted, and has {marks.applied} of {self._seen} entries again"
            )
        try:
            status, body = await self._post(READ, encode(Read(marks.instance, list(queries))))
            if status == _ELSEWHERE:
                raise StoreUnavailable(f"application {self._url} was restarted, and is behind")
            return [to_result(outcome) for outcome in self._decoded(READ, body, Found).outcomes]
        except ApplicationRefused as error:
            raise StoreUnavailable(str(error)) from None

    async def snapshot(self, applied: int) -> RemoteSnapshot:
        """The state that the service has, if it is at ``applied``.

        Raises StoreUnavailable, also if it is elsewhere, and ApplicationRefused; and so does the snapshot.
        """
        snapshot = RemoteSnapshot(self, self._marks.instance, applied)
        await snapshot.begin()
        return snapshot

    async def restore(self, chunks: AsyncIterable[bytes]) -> None:
        """Has the service start from a snapshot; does nothing if it is there already.

        Raises StoreUnavailable, also when it was started anew in between, Misplaced when it is further on,
        ApplicationRefused, BadSnapshot and whatever ``chunks`` raises.
        """
        following = aiter(chunks)
        first = await anext(following, b"")
        _, applied = ChunkDecoder().begin(first)
        name, number = uuid4().hex, 0
        chunk: bytes | None = first
        history: list[Event] = []
        is_there = False
        while chunk is not None and not is_there:
            history += events_in(chunk)
            next_chunk = await anext(following, None)
            is_there = await self._put(applied, name, number, chunk, last=next_chunk is None)
            chunk, number = next_chunk, number + 1
        self._seen = max(self._seen, self._marks.applied)
        if self._marks.index > self.watchers.index:
            self.watchers.reset(self._marks.index, history)

    async def _put(self, applied: int, name: str, number: int, chunk: bytes, *, last: bool) -> bool:
        """Sends one piece, the first to whatever instance is there; returns whether that is at ``applied`` now."""
        timeout = LONG_TIMEOUT if last or number == 0 else TIMEOUT
        while True:
            instance = self._marks.instance
            request = PutPiece(*self._ids, instance, applied, name, number, chunk, last)
            status, body = await self._post_piece(RESTORE, encode(request), timeout)
            self._marks = self._decoded(RESTORE, body, Marks)
            if self._marks.applied > applied:
                raise Misplaced(self._marks.applied)
            if status == _OK or self._marks.applied == applied:
                return self._marks.applied == applied
            if number > 0 or instance == self._marks.instance:
                raise StoreUnavailable(
                    f"application {self._url} did not go on with piece {number} of a snapshot"
                )

    async def _piece(self, request: TakePiece) -> Piece:
        """One piece of the service's state.  Raises StoreUnavailable and ApplicationRefused."""
        status, body = await self._post_piece(SNAPSHOT, encode(request), TIMEOUT)
        if status == _ELSEWHERE:
            raise StoreUnavailable(
                f"application {self._url} has no piece {request.number} of its state at entry {request.applied}"
            )
        return self._decoded(SNAPSHOT, body, Piece)

    async def _post_piece(self, path: str, body: bytes, timeout: float) -> tuple[int, bytes]:
        """`_post`, some times if need be: a service knows what it was asked last."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._post(path, body, timeout)
            except StoreUnavailable as error:
                log.info("%s; trying again", error)
            await asyncio.sleep(PAUSE)
        return await self._post(path, body, timeout)

    async def _post(self, path: str, body: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        seconds = TIMEOUT if timeout is None else timeout
        try:
            async with self._session.post(
                self._url + path, data=body, timeout=aiohttp.ClientTimeout(total=seconds)
            ) as response:
                answer = await response.read()
        except TimeoutError:
            raise StoreUnavailable(f"application {self._url} did not answer within {seconds:g} s") from None
        except aiohttp.ClientResponseError:
            raise StoreUnavailable(
                f"application {self._url} gives no HTTP answer: "
                "--application takes what the service has as --listen-application-urls"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"application {self._url}: {_said(error)}") from None
        if response.status in (_OK, _ELSEWHERE):
            return response.status, answer
        text = f"application {self._url}: {response.status} {answer[:500].decode(errors='replace').strip()}"
        raise (StoreUnavailable if response.status >= 500 else ApplicationRefused)(text)

    def _decoded(self, path: str, body: bytes, kind: type[T]) -> T:
        try:
            return decode(body, kind)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ApplicationRefused(
                f"application {self._url}: the answer to {path} is not a service's: {error}"
            ) from None


def _said(error: Exception) -> str:
    """An error in words: aiohttp's for a connection that ended meanwhile has neither a number nor a reason."""
    if isinstance(error, aiohttp.ClientOSError) and error.errno is None:
        return "closed the connection before it was asked"
    return str(error) or type(error).__name__


def _results(answer: Applied) -> Answers:
    def result(outcome: Outcome | int | None) -> Result:
        if outcome is None:
            return Expired([])
        return answer.events[outcome] if isinstance(outcome, int) else to_result(outcome)

    return [None if each is None else [result(outcome) for outcome in each] for each in answer.results]


class RemoteSnapshot:
    """A service's state as it was when this began, as chunks: see `RemoteKeyspace.snapshot`."""

    def __init__(self, keyspace: RemoteKeyspace, instance: str, applied: int) -> None:
        self._keyspace = keyspace
        self._next = TakePiece(*keyspace._ids, instance, applied, uuid4().hex, 0)
        self._first: Piece | None = None
        self._ended = False

    async def begin(self) -> None:
        """Finds out whether the service is where it should be."""
        self._first = await self._ask()

    def __aiter__(self) -> RemoteSnapshot:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            piece, self._first = self._first, None
        elif self._ended:
            raise StopAsyncIteration
        else:
            piece = await self._ask()
        return piece.data

    async def _ask(self) -> Piece:
        piece = await self._keyspace._piece(self._next)
        self._next = msgspec.structs.replace(self._next, number=self._next.number + 1)
        self._ended = piece.last
        return piece

    def close(self) -> None:
        """Asks for nothing more: the service lets go of its state by itself."""
        self._ended, self._first = True, None
