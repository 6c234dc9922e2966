"""The API as a Flask application, for any WSGI server that answers each request in a thread of its own."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from common_raft.web import response as answers
from common_raft.web.api import Api
from common_raft.web.limits import Limits
from common_raft.web.stream import Stream, Streams

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_TOO_LARGE = answers.Response(
    413, b"Content-Type: text/plain\r\n", b"413 Request Entity Too Large", close=True
)
_GONE = answers.Response(400, b"", b"", close=True)
_LENGTH_REQUIRED = answers.Response(411, b"Content-Type: text/plain\r\n", b"411 Length Required", close=True)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
#: What a path may hold unescaped.  Percent signs are escaped: the server has unescaped the path already.
_SAFE = "/!$&'()*+,;=:@~"
#: Seconds after which an empty piece asks a server whether the client is still there: WSGI has no other way.
_PROBE = 1.0


def application(
    api: Api, limits: Limits, streams: Streams | None = None, *, chunks_are_whole: bool = True
) -> Flask:
    """An application that answers every request, of whatever path and method, through ``api``.

    ``api`` must call back before ``handle`` returns, as it does over a node that blocks.  ``streams`` is where it
    keeps the streams that are under way, for whoever stops it, and has their limit.  ``chunks_are_whole``: the server
    tells of a body in chunks that broke off; else such bodies are refused.
    """
    streams = Streams(limits.streams) if streams is None else streams
    app = Flask("etcd_v2", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limits.body_bytes
    app.url_map.merge_slashes = False

    def endpoint(path: str = "") -> Response:  # noqa: ARG001
        environ = request.environ
        if not chunks_are_whole and "HTTP_TRANSFER_ENCODING" in environ:
            return _Ready(_LENGTH_REQUIRED)
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return _Ready(_TOO_LARGE)
        except ClientDisconnected:
            return _Ready(_GONE)  # nobody is there to read it
        if len(body) < (request.content_length or 0):
            return _Ready(_GONE)  # the same; not every server says so
        content_type = environ.get("CONTENT_TYPE")
        encoded = content_type.encode("latin-1") if content_type else None
        authorization = environ.get("HTTP_AUTHORIZATION")
        answered: list[answers.Response | Stream] = []
        api.handle(
            environ["REQUEST_METHOD"],
            _target(environ),
            encoded,
            body,
            answered.append,
            None if authorization is None else authorization.encode("latin-1"),
        )
        answer = answered[0]
        if not isinstance(answer, Stream):
            return _Ready(answer)
        if streams.add(answer):
            return _Streamed(answer, streams)
        answer.cancel()
        return _Ready(answer.instead)

    def unrouted(_error: Exception) -> Response:
        """For what the route does not match: unheard-of methods, line breaks in the path. The API has an answer."""
        return endpoint()

    app.add_url_rule("/<path:path>", "endpoint", endpoint, methods=_METHODS, provide_automatic_options=False)
    app.register_error_handler(404, unrouted)
    app.register_error_handler(405, unrouted)
    return app


class _Ready(Response):
    """An answer whose headers are complete; Werkzeug would assemble them anew, which doubles the cost of a GET."""

    def __init__(self, answer: answers.Response) -> None:
        self._answer = answer

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        answer = self._answer
        headers = _headers(answer.head)
        headers.append(("Content-Length", str(len(answer.body))))
        if answer.close:
            headers.append(("Connection", "close"))
        start_response(_STATUS[answer.status], headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]


class _Streamed(Response):
    def __init__(self, stream: Stream, streams: Streams) -> None:
        self._stream = stream
        self._streams = streams

    def __call__(self, _environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response(_STATUS[self._stream.status], _headers(self._stream.head))
        return Pieces(self._stream, self._streams)


class Pieces(Iterator[bytes]):
    """A stream as the body of a WSGI response: the thread that asks for the next piece waits until there is one.

    Some pieces are empty, which a server that passes them on finds out by whether the client is gone.
    """

    def __init__(self, stream: Stream, streams: Streams) -> None:
        self.stream = stream
        self._streams = streams
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._more = threading.Event()
        self._more.set()
        stream.start(self._more.set)

    def __next__(self) -> bytes:
        if not self._pieces:
            if self._ended:
                raise StopIteration
            self._more.wait(_PROBE)
            self._more.clear()
            pieces, self._ended = self.stream.take()
            self._pieces.extend(pieces)
        return self._pieces.popleft() if self._pieces else b""

    def close(self) -> None:
        """Nobody asks for more."""
        self._streams.discard(self.stream)
        self.stream.cancel()


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    return [(name, value) for name, _, value in [line.partition(": ") for line in lines[:-1]]]


def _target(environ: "WSGIEnvironment") -> bytes:
    """The request's target as it was sent, where the server tells it."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is not None:
        target: str = raw
    else:
        target = quote(environ["PATH_INFO"], _SAFE, encoding="latin-1")
        if environ["QUERY_STRING"]:
            target += "?" + environ["QUERY_STRING"]
    return target.encode("latin-1")
