"""Streams through every front: an API that has pieces when the test says so."""

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from common_raft.tests.web_fixtures import (
    FLASK,
    FRONTS,
    Listening,
    Served,
    ask,
    listen,
    read_answer,
    read_until_closed,
    request_bytes,
    served_by,
    wait_for,
)
from common_raft.web import stream as stream_module
from common_raft.web.api import Respond
from common_raft.web.limits import Limits
from common_raft.web.response import NOT_FOUND, Response
from common_raft.web.stream import Stream

BUSY = Response(503, b"Content-Type: application/json\r\n", b'{"errorCode":300}\n')
PLAIN = Response(200, b"Content-Type: text/plain\r\n", b"plain")


class Source:
    """Answers /plain with text, /stream with a stream, /early with one that has a piece, /over with one that ends."""

    wants_authorization = False

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.released: list[Stream] = []

    def handle(
        self,
        method: str,
        target: bytes,
        content_type: bytes | None,
        body: bytes,
        respond: Respond,
        authorization: bytes | None = None,
    ) -> None:
        if target == b"/plain":
            respond(PLAIN)
        elif target in (b"/stream", b"/early", b"/over"):
            respond(self._stream(target))
        else:
            respond(NOT_FOUND)

    def _stream(self, target: bytes) -> Stream:
        stream = Stream()
        if target != b"/stream":
            stream.put(b"early\n")
        if target == b"/over":
            stream.end()
        stream.open(b"X-Etcd-Index: 7\r\n", lambda: self.released.append(stream), BUSY)
        self.streams.append(stream)
        return stream

    @property
    def open(self) -> int:
        return len(self.streams) - len(set(self.released))


class Fixture:
    def __init__(self, served: Served, source: Source) -> None:
        self.served, self.source = served, source

    def listen(self, target: str = "/stream") -> Listening:
        return listen(self.served, target)

    def put(self, *pieces: bytes, to: int = -1) -> None:
        """All in one turn."""
        stream = self.source.streams[to]

        def put() -> None:
            for piece in pieces:
                stream.put(piece)

        self.served.give(put)

    def end(self, which: int = -1) -> None:
        self.served.give(self.source.streams[which].end)


def fixture(front: str, limits: Limits | None = None) -> Iterator[Fixture]:
    served, source = served_by(front, limits), Source()
    served.api = source  # type: ignore[assignment]
    served.start()
    try:
        yield Fixture(served, source)
    finally:
        served.stop()


@pytest.fixture(params=FRONTS)
def streaming(request: pytest.FixtureRequest) -> Iterator[Fixture]:
    yield from fixture(request.param)


def test_the_head_goes_out_at_once_and_each_piece_when_it_is_there(streaming: Fixture) -> None:
    client = streaming.listen()
    assert (client.status, client.headers["x-etcd-index"]) == (200, "7")
    assert client.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in client.headers
    for line in (b"one\n", b"two\n", b"three\n"):
        streaming.put(line)
        assert client.line() == line


def test_pieces_that_are_there_already_come_with_the_head(streaming: Fixture) -> None:
    client = streaming.listen("/early")
    assert client.line() == b"early\n"
    streaming.put(b"late\n")
    assert client.line() == b"late\n"


def test_a_stream_that_is_over_before_it_begins_is_a_whole_answer(streaming: Fixture) -> None:
    assert streaming.served.ask("GET", "/over").body == b"early\n"


def test_the_connection_goes_on_when_a_stream_has_ended(streaming: Fixture) -> None:
    client = streaming.listen()
    streaming.put(b"one\n", b"two\n")
    streaming.end()
    assert client.rest() == b"one\ntwo\n"
    for _ in range(2):
        client.client.sendall(request_bytes("GET", "/plain"))
        assert read_answer(client.client).body == b"plain"
    client.client.sendall(request_bytes("GET", "/over"))
    assert read_answer(client.client).body == b"early\n"
    wait_for(lambda: streaming.source.open == 0)


def test_a_stream_to_http_1_0_lasts_as_long_as_its_connection(streaming: Fixture) -> None:
    with streaming.served.connect() as client:
        client.sendall(b"GET /stream HTTP/1.0\r\nHost: x\r\n\r\n")
        wait_for(lambda: streaming.source.streams)
        streaming.put(b"one\n", b"two\n")
        streaming.end()
        head, _, body = read_until_closed(client).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.[01] 200 ", head)
    assert b"transfer-encoding" not in head.lower()
    assert body == b"one\ntwo\n"


