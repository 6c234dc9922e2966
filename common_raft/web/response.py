"""From results to HTTP responses, byte for byte etcd's.

A response holds its header lines as one block of bytes, in etcd's order, so that a front which writes bytes itself
has nothing to assemble; other fronts ask for ``headers()``. Date, Content-Length and Connection are the fronts'
business.
"""

import time
from collections.abc import Callable

from msgspec import Struct

from common_raft.keyspace import EtcdError, Event, Tree
from common_raft.web.golang import escape_html, json_text
from common_raft.web.listing import listed

_CORS = (
    b"Access-Control-Allow-Headers: accept, content-type, authorization\r\n"
    b"Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
)
_JSON = b"Content-Type: application/json\r\n"
_TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"
#: The actions of which noValueOnSuccess leaves only the name (writeKeyEvent in v2http/client.go).
_TERSE = frozenset(("set", "create", "update", "compareAndSwap"))


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
        return header_pairs(self.head)


def header_pairs(head: bytes) -> list[tuple[bytes, bytes]]:
    """A header block as names, in lower case, and values."""
    pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[:-1]]
    return [(name.lower(), value) for name, value in pairs]


BAD_REQUEST = Response(400, _TEXT, b"400 Bad Request", close=True)
BAD_STAR = Response(400, _CORS, b"", close=True)
EMPTY = Response(200, _CORS, b"")
#: To OPTIONS on no path, which Go's server answers before any handler.
EMPTY_STAR = Response(200, b"", b"")
NOT_FOUND = Response(404, _CORS + _TEXT + _NOSNIFF, b"404 page not found\n")
NOT_LEADER = Response(403, _CORS + _JSON, b'{"message":"not current leader"}')
HEALTHY = Response(200, _CORS + _TEXT, b'{"health":"true","reason":""}')


def json_response(body: bytes) -> Response:
    """200 with JSON that is not about keys."""
    return Response(200, _CORS + _JSON, body)


def json_error(status: int, message: str) -> Response:
    """An error in the words of etcd's HTTP layer, for what is not about keys."""
    return Response(status, _CORS + _JSON, f'{{"message":"{json_text(message)}"}}'.encode("utf-8", "replace"))


def prometheus(body: bytes) -> Response:
    """200 with metrics in Prometheus' text format."""
    return Response(200, _CORS + b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", body)


def plain(text: str) -> Response:
    """200 with text."""
    return Response(200, _CORS + _TEXT, text.encode("utf-8", "replace"))


def json_of_cluster(status: int, cluster_id: int, body: str) -> Response:
    """JSON about the members."""
    head = _CORS + _JSON + _of_cluster(cluster_id)
    return Response(status, head, body.encode("utf-8", "replace"))


def no_content(cluster_id: int) -> Response:
    return Response(204, _CORS + _of_cluster(cluster_id), b"")


def method_not_allowed_of_cluster(cluster_id: int) -> Response:
    """For a change of members that names none: without the Allow header that all others have."""
    return Response(405, _CORS + _TEXT + _NOSNIFF + _of_cluster(cluster_id), b"Method Not Allowed\n")


def _of_cluster(cluster_id: int) -> bytes:
    return f"X-Etcd-Cluster-Id: {cluster_id:x}\r\n".encode()


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
    """Responses about keys, which carry the cluster's id.

    ``clock`` (nanoseconds since 1970) says what is left of a ttl.
    """

    __slots__ = ("_clock", "_head", "_last", "_last_head")

    def __init__(self, cluster_id: int, clock: Callable[[], int] = time.time_ns) -> None:
        # Text until the whole is put together: formatting bytes is three times as slow.
        self._head = f"{(_CORS + _JSON).decode()}X-Etcd-Cluster-Id: {cluster_id:x}\r\nX-Etcd-Index: "
        self._clock = clock
        self._last: tuple[Event | None, bytes] = None, b""
        self._last_head: tuple[tuple[int, int, int], bytes] = (-1, -1, -1), b""

    def event(self, event: Event, raft_index: int, raft_term: int, terse: bool = False) -> Response:
        """A success. With ``terse`` only the action of a write is told."""
        body = f'{{"action":"{event.action}"}}\n' if terse and event.action in _TERSE else self._text(event)
        head = self.head(event.index, raft_index, raft_term)
        return Response(201 if event.created else 200, head, body.encode())

    def head(self, index: int, raft_index: int, raft_term: int) -> bytes:
        """The header block of a success at etcd index ``index``.  Many reads between two writes have the same."""
        marks, head = self._last_head
        if marks != (index, raft_index, raft_term):
            text = f"{self._head}{index}\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {raft_term}\r\n"
            head = text.encode()
            self._last_head = (index, raft_index, raft_term), head
        return head

    def watched(self, event: Event) -> bytes:
        """An event as a piece of a watch's body.  Many watchers may ask for one event, one after another."""
        last, piece = self._last
        if event is not last:
            piece = self._text(event).encode()
            self._last = event, piece
        return piece

    def error(self, error: EtcdError, status: int = 0) -> Response:
        """``status``: in place of the error's own."""
        cause = f'"cause":"{json_text(error.cause)}",' if error.cause else ""
        body = f'{{"errorCode":{error.code:d},"message":"{error.message}",{cause}"index":{error.index}}}\n'
        return Response(status or error.status, f"{self._head}{error.index}\r\n".encode(), body.encode())

    def _text(self, event: Event) -> str:
        """Nearly all are about files that stay, and quicker in one piece."""
        node, previous = event.node, event.prev_node
        value = node.value
        if value is None or node.expiration is not None:
            return self._listed(event)
        key = json_text(node.key)
        if previous is None:
            return (
                f'{{"action":"{event.action}","node":{{"key":"{key}","value":"{json_text(value)}",'
                f'"modifiedIndex":{node.modified_index},"createdIndex":{node.created_index}}}}}\n'
            )
        before = previous.value
        if before is None or previous.expiration is not None:
            return self._listed(event)
        return (
            f'{{"action":"{event.action}","node":{{"key":"{key}","value":"{json_text(value)}",'
            f'"modifiedIndex":{node.modified_index},"createdIndex":{node.created_index}}},'
            f'"prevNode":{{"key":"{key}","value":"{json_text(before)}",'
            f'"modifiedIndex":{previous.modified_index},"createdIndex":{previous.created_index}}}}}\n'
        )

    def _listed(self, event: Event) -> str:
        """The same for any event."""
        now = event.seen or self._clock()
        shown = listed(Tree(event.node, list(event.nodes or ())), now)
        if event.prev_node is None:
            return f'{{"action":"{event.action}","node":{shown}}}\n'
        before = listed(Tree(event.prev_node), now)
        return f'{{"action":"{event.action}","node":{shown},"prevNode":{before}}}\n'
