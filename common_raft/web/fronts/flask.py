"""The API as a Flask application, for any WSGI server that answers each request in a thread of its own."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from flask import Flask, Response, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from common_raft.web import response as answers
from common_raft.web.api import Api
from common_raft.web.limits import Limits

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_TOO_LARGE = answers.Response(
    413, b"Content-Type: text/plain\r\n", b"413 Request Entity Too Large", close=True
)
_GONE = answers.Response(400, b"", b"", close=True)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
_STATUS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
#: What a path may hold unescaped.  Percent signs are escaped: the server has unescaped the path already.
_SAFE = "/!$&'()*+,;=:@~"


def application(api: Api, limits: Limits) -> Flask:
    """An application that answers every request, of whatever path and method, through ``api``.

    ``api`` must call back before ``handle`` returns, as it does over a node that blocks.
    """
    app = Flask("etcd_v2", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limits.body_bytes
    app.url_map.merge_slashes = False

    def endpoint(path: str = "") -> Response:  # noqa: ARG001
        environ = request.environ
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return _Ready(_TOO_LARGE)
        except ClientDisconnected:
            return _Ready(_GONE)  # nobody is there to read it
        content_type = environ.get("CONTENT_TYPE")
        encoded = content_type.encode("latin-1") if content_type else None
        answer: list[answers.Response] = []
        api.handle(environ["REQUEST_METHOD"], _target(environ), encoded, body, answer.append)
        return _Ready(answer[0])

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
        lines = answer.head.decode("latin-1").split("\r\n")
        headers = [(name, value) for name, _, value in [line.partition(": ") for line in lines[:-1]]]
        headers.append(("Content-Length", str(len(answer.body))))
        if answer.close:
            headers.append(("Connection", "close"))
        start_response(_STATUS[answer.status], headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]


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
