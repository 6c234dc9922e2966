"""One client of the native front: its requests are parsed, handled and answered in their order.

A connection's life, with what ends each wait in brackets:

    idle --first byte--> reading --last byte--> waiting --answer--> idle
    [limits.idle]        [limits.request]       [the node's own deadline]

Requests of one connection are answered in their order, whatever order their answers come in. While too many of them
wait, or the client does not take its answers, nothing more is read from it. Requests that the parser cannot read get
what Go's server says to them, and then the connection is closed.

An answer that is a ``Stream`` keeps its turn until it ends.  Its pieces are taken as the client takes them; it is
cancelled when the client sends its end, as by Go's server, or is gone.
"""

import asyncio
import logging
import re
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from common_raft.web.api import Respond
from common_raft.web.fronts.plain import MAX_BYTES, plain_request
from common_raft.web.response import BAD_REQUEST, Response
from common_raft.web.stream import Stream

if TYPE_CHECKING:
    from common_raft.web.fronts.native import NativeFront

log = logging.getLogger(__name__)

_STATUS_LINES = {
    version: {
        status.value: f"HTTP/{version} {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
    }
    for version in ("1.0", "1.1")
}
_STATUS_11 = _STATUS_LINES["1.1"]
#: What ends the header lines that every answer has, before the length.
LENGTH = b"Content-Length: "
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_METHODS = {name.encode(): name for name in ("GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS")}

# Headers that matter here, by the spellings seen in practice; others are looked up in lower case.
_CONTENT_TYPE, _HOST, _CONTENTLENGTH, _CONNECTION, _EXPECT, _AUTHORIZATION, _ENCODING = range(7)
_NAMES = (
    b"content-type", b"host", b"content-length", b"connection", b"expect", b"authorization", b"transfer-encoding",
)  # fmt: skip
_HEADERS = {spelling: kind for kind, name in enumerate(_NAMES) for spelling in (name, name.title())}
_HOST_VALUE = re.compile(rb"[0-9A-Za-z!$%&'()*+,\-.:;=\[\]_~]*").fullmatch
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\S+) HTTP/1\.[01]\r?\n")

_HIGH_BYTE = re.compile(rb"[\x80-\xff]")

_SLICE = MAX_BYTES  # bytes parsed between two looks at how many requests wait
_LINGER = 0.5  # seconds for which a refused client's bytes are still taken, and dropped


def _is_unknown(method: bytes) -> bool:
    try:
        httptools.HttpRequestParser(None).feed_data(method + b" ")
    except httptools.HttpParserInvalidMethodError:
        return True
    return False


