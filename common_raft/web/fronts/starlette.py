"""The API as a Starlette application, for any ASGI server."""

import asyncio

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from common_raft.web import response as answers
from common_raft.web.api import Api
from common_raft.web.limits import Limits

_TOO_LARGE = b"413 Request Entity Too Large"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")


def application(api: Api, limits: Limits) -> Starlette:
    """An application that answers every request, of whatever path and method, through ``api``."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _read(request, limits.body_bytes)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        if body is None:
            return Response(_TOO_LARGE, 413, {"connection": "close"}, "text/plain")
        return _render(await _ask(api, request, body))

    async def unrouted(request: Request, _error: Exception) -> Response:
        """For what the route does not match: unheard-of methods, line breaks in the path. The API has an answer."""
        return await endpoint(request)

    return Starlette(
        routes=[Route("/{path:path}", endpoint, methods=list(_METHODS))],
        exception_handlers={404: unrouted, 405: unrouted},
    )


async def _ask(api: Api, request: Request, body: bytes) -> answers.Response:
    future: asyncio.Future[answers.Response] = asyncio.get_running_loop().create_future()

    def respond(response: answers.Response) -> None:
        if not future.done():  # cancelled when the client has gone
            future.set_result(response)

    scope = request.scope
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    content_type = request.headers.get("content-type")
    encoded = None if content_type is None else content_type.encode("latin-1")
    api.handle(request.method, target, encoded, body, respond)
    return await future


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