def test_the_client_may_ask_that_the_connection_ends_with_the_stream(streaming: Fixture) -> None:
    with streaming.served.connect() as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = Listening(client)
        assert answer.headers["connection"] == "close"
        streaming.put(b"one\n")
        streaming.end()
        assert answer.rest() == b"one\n"
        assert client.recv(1) == b""


def test_a_stream_whose_client_is_gone_is_freed_without_any_piece(streaming: Fixture) -> None:
    clients = [streaming.listen() for _ in range(3)]
    for client in clients[:2]:
        client.leave()
    wait_for(lambda: streaming.source.open == 1)
    streaming.put(b"still here\n")
    assert clients[2].line() == b"still here\n"


def test_a_client_that_ends_its_side_ends_its_stream(streaming: Fixture) -> None:
    client = streaming.listen()
    client.client.shutdown(socket.SHUT_WR)
    wait_for(lambda: streaming.source.open == 0)
    assert client.client.recv(100) in (b"", b"0\r\n\r\n")


def test_requests_behind_a_stream_are_answered_when_it_has_ended(streaming: Fixture) -> None:
    with streaming.served.connect() as client:
        client.sendall(request_bytes("GET", "/stream") + request_bytes("GET", "/plain"))
        wait_for(lambda: streaming.source.streams)
        streaming.put(b"one\n")
        time.sleep(0.1)
        streaming.put(b"two\n")
        streaming.end()
        data = b""
        while not data.endswith(b"plain"):
            data += client.recv(10_000)
    assert data.index(b"one\n") < data.index(b"two\n") < data.index(b"0\r\n\r\n") < data.index(b"plain")
    assert data.count(b"HTTP/1.1 200 ") == 2


def test_more_pieces_at_once_than_may_wait_reach_a_client_that_reads(streaming: Fixture) -> None:
    client = streaming.listen()
    lines = [b"%d %s\n" % (number, b"x" * 200) for number in range(2_000)]
    streaming.put(*lines)
    streaming.end()
    assert client.rest() == b"".join(lines)


def test_a_client_that_does_not_read_is_let_go_of(
    streaming: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "PATIENCE", 0.0)
    client = streaming.listen()
    count = 0

    def too_slow() -> bool:
        nonlocal count
        for _ in range(50):
            streaming.put(b"%d %s\n" % (count, b"x" * 20_000))
            count += 1
        return bool(streaming.source.released)

    wait_for(too_slow)
    lines = client.rest().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
    assert stream_module.UNREAD < len(lines) < count
    assert streaming.served.ask("GET", "/plain").body == b"plain"


def test_a_front_that_stops_ends_its_streams_cleanly(streaming: Fixture) -> None:
    clients = [streaming.listen() for _ in range(3)]
    streaming.put(b"one\n", to=0)
    assert clients[0].line() == b"one\n"
    streaming.served.stop()
    assert [client.rest() for client in clients] == [b"", b"", b""]
    assert [client.client.recv(1) for client in clients] == [b"", b"", b""]
    assert streaming.source.open == 0


@pytest.mark.parametrize("front", [front for front in FRONTS if front not in FLASK])
def test_a_thousand_streams_at_a_time_need_no_threads(front: str) -> None:
    for streaming in fixture(front):
        assert streaming.served.ask("GET", "/plain").status == 200
        threads = threading.active_count()
        clients = [streaming.listen() for _ in range(1_000)]
        assert threading.active_count() == threads

        def put_to_all(streams: list[Stream]) -> None:
            for stream in streams:
                stream.put(b"for all\n")

        streaming.served.give(lambda streams=streaming.source.streams: put_to_all(streams))  # type: ignore[misc]
        for client in clients:
            assert client.line() == b"for all\n"
        for client in clients:
            client.leave()
        wait_for(lambda: streaming.source.open == 0, 20)  # noqa: B023


@pytest.mark.parametrize("front", FLASK)
def test_streams_take_no_threads_from_plain_requests_and_too_many_are_refused(front: str) -> None:
    for streaming in fixture(front, Limits(threads=2, streams=4)):
        clients = [streaming.listen() for _ in range(4)]
        for _ in range(5):
            assert streaming.served.ask("GET", "/plain").body == b"plain"
        refused = streaming.served.ask("GET", "/stream")
        assert (refused.status, refused.body) == (503, BUSY.body)
        assert streaming.source.open == 4
        clients.pop().leave()
        wait_for(lambda: ask(streaming.served.port, "GET", "/over").status == 200)  # noqa: B023
        streaming.put(b"still here\n", to=0)
        assert clients[0].line() == b"still here\n"
