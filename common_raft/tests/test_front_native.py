"""The native front, byte by byte: framing, order, limits, deadlines, and whatever else arrives on a socket."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common_raft.tests.web_fakes import FakeNode
from common_raft.tests.web_fixtures import (
    Served,
    free_port,
    read_answer,
    read_until_closed,
    serving,
    wait_for,
)
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.fronts import native
from common_raft.web.fronts.native import NativeFront
from common_raft.web.limits import Limits
from common_raft.web.stream import Stream

GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
VERSION = b'{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}'
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
QUORUM = b"GET /v2/keys/a?quorum=true HTTP/1.1\r\nHost: x\r\n\r\n"
WATCH = b"GET /v2/keys/a?wait=true&stream=true HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /v2/keys/a?value=1 HTTP/1.1\r\nHost: x\r\n\r\n"


def refusal(status: str, text: str | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    return (head + (text or status)).encode()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("native", Limits(header_bytes=20_000, body_bytes=1000, pipelined=8)) as running:
        yield running


def talk(served: Served, data: bytes) -> bytes:
    """Everything that is answered to ``data`` until the server closes; the connection is half-closed after it."""
    with served.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_until_closed(client)


def without_dates(data: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]+", b"Date: now", data)


# -- framing


def test_a_stream_of_requests_may_be_split_anywhere(served: Served) -> None:
    stream = (
        b"GET /v2/keys/none?x=%41 HTTP/1.1\r\nHost: x\r\nX-Other: y\r\n\r\n"
        b"PUT /v2/keys/none?prevExist=true HTTP/1.1\r\nhost: x\r\nContent-type: application/x-www-form-urlencoded\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nval\r\n4;x=y\r\nue=1\r\n0\r\nExpect: nothing\r\n\r\n"
        b"DELETE /v2/keys/none HTTP/1.1\r\nHOST: x\r\nContent-Length: 3\r\n\r\nabc" + LAST
    )
    whole = without_dates(talk(served, stream))
    assert whole.count(b"HTTP/1.1 404 Not Found") == 3
    assert whole.endswith(VERSION)
    for cut in range(1, len(stream)):
        with served.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(stream[:cut])
            time.sleep(0.0005)
            client.sendall(stream[cut:])
            assert without_dates(read_until_closed(client)) == whole, f"split at {cut}"


def test_one_byte_at_a_time_is_enough(served: Served) -> None:
    with served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in LAST:
            client.sendall(bytes([byte]))
        assert read_until_closed(client).endswith(VERSION)


def test_http_1_0_closes_unless_asked_not_to(served: Served) -> None:
    once = talk(served, b"GET /version HTTP/1.0\r\n\r\nGET /version HTTP/1.0\r\n\r\n")
    assert once.startswith(b"HTTP/1.0 200 OK\r\n")
    assert once.count(VERSION) == 1
    assert b"Connection:" not in once
    keep = b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert talk(served, keep + keep).count(b"\r\nConnection: keep-alive\r\n\r\n" + VERSION) == 2


def test_nothing_is_read_after_connection_close(served: Served) -> None:
    answer = talk(served, LAST + GET)
    assert answer.count(VERSION) == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_head_has_the_length_and_not_the_body(served: Served) -> None:
    answer = talk(served, b"HEAD /v2/keys/none HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
    assert re.match(
        rb"HTTP/1.1 404 Not Found\r\n(.*\r\n)*Content-Length: \d\d\r\n\r\nHTTP/1.1 200 OK\r\n", answer
    )


def test_an_upgrade_is_not_made_and_the_connection_goes_on(served: Served) -> None:
    upgrade = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert talk(served, upgrade + LAST).count(VERSION) == 2


def test_the_client_is_told_to_go_on_before_it_sends_the_body(served: Served) -> None:
    with served.connect() as client:
        client.sendall(
            b"PUT /v2/keys/none?prevExist=true HTTP/1.1\r\nHost: x\r\n" + FORM + b"Expect: 100-continue\r\n"
            b"Content-Length: 7\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"value=1")
        assert read_answer(client).status == 404


def test_the_client_is_told_to_go_on_only_after_earlier_answers(served: Served) -> None:
    served.node.held = []
    with served.connect() as client:
        client.sendall(
            QUORUM
            + b"PUT /v2/keys/none?prevExist=true HTTP/1.1\r\nHost: x\r\n"
            + FORM
            + b"Expect: 100-continue\r\n"
            b"Content-Length: 7\r\n\r\n"
        )
        wait_for(lambda: served.node.held)
        held, served.node.held = served.node.held, None
        served.give(held[0])
        data = b""
        while not data.endswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            data += client.recv(1000)
        assert data.startswith(b"HTTP/1.1 404")


def test_other_expectations_fail(served: Served) -> None:
    answer = talk(served, b"GET /version HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n" + GET)
    assert answer.startswith(b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\n")
    assert VERSION not in answer


# -- what cannot be read


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"garbage\r\n\r\n", refusal("400 Bad Request")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", refusal("400 Bad Request")),  # a TLS client
        (b"GET /version\r\n\r\n", refusal("400 Bad Request")),
        (b"GET /version HTTP/1.1\r\n\r\n", refusal("400 Bad Request: missing required Host header")),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", refusal("400 Bad Request: too many Host headers")),
        (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", refusal("400 Bad Request: malformed Host header")),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", refusal("400 Bad Request")),
        (b"GET /v2/keys/%zz HTTP/1.1\r\nHost: x\r\n\r\n", refusal("400 Bad Request")),
        (b"GET nothing HTTP/1.1\r\nHost: x\r\n\r\n", refusal("400 Bad Request")),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", refusal("400 Bad Request")),
        (b"F@O / HTTP/1.1\r\nHost: x\r\n\r\n", refusal("400 Bad Request")),
        (
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            refusal("505 HTTP Version Not Supported: unsupported protocol version"),
        ),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", refusal("400 Bad Request")),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            refusal("400 Bad Request"),
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            refusal("400 Bad Request"),
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            refusal("501 Not Implemented", "Unsupported transfer encoding"),
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n",
            refusal("413 Request Entity Too Large"),
        ),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 19, b""),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n",
            refusal("413 Request Entity Too Large"),
        ),
        (
            b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
            refusal("413 Request Entity Too Large"),
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000,
            refusal("431 Request Header Fields Too Large"),
        ),
        (b"GET /" + b"x" * 40_000, refusal("431 Request Header Fields Too Large")),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 8_000, refusal("431 Request Header Fields Too Large")),
    ],
)
def test_what_cannot_be_read_is_refused_as_by_go(served: Served, data: bytes, answer: bytes) -> None:
    assert talk(served, data) == answer
    before = talk(served, GET + data)  # the answer before it is not lost
    assert before.endswith(VERSION + answer)


def test_an_unknown_method_after_another_request_does_not_repeat_that(served: Served) -> None:
    answer = talk(served, GET + b"FOO /version HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(VERSION) == 1
    assert answer.endswith(refusal("400 Bad Request"))


def test_a_refusal_waits_for_the_answers_before_it(served: Served) -> None:
    served.node.held = []
    with served.connect() as client:
        client.sendall(QUORUM + b"garbage\r\n\r\n")
        wait_for(lambda: served.node.held)
        held, served.node.held = served.node.held, None
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        served.give(held[0])
        answer = read_until_closed(client)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.endswith(refusal("400 Bad Request"))


# -- order and back-pressure


def test_answers_go_out_in_the_order_of_requests(served: Served) -> None:
    for i in range(5):
        served.ask("PUT", f"/v2/keys/k{i}", f"value={i}")
    served.node.held = []
    with served.connect() as client:
        requests = [b"GET /v2/keys/k%d?quorum=true HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(5)]
        client.sendall(b"".join(requests) + LAST)
        wait_for(lambda: served.node.held)
        time.sleep(0.05)
        assert len(served.node.held) == 1  # the next begins when this one is answered
        served.give(served.node.release)
        answers = read_until_closed(client)
    served.node.held = None
    assert re.findall(rb'"value":"(\d)"', answers) == [b"0", b"1", b"2", b"3", b"4"]
    assert answers.endswith(VERSION)


def test_a_read_pipelined_behind_a_write_sees_the_write(served: Served) -> None:
    served.node.held = []
    put = b"PUT /v2/keys/piped?value=new HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    get = b"GET /v2/keys/piped HTTP/1.1\r\nHost: x\r\n\r\n"
    with served.connect() as client:
        client.sendall(put + get + LAST)
        wait_for(lambda: served.node.held)
        served.give(served.node.release)
        answers = read_until_closed(client)
    served.node.held = None
    assert b'{"action":"get","node":{"key":"/piped","value":"new"' in answers
    assert answers.endswith(VERSION)


def test_only_so_many_requests_of_a_connection_wait_and_none_is_lost(served: Served) -> None:
    count = 2000
    served.node.held = []
    with served.connect() as client:
        client.sendall(QUORUM * count + LAST)
        wait_for(lambda: served.node.held)
        time.sleep(0.1)
        waiting = len(served.node.held)
        assert waiting <= 8 + 8192 // len(QUORUM) + 1
        done = False

        def release() -> None:
            nonlocal done
            held, served.node.held = served.node.held, None
            for answer in held or []:
                answer()
            done = True

        served.give(release)
        answers = read_until_closed(client)
    assert done
    assert answers.count(b"HTTP/1.1 404") == count
    assert answers.endswith(VERSION)


def test_a_client_that_takes_nothing_is_read_no_further() -> None:
    with serving("native", Limits(pipelined=8)) as served:
        served.ask("PUT", "/v2/keys/a", "value=" + "x" * 100_000)
        calls = 0
        read = served.node.keyspace.read
        request = b"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n"
        count = 300

        class Counting:
            index = 1

            def read(self, key: str, done: object) -> None:
                nonlocal calls
                calls += 1
                read(key, done)

        served.api._keyspace = Counting()
        with served.connect() as client:
            client.sendall(request * count)
            time.sleep(0.3)
            assert 0 < calls < 100
            client.sendall(LAST)
            answers = read_until_closed(client)
        assert answers.count(b"HTTP/1.1 200 OK") == count + 1
        assert answers.endswith(VERSION)


def test_a_half_closed_client_still_gets_its_answer(served: Served) -> None:
    served.node.held = []
    with served.connect() as client:
        client.sendall(QUORUM)
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: served.node.held)
        time.sleep(0.05)
        held, served.node.held = served.node.held, None
        served.give(held[0])
        assert read_until_closed(client).startswith(b"HTTP/1.1 404")


def test_a_watch_whose_turn_comes_when_its_client_has_ended_ends_at_once(served: Served) -> None:
    served.node.held = []
    with served.connect() as client:
        client.sendall(QUORUM + WATCH + GET)
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: served.node.held)
        time.sleep(0.05)
        held, served.node.held = served.node.held, None
        served.give(held[0])
        answers = read_until_closed(client)
    assert answers.startswith(b"HTTP/1.1 404")
    assert b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK" in answers
    assert answers.endswith(VERSION)
    assert served.node.keyspace.watchers.count == 0


def test_an_empty_stream_to_head_has_no_body(served: Served) -> None:
    def handle(*request: object) -> None:
        respond = request[4]
        assert callable(respond)
        respond(Stream())

    with serving("native") as other:
        other.api.handle = handle  # type: ignore[method-assign, assignment]
        answer = talk(other, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"Transfer-Encoding: chunked\r\n\r\n")


def test_a_client_that_ends_in_the_middle_of_a_request_is_not_kept(served: Served) -> None:
    assert talk(served, b"GET /version HTT") == b""
    assert talk(served, GET + b"GET /version HTT").endswith(VERSION)
    served.node.held = []
    with served.connect() as client:
        client.sendall(QUORUM + b"GET /version HTT")
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: served.node.held)
        time.sleep(0.05)
        held, served.node.held = served.node.held, None
        served.give(held[0])
        assert read_until_closed(client).startswith(b"HTTP/1.1 404")


def test_more_connections_than_allowed_are_turned_away() -> None:
    with serving("native", Limits(connections=3)) as served:
        clients = [served.connect() for _ in range(3)]
        for client in clients:
            client.sendall(GET)
            assert read_answer(client).status == 200
        with served.connect() as client:
            assert read_until_closed(client) == refusal(
                "503 Service Unavailable", "503 Service Unavailable: too many connections"
            )
        clients.pop().close()
        wait_for(lambda: served.ask("GET", "/version").status == 200)
        for client in clients:
            client.close()


def test_who_was_let_in_just_before_the_front_stops_is_told_nothing() -> None:
    """A refusal would be an answer, and one that has nothing to do with what was asked."""

    async def scenario() -> None:
        node = FakeNode()
        front = await native.start([("127.0.0.1", port)], EtcdV2(node, node.keyspace), Limits())
        front.stopping = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        await front.close()

    port = free_port()
    asyncio.run(scenario())


# -- deadlines


def test_slow_idle_and_deaf_clients_are_cut_and_waiting_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeFront, "sweep_seconds", 0.1)
    with serving("native", Limits(idle=0.4, request=0.4, write=0.4)) as served:
        served.ask("PUT", "/v2/keys/a", "value=" + "x" * 200_000)
        idle, slow, trickling, deaf, waiting = (served.connect() for _ in range(5))
        idle.sendall(GET)
        assert read_answer(idle).status == 200
        slow.sendall(b"GET /version HTT")
        trickling.sendall(b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        deaf.sendall(b"GET /v2/keys/a HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        served.node.held = []
        waiting.sendall(QUORUM)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                trickling.sendall(b"x")
            except OSError:
                pass
            time.sleep(0.05)
        assert read_until_closed(idle) == b""
        assert read_until_closed(slow) == refusal("408 Request Timeout")
        assert read_until_closed(trickling) in (refusal("408 Request Timeout"), b"")
        assert read_until_closed(deaf).count(b"HTTP/1.1 200 OK") < 100
        wait_for(lambda: served.node.held)
        held, served.node.held = served.node.held, None
        served.give(held[0])
        assert read_answer(waiting).status == 200
        for client in (idle, slow, trickling, deaf, waiting):
            client.close()


# -- any bytes at all


class FakeTransport(asyncio.Transport):
    """Raises, like uvloop's, when written to after it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.ended = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        assert not self.closed, "written to a closed transport"
        assert not self.ended, "written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


