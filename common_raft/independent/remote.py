"""The keyspace of a node whose state a service keeps: what the node asks of it goes over HTTP.

What this end knows of the service is its last `Marks`.  Each request names them; when the service is elsewhere (it
was started anew, or finished a request of this node's earlier life), it refuses, and the node goes on from there.

A request is sent once.  What asks again is the node, with the same batches, and the service knows those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import aiohttp
import msgspec

from common_raft.drivers.machine import Misplaced
from common_raft.keyspace import Command, Result, StoreUnavailable
from common_raft.keyspace.commands import encode as encode_commands
from common_raft.keyspace.keyspace import Answers
from common_raft.web.application_wire import (
    APPLY,
    CONTENT_TYPE,
    READ,
    Applied,
    Apply,
    Found,
    Marks,
    Read,
    decode,
    encode,
    to_result,
)

T = TypeVar("T")

#: Seconds for one request, from looking the host up to the answer's last byte.
TIMEOUT = 3.0
#: One for what is applied, and one for what is read meanwhile.
CONNECTIONS = 2

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
        self._seen = 0  # the furthest entry that a service was at: one that has less must not be read
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": CONTENT_TYPE},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )

    async def close(self) -> None:
        await self._session.close()

    @property
    def index(self) -> int:
        """The etcd index, as the service last told it."""
        return self._marks.index

    def encode(self, commands: Sequence[Command]) -> bytes:
        return encode_commands(commands)

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """Has the service apply batches.

        Raises StoreUnavailable when it does not answer, Misplaced when it is not where this end believed it to be,
        and ApplicationRefused.
        """
        marks = self._marks
        known = list(batches) if marks.instance else []  # else it will only say where it is
        request = Apply(*self._ids, marks.instance, marks.applied, applied, known)
        status, body = await self._post(APPLY, encode(request))
        if status == _ELSEWHERE:
            self._marks = self._decoded(APPLY, body, Marks)
            raise Misplaced(self._marks.applied)
        answer = self._decoded(APPLY, body, Applied)
        self._marks = answer.marks
        self._seen = max(self._seen, answer.marks.applied)
        return [None if each is None else [to_result(outcome) for outcome in each] for each in answer.results]

    async def get_many(self, keys: Sequence[str]) -> list[Result]:
        """Reads several keys with one request.  Raises StoreUnavailable, also if there is less than before."""
        marks = self._marks
        if not marks.instance:
            raise StoreUnavailable(f"application {self._url} was not reached yet")
        if marks.applied < self._seen:
            raise StoreUnavailable(
                f"application {self._url} was restarted, and has {marks.applied} of {self._seen} entries again"
            )
        try:
            status, body = await self._post(READ, encode(Read(marks.instance, list(keys))))
            if status == _ELSEWHERE:
                raise StoreUnavailable(f"application {self._url} was restarted, and is behind")
            return [to_result(outcome) for outcome in self._decoded(READ, body, Found).outcomes]
        except ApplicationRefused as error:
            raise StoreUnavailable(str(error)) from None

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        try:
            async with self._session.post(self._url + path, data=body) as response:
                answer = await response.read()
        except TimeoutError:
            raise StoreUnavailable(f"application {self._url} did not answer within {TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"application {self._url}: {error or type(error).__name__}") from None
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
