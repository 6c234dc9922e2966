"""Any bytes at all, over a socket, to every front: no failure inside, no hang, nothing left behind.

What a server makes of HTTP that is not well-formed is its own; these are the things that none may do.
"""

import errno
import gc
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common_raft.tests.web_fixtures import FRONTS, Served, connect, read_until_closed, serving, wait_for
from common_raft.web.limits import Limits

LIMITS = Limits(
    header_bytes=16_384, body_bytes=20_000, idle=1.0, request=2.0, write=2.0, pipelined=8, threads=8
)
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
#: Requests with an answer each.
SOUND = (
    b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PUT /v2/keys/fuzz/a?ttl=1 HTTP/1.1\r\nHost: x\r\n" + FORM + b"Content-Length: 7\r\n\r\nvalue=1",
    b"POST /v2/keys/fuzz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"GET /v2/keys/fuzz?recursive=true&quorum=true HTTP/1.1\r\nHost: x\r\nX-Other: y\r\n\r\n",
    b"DELETE /v2/keys/fuzz?recursive=true HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS /v2/members HTTP/1.1\r\nHost: x\r\n\r\n",
)
WATCH = b"GET /v2/keys/nothing?wait=true HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /v2/keys/nothing?wait=true&stream=true&recursive=true HTTP/1.1\r\nHost: x\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
#: For how long a client that has closed its end looks for more from a server that need not close.
SILENCE = 0.2


class Talk(NamedTuple):
    """Sound requests, then other bytes, sent in pieces; and how the client leaves."""

    sound: bytes
    answers: int
    junk: bytes
    cuts: list[int]
    leaving: str


def sound_requests() -> st.SearchStrategy[tuple[bytes, int]]:
    return st.lists(st.sampled_from(SOUND), max_size=3).map(lambda some: (b"".join(some), len(some)))


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A request that was sound, with bytes missing, doubled, changed or put in."""
    data = draw(st.sampled_from((*SOUND, WATCH, STREAM)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        data = data[:start] + draw(st.one_of(BITS, st.just(data[start:stop] * 2), st.just(b""))) + data[stop:]
    return data


BITS = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        (
            b"\r\n",
            b"\n",
            b"\r",
            b"\x00",
            b" ",
            b"\t",
            b":",
            b"\r\n\r\n",
            b"%zz",
            b"%00",
            b"..",
            b"\xff\xfe",
            b"-1",
            b"f" * 20,
        )
    ),
)
LINE = st.one_of(
    st.sampled_from(
        (
            b"GET /v2/keys/a HTTP/1.1", b"GET  /v2/keys/a  HTTP/1.1", b"GET /v2/keys/a", b"GET /v2/keys/a HTTP/2.0",
            b"get /v2/keys/a HTTP/1.1", b"GET http://y/v2/keys/a HTTP/1.1", b"GET * HTTP/1.1",
            b"CONNECT y:1 HTTP/1.1",
            b"PUT /v2/keys/a?value=%F HTTP/1.1", b"PRI * HTTP/2.0", b"POST /v2/members HTTP/1.1",
            b"\x16\x03\x01\x02\x00",
            b"GET /v2/keys/a HTTP/1.0", b"GET /" + b"a" * 3000 + b" HTTP/1.1", b"GET /\xc3\xbc HTTP/1.1",
        )
    ),
    st.binary(max_size=20),
)  # fmt: skip
HEADER = st.one_of(
    st.sampled_from(
        (
            b"Host: x", b"Host: x\r\nHost: y", b"Host: \xff", b"Content-Length: 5", b"Content-Length: -1",
            b"Content-Length: 5, 5", b"Content-Length: 99999999999999999999999", b"Content-Length:",
            b"Content-Length: 0x5",
            b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding : chunked", b"Transfer-Encoding: \x0bchunked", b"Connection: close",
            b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c",
            b"Expect: 100-continue", b"Expect: x", b" folded: y", b"No-Colon", b": no name", b"X: \x00",
            b"X: " + b"y" * 20_000,
            b"Authorization: Basic !!!", b"Content-Type: \xff", b"Content-Type: a/b; c=\"", FORM[:-2],
        )
    ),
    st.binary(max_size=20),
)  # fmt: skip
BODY = st.one_of(
    st.sampled_from(
        (
            b"", b"value=1", b"5\r\nvalue\r\n0\r\n\r\n", b"5\nvalue\n0\n\n", b"ffffffffffffffffff\r\n",
            b"-1\r\n", b"5;a=b\r\nvalue\r\n0\r\n\r\n",
            b"5\r\nvalueXX0\r\n\r\n", b"0\r\nTrailer: y\r\n\r\n", b"0\r\n" + b"T: y\r\n" * 3000,
            b"1\r\na\r\n" * 500,
            b"{\"peerURLs\":", b"x" * 30_000,
        )
    ),
    st.binary(max_size=40),
)  # fmt: skip


@st.composite
def composed(draw: st.DrawFn) -> bytes:
    """A request of parts, most of which are wrong."""
    lines = [draw(LINE), *draw(st.lists(HEADER, max_size=4))]
    return draw(st.sampled_from((b"\r\n", b"\n"))).join([*lines, b"", b""]) + draw(BODY)


PIECE = st.sampled_from(
    (
        b"/v2/keys", b"/v2/members", b"/v2/stats/leader", b"/v2/machines", b"/metrics", b"/health", b"/version", b"/",
        b"//", b"/a", b"/_h", b"/..", b"/.", b"%2F", b"%00", b"%0a", b"%zz", b"%", b"%ff", b"\xc3\xbc", b"?", b"&",
        b"=", b";", b"+", b"value", b"ttl",
        b"dir", b"recursive", b"sorted", b"wait", b"waitIndex", b"stream", b"quorum",
        b"prevExist", b"prevValue", b"prevIndex", b"refresh", b"noValueOnSuccess", b"true", b"false", b"0", b"1",
        b"-1", b"18446744073709551615", b"18446744073709551616", b"9" * 5000, b"a" * 600,
    )
)  # fmt: skip
PIECES = st.lists(PIECE, max_size=8).map(b"".join)
METHOD = st.sampled_from((b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"))


@st.composite
def asked_for(draw: st.DrawFn) -> bytes:
    """Well-formed HTTP that asks for anything."""
    begins = draw(st.sampled_from((b"/v2/keys", b"/v2/keys/a", b"/v2/members/", b"")))
    body = draw(st.one_of(PIECES, st.binary(max_size=20)))
    head = draw(METHOD) + b" " + begins + draw(PIECES) + b" HTTP/1.1\r\nHost: x\r\n"
    form = draw(st.sampled_from((b"", FORM, b"Content-Type: application/json\r\n")))
    return head + form + b"Content-Length: %d\r\n\r\n" % len(body) + body


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    sound, answers = draw(sound_requests())
    other = (st.binary(max_size=60), st.sampled_from((WATCH, STREAM, b"")))
    junk = draw(st.one_of(asked_for(), changed(), composed(), *other))
    cuts = draw(st.lists(st.integers(0, len(sound) + len(junk)), max_size=4))
    return Talk(sound, answers, junk, sorted(cuts), draw(st.sampled_from(("half", "close", "reset"))))


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param, LIMITS) as served:
        yield served


class _Errors(logging.Handler):
    """Keeps what is logged as an error, in any thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