LINES = st.sampled_from(
    [
        GET,
        LAST,
        QUORUM,
        WATCH,
        PUT,
        b"PUT /v2/keys/a HTTP/1.1\r\n",
        b"FOO /v2/keys/a HTTP/1.1\r\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n",
        b"Host: x\r\n",
        FORM,
        b"Content-Length: 7\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"\r\n",
        b"value=1",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@example(
    [GET, QUORUM, QUORUM, GET, b"Host: x\r\n"], 3, True
)  # a piece that ends one request and spoils the next
@example([WATCH, WATCH, PUT], 40, False)  # a watch behind another
@example(
    [QUORUM, b"FOO /v2/keys/a HTTP/1.1\r\n"], 40, True
)  # an answer to what is not read any further, in its turn
@given(st.lists(st.one_of(LINES, st.binary(max_size=6)), max_size=12), st.integers(1, 40), st.booleans())
def test_no_bytes_make_it_raise_or_answer_out_of_turn(pieces: list[bytes], size: int, held: bool) -> None:
    asyncio.run(converse(b"".join(pieces), size, held))


async def converse(data: bytes, size: int, held: bool) -> None:
    node = FakeNode()
    node.held = [] if held else None
    front = NativeFront(EtcdV2(node, node.keyspace), Limits(pipelined=2))
    transport = FakeTransport()
    connection = front.connection()
    connection.connection_made(transport)
    try:
        for start in range(0, len(data), size):
            if transport.closed:
                break
            connection.data_received(data[start : start + size])
        if held:
            while node.held:
                node.release()
        is_watched = node.keyspace.watchers.count > 0
        assert transport.closed or is_watched or not connection.queue, "a request without an answer"
        assert transport.written == b"" or transport.written.startswith(b"HTTP/1.")
        if not transport.closed:
            connection.eof_received()
            assert node.keyspace.watchers.count == 0, "a watch outlives its client's end"
        connection.connection_lost(None)
        if held:
            node.release()
        assert node.keyspace.watchers.count == 0, "a watch outlives its connection"
    finally:
        await front.close()


def test_a_request_that_fails_within_ends_its_connection_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving("native") as served:

        def handle(*_request: object) -> None:
            raise ValueError("our own fault")

        served.api.handle = handle  # type: ignore[method-assign, assignment]
        assert talk(served, GET + GET) == b""
    assert "our own fault" in caplog.text


async def connected(node: FakeNode) -> tuple[NativeFront, FakeTransport]:
    """A front with one client that has asked for a key by quorum."""
    front = NativeFront(EtcdV2(node, node.keyspace), Limits())
    connection, transport = front.connection(), FakeTransport()
    connection.connection_made(transport)
    connection.data_received(QUORUM)
    return front, transport


def test_an_answer_that_comes_after_an_abort_is_not_written() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.held = []
        front, transport = await connected(node)
        await front.close(grace=0.0)  # aborts; that the connection is lost is told later
        assert transport.closed
        node.release()
        assert transport.written == b""

    asyncio.run(scenario())


def test_a_client_that_sends_thousands_of_requests_at_once_leaves_the_loop_its_turns() -> None:
    requests = 3000

    async def scenario() -> None:
        node = FakeNode()
        front = NativeFront(EtcdV2(node, node.keyspace), Limits())
        transport = FakeTransport()
        connection = front.connection()
        connection.connection_made(transport)
        answered = []

        def turn() -> None:
            answered.append(transport.written.count(b"HTTP/1.1 "))
            if answered[-1] < requests:
                asyncio.get_running_loop().call_soon(turn)

        connection.data_received(GET * requests)
        turn()
        async with asyncio.timeout(20):
            while answered[-1] < requests:
                await asyncio.sleep(0.01)
        await front.close()
        assert answered[0] < requests / 50
        assert len(answered) > 3
        assert answered[-1] == requests

    asyncio.run(scenario())
