"""The API as a Starlette application, for any ASGI server."""

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from common_raft.web import response as answers
from common_raft.web.api import Api
from common_raft.web.fronts.relay import relay
from common_raft.web.limits import Limits
from common_raft.web.stream import Stream, Streams

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_TOO_LARGE = b"413 Request Entity Too Large"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")


def application(api: Api, limits: Limits, streams: Streams | None = None) -> Starlette:
    """An application that answers every request, of whatever path and method, through ``api``.

    ``streams`` is where it keeps the streams that are under way, for whoever stops it.
    """
    streams = Streams() if streams is None else streams

    async def endpoint(request: Request) -> Response:
        try:
            body = await _read(request, limits.body_bytes)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if body is None:
            return Response(_TOO_LARGE, 413, {"connection": "close"}, "text/plain")
        answer = await _ask(api, request, body)
        return _Streamed(answer, streams) if isinstance(answer, Stream) else _render(answer)

    async def unrouted(request: Request, _error: Exception) -> Response:
        """For what the route does not match: unheard-of methods, line breaks in the path. The API has an answer."""
        return await endpoint(request)

    return Starlette(
        routes=[Route("/{path:path}", endpoint, methods=list(_METHODS))],
        exception_handlers={404: unrouted, 405: unrouted},
    )


class _Streamed(Response):
    def __init__(self, stream: Stream, streams: Streams) -> None:
        self._stream = stream
        self._streams = streams

    async def __call__(self, _scope: "Scope", receive: "Receive", send: "Send") -> None:
        await relay(self._stream, self._streams, receive, send)


async def _ask(api: Api, request: Request, body: bytes) -> answers.Response | Stream:
    future: asyncio.Future[answers.Response | Stream] = asyncio.get_running_loop().create_future()

    def respond(response: answers.Response | Stream) -> None:
        if not future.done():  # cancelled when the client has gone
            future.set_result(response)
        elif isinstance(response, Stream):
            response.cancel()

    scope = request.scope
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    content_type = _header(request, "content-type")
    authorization = _header(request, "authorization") if api.wants_authorization else None
    api.handle(request.method, target, content_type, body, respond, authorization)
    try:
        return await future
    except asyncio.CancelledError:
        if not future.cancelled():  # an answer, too late
            respond(future.result())
        raise


def _header(request: Request, name: str) -> bytes | None:
    value = request.headers.get(name)
    return None if value is None else value.encode("latin-1")


async def _read(request: Request, limit: int) -> bytes | None:
    """The whole body; None if it is larger than ``limit`` bytes."""
    body = b""
    async for chunk in request.stream():
        body = body + chunk if body else chunk
        if len(body) > limit:
            return None
    return body


def _render(answer: answers.Response) -> Response:
    headers = answer.headers()
    headers.append((b"content-length", b"%d" % len(answer.body)))
    if answer.close:
        headers.append((b"connection", b"close"))
    response = Response(answer.body, answer.status)
    response.raw_headers = headers  # as they are: Starlette would add a charset and lengths of its own
    return response