def converse(served: Served, talk: Talk) -> bytes:
    """Says all of it; returns what was answered, as far as the client stays to hear it."""
    data, heard = talk.sound + talk.junk, b""
    with connect(served.port, timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for start, stop in zip([0, *talk.cuts], [*talk.cuts, len(data)], strict=True):
                client.sendall(data[start:stop])
            if talk.leaving == "half":
                client.shutdown(socket.SHUT_WR)
                heard = hear(client, closes=served.front == "native")
            elif talk.leaving == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise  # the server may have closed at what it has read so far
    return heard


def hear(client: socket.socket, *, closes: bool) -> bytes:
    """Everything until the server closes, or, if it need not, is silent."""
    if closes:
        return read_until_closed(client)
    client.settimeout(SILENCE)
    pieces = []
    try:
        while piece := client.recv(1 << 16):
            pieces.append(piece)
    except TimeoutError:
        pass
    return b"".join(pieces)


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(heard)]


def still_answers(served: Served) -> None:
    assert served.ask("GET", "/version").status == 200


@pytest.mark.thorough
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(talk=talks())
def test_no_bytes_make_a_front_fail_or_stop_answering(front: Served, talk: Talk) -> None:
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    try:
        found = statuses(converse(front, talk))
        still_answers(front)
    finally:
        logging.getLogger().removeHandler(handler)
    assert 500 not in found
    assert not handler.records
    if talk.leaving == "half" and front.front == "native":
        assert len([status for status in found if status != 100]) >= talk.answers


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def everything(served: Served) -> list[Talk]:
    """One talk for each kind of bad byte and each way to leave.

    Other servers than the native front look no further while a request waits behind one that is answered: they find
    out that such a watch's client has gone when they have something to say to it.
    """
    behind_a_watch = [STREAM * 3, WATCH + SOUND[0]] if served.front == "native" else []
    return [
        Talk(SOUND[0], 1, junk, [5, len(SOUND[0]) + 1], leaving)
        for leaving in ("half", "close", "reset")
        for junk in (
            b"", b"\x00", b"GET", b"GET / HTTP/1.1\r\n\r\n", b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", WATCH,
            STREAM, *behind_a_watch,
            SOUND[1][:-3], SOUND[2][:-4], SOUND[3] * 20,
            b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n",
            b"GET /version HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000, b"\x16\x03\x01",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        )
    ]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("name", FRONTS)
def test_nothing_is_left_of_those_who_have_gone(name: str) -> None:
    """Descriptors, threads and watchers are given back, and objects do not become more."""

    def all_of_it() -> tuple[int, int]:
        for talk in everything(served):
            converse(served, talk)
        still_answers(served)
        wait_for(lambda: served.node.keyspace.watchers.count == 0)
        wait_for(lambda: descriptors() <= before, 20)
        gc.collect()
        return threading.active_count(), len(gc.get_objects())

    with serving(name, LIMITS) as served:
        still_answers(served)
        time.sleep(LIMITS.idle + 1)  # what an earlier front has left is over
        before = descriptors() + 1  # one may be just on its way
        all_of_it()  # pools have their threads now, and caches are filled
        threads, objects = all_of_it()
        for _ in range(2):
            now_threads, now_objects = all_of_it()
    assert now_threads <= threads + LIMITS.threads  # which a pool makes as it needs them
    assert now_objects < objects + 500


def test_a_watch_with_more_behind_it_is_freed_by_the_next_events_at_the_latest(front: Served) -> None:
    for more in (b"\t", WATCH):
        converse(front, Talk(STREAM + more, 1, b"", [len(STREAM)], "close"))

    def freed_by_an_event() -> bool:
        front.ask("PUT", "/v2/keys/nothing/a", "value=1")
        return front.node.keyspace.watchers.count == 0

    wait_for(freed_by_an_event)


def test_a_request_may_be_split_at_every_byte(front: Served) -> None:
    for request in SOUND:
        for cut in range(1, len(request)):
            with connect(front.port) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(request[:cut])
                client.sendall(request[cut:])
                assert client.recv(15)[:12] in (
                    b"HTTP/1.1 200", b"HTTP/1.1 201", b"HTTP/1.1 404", b"HTTP/1.1 403", b"HTTP/1.1 400",
                    b"HTTP/1.1 411",
                )  # fmt: skip


# --- two readings of one request --------------------------------------------------------------------------------

INNER = b"PUT /v2/keys/smuggled?value=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


CHUNKED = b"POST /v2/keys/dir HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def with_chunked(*headers: bytes) -> bytes:
    """A chunked body that holds another request, with headers that may hide that it is chunked."""
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER)
    return b"POST /v2/keys/dir HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body