def _refusal(status: str, text: str | None = None) -> bytes:
    """What Go's server says before it closes a connection on which it could not read a request."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    return (head + (text or status)).encode()


_Request = tuple[str, bytes, bytes | None, bytes, Respond, bytes | None]
_LAST_CHUNK = b"0\r\n\r\n"


class _Exchange:
    """A request whose answer is awaited, or not yet written, or a stream that has not ended."""

    __slots__ = ("connection", "keep_alive", "response", "silent", "stream", "version")

    def __init__(self, connection: "Connection", version: str, keep_alive: bool, silent: bool) -> None:
        self.connection: Connection | None = connection  # None: it is lost
        self.version = version
        self.keep_alive = keep_alive
        self.silent = silent  # HEAD: headers only
        self.response: Response | Stream | None = None
        self.stream: Stream | None = None  # one whose head is written

    def respond(self, response: Response | Stream) -> None:
        if self.connection is not None:
            self.response = response
            self.connection.flush()
        elif isinstance(response, Stream):
            response.cancel()

    def ready(self) -> None:
        """The stream has something to take."""
        if self.connection is not None:
            self.connection.pump()

    def abandon(self) -> None:
        """The connection is lost."""
        self.connection = None
        if self.stream is not None:
            self.stream.cancel()


class Connection(asyncio.Protocol):
    """One client. Invariant: ``queue`` holds the requests without a written answer, oldest first."""

    __slots__ = (
        "_authorization", "_backlog", "_blocked_bytes", "_body", "_body_bytes", "_content_type", "_deferred",
        "_draining", "_ended", "_expects", "_front", "_has_connection", "_header_bytes", "_hosts", "_in_body",
        "_last", "_owes_continue", "_parser", "_paused", "_pieces", "_reading", "_refusal", "_transport", "_url",
        "_write_blocked", "postponed", "queue", "since",
    )  # fmt: skip

    def __init__(self, front: "NativeFront") -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self.queue: deque[_Exchange] = deque()
        self.since = front.now  # when the present wait (for a request, for its rest, for writing) began
        self._backlog = b""  # received and not parsed, because too many requests wait
        self._deferred: deque[_Request] = (
            deque()
        )  # parsed; to be handled when the one before is answered and taken
        self._draining = False
        self.postponed = False  # more of the backlog is parsed when the front says so
        self._paused = False
        self._write_blocked = False
        self._blocked_bytes = 0  # that waited to be taken when this was last looked at
        self._last = False  # nothing after the request last read will be read
        self._ended = False  # the client has sent its end
        self._owes_continue = False
        self._refusal: bytes | None = None  # what to say, after what waits, before closing
        self._reading = False
        self._in_body = False
        self._header_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._content_type: bytes | None = None
        self._authorization: bytes | None = None
        self._hosts = 0
        self._has_connection = False
        self._expects = False
        self._body = b""
        self._pieces: list[bytes] = []  # of a body that came in more than one

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be checked with isinstance: uvloop's transports do not descend from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._front.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        for exchange in self.queue:
            exchange.abandon()
        self.queue.clear()
        self._deferred.clear()
        self._backlog = b""
        self._write_blocked = False
        self._last = True
        self._front.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._backlog:
            self._backlog += data
        elif len(data) > _SLICE or self._paused:
            self._backlog = data
            self._drain()
        elif self._reading or self.queue or self._last or (plain := plain_request(data)) is None:
            self._feed(data)
        else:
            self._take_plain(*plain)

    def eof_received(self) -> bool:
        """The client sends no more. Keep the connection until what it asked for is answered."""
        self._last = True
        self._ended = True
        self._reading = False
        if self.queue and self.queue[0].stream is not None:
            self.queue[0].stream.cancel()
        return bool(self.queue)

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._blocked_bytes = 0
        self.since = self._front.now
        self._pause()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self.since = self._front.now
        self.pump()
        self._resume()

    # -- back-pressure

    def _drain(self) -> None:
        """Parse what was received, as long as not too many requests wait."""
        self._draining = True
        while self._deferred and not self._write_blocked and len(self.queue) == len(self._deferred):
            try:
                self._front.api.handle(*self._deferred.popleft())
            except Exception:
                self._failed()
        data, parsed = self._backlog, 0
        while parsed < len(data) and not self._last and not self._is_full():
            self._feed(data[parsed : parsed + _SLICE])
            parsed += _SLICE
            if not (self._reading and self._in_body):
                break  # others first
        self._backlog = data[parsed:]
        self._draining = False
        if self._last:
            self._backlog = b""
        if self._is_full():
            self._pause()
        elif self._backlog:
            self._pause()
            self._front.postpone(self)

    def _is_full(self) -> bool:
        return self._write_blocked or len(self.queue) >= self._front.limits.pipelined

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """It is this connection's turn again."""
        self.postponed = False
        self._resume()

    def _resume(self) -> None:
        if self._draining:
            return  # answered while still being parsed: the loop there goes on by itself, and the parser cannot nest
        self._drain()
        if self._paused and not self._backlog and not self._is_full() and self._transport is not None:
            self._paused = False
            self.since = self._front.now
            self._transport.resume_reading()

    # -- parsing

    def _take_plain(self, method: str, target: bytes, content_type: bytes | None, body: bytes) -> None:
        """One request, all of it and no more, with nothing before it that waits."""
        front = self._front
        self.since = front.now
        if len(body) > front.limits.body_bytes:
            self._refuse("413 Request Entity Too Large")
            return
        exchange = _Exchange(self, "1.1", True, False)
        self.queue.append(exchange)
        try:
            front.api.handle(method, target, content_type, body, exchange.respond, None)
        except Exception:
            self._failed()

    def _feed(self, data: bytes) -> None:
        if self._last:
            return
        at_a_beginning = not self._reading
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._unreadable(data if at_a_beginning else b"", error)
        if self._reading and not self._in_body:
            self._header_bytes += len(data)
            if self._header_bytes > self._front.limits.header_bytes + _SLICE:
                self._refuse("431 Request Header Fields Too Large")
        if len(self.queue) >= self._front.limits.pipelined:
            self._pause()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """The request was read in full; etcd does not upgrade, so the rest is more HTTP."""
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self._feed(rest)

    def _unreadable(self, data: bytes, error: httptools.HttpParserError) -> None:
        """The parser is stricter than Go's server: help it where clients depend on that, refuse the rest.

        Help comes only if the request is the first in ``data``, and all there: nobody pipelines such things.
        """
        if self._last:
            return
        match = _REQUEST_LINE.match(data)
        if match is not None and isinstance(error, httptools.HttpParserInvalidMethodError):
            if _is_unknown(match[1]):
                self._answer_unknown(match[1].decode(), match[2])
                return
        elif match is not None and isinstance(error, httptools.HttpParserInvalidURLError):
            spelt = _HIGH_BYTE.sub(lambda high: b"%%%02X" % high[0][0], match[2])
            if spelt != match[2]:  # a path in UTF-8, not percent-encoded, as curl sends it
                self._begin()
                self._parser = httptools.HttpRequestParser(self)
                self._feed(match[1] + b" " + spelt + data[match.end(2) :])
                return
        self._refuse("400 Bad Request")

    def _answer_unknown(self, method: str, target: bytes) -> None:
        """A method that the parser does not know is answered from the request line; what follows is not read."""
        self._reading = False
        self._last = True
        exchange = _Exchange(self, "1.1", False, False)
        self._begin_or_defer(exchange, method, target, None, b"", None)

    def on_message_begin(self) -> None:
        self._reading = True
        self._in_body = False
        self._header_bytes = 0
        self.since = self._front.now

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        kind = _HEADERS.get(name)
        if kind is None:
            kind = _HEADERS.get(name.lower())
            if kind is None:
                return
        if self._in_body:  # a trailer
            return
        if kind == _HOST:
            self._hosts += 1
            if not _HOST_VALUE(value):
                self._refuse("400 Bad Request: malformed Host header")
        elif kind == _CONTENT_TYPE:
            if self._content_type is None:
                self._content_type = value
        elif kind == _CONTENTLENGTH:
            if len(value) > 18 or (value.isdigit() and int(value) > self._front.limits.body_bytes):
                self._refuse("413 Request Entity Too Large")
        elif kind == _CONNECTION:
            self._has_connection = True
        elif kind == _EXPECT:
            self._expect(value)
        elif kind == _AUTHORIZATION:
            if self._authorization is None:
                self._authorization = value
        elif value.lower() != b"chunked":
            self._refuse("501 Not Implemented", "Unsupported transfer encoding")

    def _expect(self, value: bytes) -> None:
        if value.lower() == b"100-continue":
            self._expects = True
        else:
            head = b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\n"
            self._refuse_with(head + self._front.date + b"0\r\n\r\n")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._body_bytes = 0
        if self._hosts != 1:
            self._check_hosts()
        if self._expects and not self._last:
            if self.queue:
                self._owes_continue = True
            else:
                self._write(_CONTINUE)

    def _check_hosts(self) -> None:
        if self._hosts > 1:
            self._refuse("400 Bad Request: too many Host headers")
        elif self._parser.get_http_version() == "1.1":
            self._refuse("400 Bad Request: missing required Host header")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._front.limits.body_bytes:
            self._refuse("413 Request Entity Too Large")
        elif self._pieces:
            self._pieces.append(body)
        elif self._body:
            self._pieces = [self._body, body]
        else:
            self._body = body

    def on_message_complete(self) -> None:
        self._reading = False
        self.since = self._front.now
        if self._last:
            return
        parser = self._parser
        keep_alive = parser.should_keep_alive()
        version = "1.1"
        if not keep_alive or self._has_connection:  # else it can be no other
            version = parser.get_http_version()
            if version not in _STATUS_LINES:
                self._refuse_version(version)
                return
        raw_method = parser.get_method()
        method = _METHODS.get(raw_method) or raw_method.decode("latin-1")
        exchange = _Exchange(self, version, keep_alive, method == "HEAD")
        if not keep_alive:
            self._last = True
        url, content_type, authorization = self._url, self._content_type, self._authorization
        body = b"".join(self._pieces) if self._pieces else self._body
        self._begin()
        self._begin_or_defer(exchange, method, url, content_type, body, authorization)

    def _begin_or_defer(
        self,
        exchange: _Exchange,
        method: str,
        target: bytes,
        content_type: bytes | None,
        body: bytes,
        authorization: bytes | None,
    ) -> None:
        """A request may rest on the one before it, a read on a write: it begins when that one is answered."""
        must_wait = bool(self.queue) or self._write_blocked
        self.queue.append(exchange)
        if must_wait:
            self._deferred.append((method, target, content_type, body, exchange.respond, authorization))
        else:
            try:
                self._front.api.handle(method, target, content_type, body, exchange.respond, authorization)
            except Exception:
                self._failed()

    def _failed(self) -> None:
        """A request was not handled, which is our own fault: end the connection, as Go's server does."""
        log.exception("a request failed")
        self._last = True
        self._deferred.clear()
        self.abort()

    def _refuse_version(self, version: str) -> None:
        if version == "0.9":
            self._refuse("400 Bad Request")
        else:
            self._refuse("505 HTTP Version Not Supported: unsupported protocol version")

    # -- answering

    def _refuse(self, status: str, text: str | None = None) -> None:
        """Say what Go's server says to a request that it cannot read, after all answers before it; then close."""
        self._refuse_with(_refusal(status, text))

    def _refuse_with(self, answer: bytes) -> None:
        if self._last:
            return
        self._last = True
        self._reading = False
        self._refusal = answer
        if not self.queue:
            self._finish()

    def flush(self) -> None:
        """Write all answers that are there and whose turn it is."""
        queue = self.queue
        while queue:
            exchange = queue[0]
            response = exchange.response
            if response is None:
                if self._deferred:
                    self._resume()
                return
            if isinstance(response, Stream):
                self._begin_stream(exchange, response)
                return
            queue.popleft()
            if exchange.version == "1.1" and exchange.keep_alive and not (exchange.silent or response.close):
                body = response.body
                self._write(
                    b"".join(
                        (
                            _STATUS_11[response.status],
                            response.head,
                            self._front.date,
                            b"%d\r\n\r\n" % len(body),
                            body,
                        )
                    )
                )
            else:
                self._write_unusual(exchange, response)
        self._flushed()

    def _begin_stream(self, exchange: _Exchange, stream: Stream) -> None:
        """Write the head, and what there is of the body; the exchange stays in the queue until the end."""
        exchange.response, exchange.stream = None, stream
        status = _STATUS_LINES[exchange.version][stream.status]
        lines = [status, stream.head, self._front.date[: -len(LENGTH)]]
        if exchange.version == "1.0":  # only the connection's end tells that of the body
            exchange.keep_alive = False
        else:
            if not exchange.keep_alive:
                lines.append(b"Connection: close\r\n")
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._write(b"".join(lines))
        stream.start(exchange.ready)
        if exchange.silent or self._ended or self._front.stopping:
            stream.cancel()  # which pumps
        else:
            self.pump()

    def pump(self) -> None:
        """Pass on what the stream whose turn it is has, if the client takes it."""
        stream = self.queue[0].stream if self.queue else None
        if stream is None or self._write_blocked:
            return
        exchange = self.queue[0]
        pieces, ended = stream.take()
        if exchange.version == "1.1":
            pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
            if ended:
                pieces.append(_LAST_CHUNK)
        if pieces and not exchange.silent:
            self._write(b"".join(pieces))
        if ended:
            self._end_stream(exchange, stream)

    def _end_stream(self, exchange: _Exchange, stream: Stream) -> None:
        exchange.stream = None
        self.queue.popleft()
        stream.cancel()  # nobody takes any more
        if not exchange.keep_alive:
            self._close_after_this()
        self.flush()

    def _write_unusual(self, exchange: _Exchange, response: Response) -> None:
        """An answer to HEAD or HTTP/1.0, or the last one of a connection."""
        if response is BAD_REQUEST:
            self._write(_refusal("400 Bad Request"))
            exchange.keep_alive = False
        else:
            exchange.keep_alive = exchange.keep_alive and not response.close
            self._write(self._assemble(exchange, response))
        if not exchange.keep_alive:
            self._close_after_this()

    def _close_after_this(self) -> None:
        self._last = True
        self.queue.clear()
        self._deferred.clear()

    def _assemble(self, exchange: _Exchange, response: Response) -> bytes:
        body = response.body
        lines = [_STATUS_LINES[exchange.version][response.status], response.head]
        if body or not exchange.silent:
            lines.append(self._front.date + b"%d\r\n" % len(body))
        else:  # Go gives no length for a HEAD to which no body would belong
            lines.append(self._front.date[: -len(LENGTH)])
        if exchange.keep_alive and exchange.version == "1.0":
            lines.append(b"Connection: keep-alive\r\n")
        elif not exchange.keep_alive and exchange.version == "1.1":
            lines.append(b"Connection: close\r\n")
        lines += (b"\r\n", b"" if exchange.silent else body)
        return b"".join(lines)

    def _flushed(self) -> None:
        """All is answered: go on reading, or close."""
        if self._refusal is not None or (self._last and not self._reading) or self._front.stopping:
            self._finish()
            return
        if self._owes_continue:
            self._owes_continue = False
            if self._reading:
                self._write(_CONTINUE)
        if self._paused:
            self._resume()

    def _finish(self) -> None:
        """Say the last words, if there are any, and close."""
        self._last = True
        if self._refusal is not None:
            self._write(self._refusal)
            self._refusal = None
            self._linger()
        elif self._transport is not None:
            self._transport.close()

    def _linger(self) -> None:
        """Close after the client's end, or in a moment: what was refused may still be on its way.

        To close while unread bytes come in makes the kernel reset the connection, and the client may lose the very
        answer that tells it why (Go's server waits, too: closeWriteAndWait).
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        if self._paused:
            self._paused = False
            transport.resume_reading()
        self._front.call_later(_LINGER, transport.close)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        # uvloop's write raises once the transport is closed.
        if transport is not None and not transport.is_closing():
            transport.write(data)

    # -- what the front calls

    def sweep(self, now: float) -> None:
        """End the connection if it has waited too long."""
        limits = self._front.limits
        # ``since`` may be as much too early as a sweep takes, and nobody is cut too early.
        waited = now - self.since - self._front.sweep_seconds
        if self._transport is not None and self._transport.is_closing():
            if waited > limits.write:  # it has not taken the last bytes
                self.abort()
        elif self._write_blocked:
            self._sweep_blocked(now)
        elif self._reading:
            if waited > limits.request and not self._paused:
                self._refuse("408 Request Timeout")
        elif not self.queue and waited > limits.idle:
            self._finish()

    def _sweep_blocked(self, now: float) -> None:
        """End the connection of a client that takes nothing; one that takes a little has time."""
        assert self._transport is not None
        size = self._transport.get_write_buffer_size()
        if size < self._blocked_bytes:
            self.since = now
        elif now - self.since - self._front.sweep_seconds > self._front.limits.write:
            self.abort()
        self._blocked_bytes = size

    def turn_away(self) -> None:
        """The front has as many connections as it may."""
        self._refuse("503 Service Unavailable", "503 Service Unavailable: too many connections")

    def stop(self) -> None:
        """Close now if nothing is under way, otherwise after the answers that are awaited; streams end."""
        if not self.queue:
            self._finish()
        elif self.queue[0].stream is not None:
            self.queue[0].stream.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
