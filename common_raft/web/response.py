"""From results to HTTP responses, byte for byte etcd's.

A response holds its header lines as one block of bytes, in etcd's order, so that a front which writes bytes itself
has nothing to assemble; other fronts ask for ``headers()``. Date, Content-Length and Connection are the fronts'
business.
"""

from msgspec import Struct

from common_raft.keyspace import EtcdError, Event, Node
from common_raft.web.golang import escape_html, json_text

_CORS = (
    b"Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
    b"Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
)
_JSON = b"Content-Type: application/json\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


class Response(Struct, frozen=True, gc=False):
    """Status, header block (each line ended by CRLF) and body.

    ``close`` marks the answers after which Go's server ends the connection, as it does for requests it cannot read.
    """

    status: int
    head: bytes
    body: bytes
    close: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header block as names, in lower case, and values."""
        pairs = [line.split(b": ", 1) for line in self.head.split(b"\r\n")[:-1]]
        return [(name.lower(), value) for name, value in pairs]


BAD_REQUEST = Response(400, _TEXT, b"400 Bad Request", close=True)
BAD_STAR = Response(400, _CORS, b"", close=True)
EMPTY = Response(200, _CORS, b"")
NOT_FOUND = Response(404, _CORS + _TEXT + _NOSNIFF, b"404 page not found\n")
HEALTHY = Response(200, _CORS + _TEXT, b'{"health":"true","reason":""}')


def json_response(body: bytes) -> Response:
    """200 with JSON that is not about keys."""
    return Response(200, _CORS + _JSON, body)


def method_not_allowed(allow: bytes) -> Response:
    head = _CORS + b"Allow: " + allow + b"\r\n" + _TEXT + _NOSNIFF
    return Response(405, head, b"Method Not Allowed\n")


def unhealthy(reason: str) -> Response:
    body = f'{{"health":"false","reason":"{json_text(reason)}"}}\n'
    return Response(503, _CORS + _TEXT + _NOSNIFF, body.encode())


def redirect(method: str, location: str) -> Response:
    """301, with a body for those who GET it (net/http's Redirect)."""
    head, body = b"", b""
    if method in ("GET", "HEAD"):
        head = b"Content-Type: text/html; charset=utf-8\r\n"
    if method == "GET":
        body = f'<a href="{escape_html(location)}">Moved Permanently</a>.\n\n'.encode()
    return Response(301, _CORS + head + b"Location: " + location.encode("latin-1") + b"\r\n", body)


class KeyResponses:
    """Responses about keys, which carry the cluster's id."""

    __slots__ = ("_head",)

    def __init__(self, cluster_id: int) -> None:
        # Text until the whole is put together: formatting bytes is three times as slow.
        self._head = f"{(_CORS + _JSON).decode()}X-Etcd-Cluster-Id: {cluster_id:x}\r\nX-Etcd-Index: "

    def event(self, event: Event, raft_index: int, raft_term: int, terse: bool = False) -> Response:
        """A success. With ``terse`` only the action of a write is told."""
        action = event.action
        previous = event.prev_node
        if terse and action != "delete":
            body = f'{{"action":"{action}"}}\n'
        else:
            node = event.node
            key = json_text(node.key)
            shown = _node(key, node)
            if previous is None:
                body = f'{{"action":"{action}","node":{shown}}}\n'
            else:
                body = f'{{"action":"{action}","node":{shown},"prevNode":{_node(key, previous)}}}\n'
        head = f"{self._head}{event.index}\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {raft_term}\r\n"
        return Response(201 if event.created else 200, head.encode(), body.encode())

    def error(self, error: EtcdError) -> Response:
        cause = f'"cause":"{json_text(error.cause)}",' if error.cause else ""
        body = f'{{"errorCode":{error.code:d},"message":"{error.message}",{cause}"index":{error.index}}}\n'
        return Response(error.status, f"{self._head}{error.index}\r\n".encode(), body.encode())


def _node(key: str, node: Node) -> str:
    """A node, its key already escaped."""
    value = node.value
    indexes = f'"modifiedIndex":{node.modified_index},"createdIndex":{node.created_index}}}'
    if value is None:
        return f'{{"key":"{key}",{indexes}'
    return f'{{"key":"{key}","value":"{json_text(value)}",{indexes}'