#: The inner request is in the body by the one reading that the standard permits (RFC 9112, 6.3), or by none.
HIDDEN = {
    "chunked and a length": with_chunked(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "a length and chunked": with_chunked(b"Transfer-Encoding: chunked", b"Content-Length: 4"),
    "chunked, spelt otherwise": with_chunked(b"Content-Length: 4", b"tRANSFER-eNCODING: CHUNKED"),
    "a space before the colon": with_chunked(b"Content-Length: 4", b"Transfer-Encoding : chunked"),
    "two codings in two lines": with_chunked(
        b"Content-Length: 4", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"
    ),
    "a length with a sign": with_chunked(b"Content-Length: +4"),
    "two lengths": with_chunked(b"Content-Length: 4", b"Content-Length: 200"),
    "two lengths in one": with_chunked(b"Content-Length: 4, 200"),
    "a length that is hexadecimal": with_chunked(b"Content-Length: 0x4"),
    "a coding that nobody knows": with_chunked(b"Content-Length: 4", b"Transfer-Encoding: xchunked"),
    "a coding behind a tab": with_chunked(b"Content-Length: 4", b"Transfer-Encoding:\tchunked"),
    "a folded coding": with_chunked(b"Content-Length: 4", b"Transfer-Encoding:\r\n chunked"),
    "a chunk with a sign": CHUNKED + b"+0\r\n\r\n" + INNER,
    "a chunk's size that overflows": CHUNKED + b"10000000000000000\r\n\r\n" + INNER,
}  # fmt: skip


@pytest.mark.parametrize("shape", HIDDEN)
def test_no_request_is_found_within_another(front: Served, shape: str) -> None:
    converse(front, Talk(HIDDEN[shape], 1, b"", [], "half"))
    still_answers(front)
    assert front.ask("GET", "/v2/keys/smuggled").status == 404
