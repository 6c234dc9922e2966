"""Plain requests are recognised as the parser reads them, whatever else comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from common_raft.web.fronts.connection import Connection
from common_raft.web.fronts.native import NativeFront
from common_raft.web.fronts.plain import MAX_BYTES, plain_request
from common_raft.web.limits import Limits

HOST = b"Host: 127.0.0.1:2379\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
GET = b"GET /v2/keys/a/b?quorum=true HTTP/1.1\r\n" + HOST + b"\r\n"
LENGTH = b"Content-Length: 7\r\n"


def put(*headers: bytes) -> bytes:
    return b"PUT /v2/keys/a HTTP/1.1\r\n" + b"".join(headers) + b"\r\nvalue=1"


PUT = put(HOST, FORM, LENGTH)

Call = tuple[str, bytes, bytes | None, bytes]


class Recording:
    """An API that notes what it is asked, and answers nothing."""

    wants_authorization = False

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def handle(self, method: str, target: bytes, kind: bytes | None, body: bytes, *_: object) -> None:
        self.calls.append((method, target, kind, body))


class Wire:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def parsed(data: bytes) -> tuple[list[Call], bytes]:
    """What the parser alone makes of it, and what is said at once."""

    async def scenario() -> tuple[list[Call], bytes]:
        api, wire = Recording(), Wire()
        connection = NativeFront(api, Limits()).connection()
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection._feed(data)
        return api.calls, wire.written

    return asyncio.run(scenario())


HEADERS = (
    HOST, FORM, b"Host: x\r\n", b"Host: \r\n", b"Host:x\r\n", b"host: x\r\n", b"Host: a b\r\n", b"Host: x \r\n",
    b"User-Agent: curl/8\r\n", b"Accept: */*\r\n", b"Accept-Encoding: gzip, deflate\r\n", b"Accept:\r\n",
    b"Accept: \r\n", b"Connection: keep-alive\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n",
    b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n", b"Authorization: Basic cm9vdDpy\r\n",
    b"Content-Length: 7\r\n", b"Content-Length: 07\r\n", b"Content-Length: 0\r\n", b"Content-Length: 8\r\n",
    b"Content-Length: +7\r\n", b"Content-Type: text/plain\r\n", b"Content-Type: a; b=c\r\n", b" folded\r\n",
    b"Accept: \x7f\r\n", b"Accept: \xff\r\n", b"Accept: a\nb\r\n", b"Cache-Control: no-cache\r\n", b"Bad Name: x\r\n",
)  # fmt: skip
TARGETS = (
    b"/v2/keys/a", b"/v2/keys", b"/v2/keysa", b"/v2/keys/%41?x=1&y", b"/v2/keys//", b"/v2/keys/a#b", b"/v2/keys/\xc3",
    b"/v2/keys/a b", b"/version", b"http://x/v2/keys/a", b"*", b"/v2/keys/..", b"/v2/keys/a?b?c",
)  # fmt: skip

requests = st.builds(
    lambda method, target, version, headers, end, body: (
        b" ".join((method, target, version)) + b"".join(headers) + end + body
    ),
    st.sampled_from((b"GET", b"GET", b"PUT", b"PUT", b"HEAD", b"DELETE", b"POST", b"get", b"GETT")),
    st.sampled_from(TARGETS),
    st.sampled_from((b"HTTP/1.1\r\n", b"HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"HTTP/1.1\n")),
    st.one_of(
        st.lists(st.sampled_from(HEADERS), max_size=5),
        st.lists(st.sampled_from(HEADERS), max_size=2).map(lambda more: [HOST, FORM, *more, LENGTH]),
        st.lists(st.sampled_from(HEADERS), max_size=1).flatmap(
            lambda more: st.permutations([HOST, FORM, LENGTH, *more])
        ),
        st.lists(st.sampled_from(HEADERS), max_size=2).map(lambda more: [HOST, *more]),
    ),
    st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n", b"")),
    st.sampled_from((b"", b"value=1", b"value=12", GET)),
)


@settings(max_examples=1000)
@given(requests)
@example(GET)
@example(PUT)
def test_what_is_recognised_is_what_the_parser_reads(data: bytes) -> None:
    plain = plain_request(data)
    event("plain" if plain else "not plain")
    if plain is not None:
        assert parsed(data) == ([plain], b"")


@pytest.mark.parametrize(
    "data",
    [
        GET,
        PUT,
        GET[:-2] + b"User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
        GET[:-2] + b"Accept-Encoding: identity\r\nConnection: keep-alive\r\n\r\n",
        PUT.replace(HOST, HOST + b"User-Agent: x\r\nAccept: */*\r\n").replace(FORM, FORM + b"Accept: y\r\n"),
        put(LENGTH, HOST, FORM),  # wrk
        put(HOST, b"User-Agent: curl/8.5.0\r\nAccept: */*\r\n", LENGTH, FORM),
        put(HOST, b"User-Agent: Go-http-client/1.1\r\n", LENGTH, FORM, b"Accept-Encoding: gzip\r\n"),
        put(
            HOST, b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n", LENGTH, FORM
        ),
    ],
)
def test_what_the_usual_clients_send_is_recognised(data: bytes) -> None:
    assert plain_request(data) is not None


@pytest.mark.parametrize(
    "data",
    [
        GET + b"G",
        GET[:-1],
        PUT + b"2",
        PUT[:-1],
        GET.replace(HOST, HOST + HOST),
        GET.replace(HOST, b""),
        GET[:-2] + b"Authorization: Basic cm9vdDpy\r\n\r\n",
        GET[:-2] + b"Connection: close\r\n\r\n",
        PUT.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked"),
        PUT.replace(b"Content-Length: 7", b"Content-Length: 7\r\nContent-Length: 7"),
        put(LENGTH, HOST, FORM, HOST),
        put(FORM, LENGTH, HOST, FORM),
        put(LENGTH, FORM),
        put(HOST, FORM),
        put(HOST, LENGTH),
        GET[:-2] + LENGTH + b"\r\n1234567",
        GET[:-2] + FORM + b"\r\n",
    ],
)
def test_what_asks_for_more_is_left_to_the_parser(data: bytes) -> None:
    assert plain_request(data) is None


def test_the_parser_is_spared_where_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        api = Recording()
        connection = NativeFront(api, Limits(body_bytes=6)).connection()
        wire = Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "_feed", lambda *_: pytest.fail("it was parsed"))
            connection.data_received(GET)
        connection.data_received(GET)  # the one before waits: this one, too
        assert len(api.calls) == 1
        connection = NativeFront(api, Limits(body_bytes=6)).connection()
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(GET[:30])
        connection.data_received(GET[30:])
        assert len(api.calls) == 2
        connection = NativeFront(api, Limits(body_bytes=6)).connection()
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(PUT)
        assert wire.written.startswith(b"HTTP/1.1 413 ")
        assert len(PUT) < MAX_BYTES

    asyncio.run(scenario())
