"""What every front must do the same; run against each."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from common_raft.tests.web_fakes import FakeFailure, FakeNode
from common_raft.tests.web_fixtures import (
    FRONTS,
    Answer,
    Served,
    ask,
    read_answer,
    served_by,
    serving,
    wait_for,
)
from common_raft.web.etcd_v2 import EtcdV2
from common_raft.web.fronts.starlette import application
from common_raft.web.limits import Limits, ListenError

BODY_LIMIT = 100_000


@pytest.fixture(scope="module", params=FRONTS)
def running(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param, Limits(body_bytes=BODY_LIMIT)) as served:
        yield served


@pytest.fixture
def served(running: Served) -> Served:
    """The front of this module, with everything deleted."""
    for key in ("/a", "/ü", "/big"):
        ask(running.port, "DELETE", "/v2/keys" + key.replace("ü", "%C3%BC"))
    running.node.failure = None
    return running


def test_a_key_lives_through_put_get_head_and_delete(served: Served) -> None:
    start = served.node.keyspace.index
    created = served.ask("PUT", "/v2/keys/a", "value=1")
    assert (created.status, created.headers["x-etcd-index"]) == (201, str(start + 1))
    assert created.body == (
        b'{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":%d,"createdIndex":%d}}\n'
        % (start + 1, start + 1)
    )
    read = served.ask("GET", "/v2/keys/a")
    assert (read.status, read.body) == (200, created.body.replace(b'"set"', b'"get"'))
    head = served.ask("HEAD", "/v2/keys/a")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == read.headers["content-length"]
    assert served.ask("DELETE", "/v2/keys/a").status == 200
    missing = served.ask("GET", "/v2/keys/a?quorum=true")
    assert (missing.status, missing.headers["x-etcd-index"]) == (404, str(start + 2))


def test_answers_about_keys_carry_etcds_headers(served: Served) -> None:
    answer = served.ask("PUT", "/v2/keys/a", "value=1")
    etcds = {name: value for name, value in answer.headers.items() if name not in ("date", "server")}
    assert etcds == {
        "access-control-allow-headers": "accept, content-type, authorization",
        "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
        "access-control-allow-origin": "*",
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "x-etcd-cluster-id": "f1b301c7dda370d8",
        "x-etcd-index": str(served.node.keyspace.index),
        "x-raft-index": str(served.node.applied),
        "x-raft-term": "2",
    }
    assert answer.headers["date"].endswith(" GMT")


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "FOO"])
def test_methods_that_etcd_does_not_know_are_405(served: Served, method: str) -> None:
    answer = served.ask(method, "/v2/keys/a")
    assert (answer.status, answer.body) == (405, b"Method Not Allowed\n")
    assert answer.headers["allow"] == "HEAD,GET,PUT,POST,DELETE"


def test_options_is_always_an_empty_200(served: Served) -> None:
    answer = served.ask("OPTIONS", "/v2/keys//a")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_unknown_paths_are_404(served: Served) -> None:
    for target in ("/", "/nothing", "/v2/keysx", "/version/"):
        answer = served.ask("GET", target)
        assert (answer.status, answer.body) == (404, b"404 page not found\n")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_unclean_paths_are_redirected_with_their_query(served: Served) -> None:
    answer = served.ask("GET", "//v2/./keys/%2e%2e//keys/a?b=%ff&c")
    assert (answer.status, answer.headers["location"]) == (301, "/v2/keys/a?b=%ff&c")
    assert b"Moved Permanently" in answer.body


@pytest.mark.parametrize("target", ["/v2/keys/%C3%BC", "/v2/keys/%ff", "/v2/keys/a%0Ab%00%3F%23%25"])
def test_keys_may_be_any_bytes(served: Served, target: str) -> None:
    assert served.ask("PUT", target, "value=%C3%BC%FF%0A").status == 201
    answer = served.ask("GET", target)
    assert answer.status == 200
    assert '"value":"ü\\ufffd\\n"'.encode() in answer.body
    assert served.ask("DELETE", target).status == 200


@pytest.mark.parametrize("front", ["native", "granian"])  # hypercorn's parser takes only ASCII
def test_a_path_may_be_utf_8_without_escapes(front: str) -> None:
    with serving(front) as served:
        assert served.ask("PUT", "/v2/keys/\xc3\xbc?value=\xc3\xbc", "").status == 201
        assert '"key":"/ü","value":"ü"'.encode() in served.ask("GET", "/v2/keys/%C3%BC").body


def test_a_bad_escape_in_the_path_is_a_bad_request(served: Served) -> None:
    if served.front == "flask-granian":
        pytest.skip(
            "granian unescapes what it can before the application sees it: %zz and %25zz are the same"
        )
    answer = served.ask("GET", "/v2/keys/%zz")
    assert (answer.status, answer.body) == (400, b"400 Bad Request")


def test_a_bad_escape_in_the_query_is_error_210(served: Served) -> None:
    answer = served.ask("GET", "/v2/keys/a?x=%zz")
    assert (answer.status, answer.headers["x-etcd-index"]) == (400, "0")
    assert b'"errorCode":210' in answer.body


def test_a_body_may_come_in_chunks(served: Served) -> None:
    if served.front == "flask-granian":
        pytest.skip("granian does not tell Flask whether all of such a body came: the next tests")
    with served.connect() as client:
        client.sendall(
            b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n6\r\nvalue=\r\n"
        )
        client.sendall(b"5;extension=1\r\nabcde\r\n0\r\nTrailer: x\r\n\r\n")
        assert b'"value":"abcde"' in read_answer(client).body


_PUT = b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
_BROKEN_OFF = {
    "before the body": b"Content-Length: 28\r\n\r\n",
    "within the body": b"Content-Length: 28\r\n\r\nvalue=theirs",
    "between chunks": b"Transfer-Encoding: chunked\r\n\r\nc\r\nvalue=theirs\r\n",
    "within a chunk": b"Transfer-Encoding: chunked\r\n\r\n1c\r\nvalue=theirs",
    "at a chunk that is none": b"Transfer-Encoding: chunked\r\n\r\nc\r\nvalue=theirs\r\nzz\r\n",
}


@pytest.mark.parametrize("sent", _BROKEN_OFF.values(), ids=_BROKEN_OFF)
@pytest.mark.parametrize("how", ["closed", "reset", "half-closed"])
def test_a_request_that_breaks_off_is_not_carried_out(served: Served, sent: bytes, how: str) -> None:
    # What is lost may be the condition: value=theirs&prevExist=false.
    served.ask("PUT", "/v2/keys/a", "value=mine")
    with served.connect() as client:
        client.sendall(_PUT + sent)
        time.sleep(0.05)  # until it is being read
        if how == "half-closed":
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1 << 16).split(b" ")[1:2] not in ([b"200"], [b"201"])
        elif how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.05)  # until it would have been carried out
    assert b'"value":"mine"' in served.ask("GET", "/v2/keys/a").body


# On granian Flask's thread goes on reading until the client ends: the process ends without it.
@pytest.mark.parametrize("front", [front for front in FRONTS if front != "flask-granian"])
def test_a_stop_cuts_a_request_off_that_is_not_whole_and_makes_no_fuss(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(front) as served, served.connect() as client:
        client.sendall(_PUT + b"Content-Length: 28\r\n\r\nvalue=theirs")
        time.sleep(0.05)  # until it is being read
        served.stop()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_granian_takes_no_chunks_for_flask_which_it_would_not_tell_how_they_end() -> None:
    with serving("flask-granian") as served, served.connect() as client:
        client.sendall(_PUT + b"Transfer-Encoding: chunked\r\n\r\n7\r\nvalue=1\r\n0\r\n\r\n")
        answer = read_answer(client)
        assert (answer.status, answer.body) == (411, b"411 Length Required")
        assert served.ask("GET", "/v2/keys/a").status == 404


def test_large_values_are_kept_whole(served: Served) -> None:
    value = "x" * (BODY_LIMIT - 100)
    assert served.ask("PUT", "/v2/keys/big", "value=" + value).status == 201
    answer = served.ask("GET", "/v2/keys/big")
    assert f'"value":"{value}"'.encode() in answer.body


def test_a_body_over_the_limit_is_413_and_changes_nothing(served: Served) -> None:
    before = served.node.keyspace.index
    with served.connect() as client:
        client.sendall(
            b"PUT /v2/keys/big HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\nvalue=" % (BODY_LIMIT + 1)
        )
        try:
            client.sendall(b"x" * (BODY_LIMIT - 5))
        except OSError:
            pass  # refused by the length alone, without waiting for the body
        answer = read_answer(client)
    assert (answer.status, answer.body) == (413, b"413 Request Entity Too Large")
    assert served.node.keyspace.index == before


def test_a_connection_serves_many_requests(served: Served) -> None:
    with served.connect() as client:
        for _ in range(5):
            client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(client).status == 200


def test_the_client_may_ask_to_close(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = read_answer(client)
        assert answer.headers["connection"].lower() == "close"
        assert client.recv(1) == b""


def test_failures_of_the_node_are_error_300(served: Served) -> None:
    served.node.failure = FakeFailure("etcdserver: request timed out")
    for answer in (served.ask("PUT", "/v2/keys/a", "value=1"), served.ask("GET", "/v2/keys/a?quorum=true")):
        assert answer.status == 500
        assert answer.body == (
            b'{"errorCode":300,"message":"Raft Internal Error",'
            b'"cause":"etcdserver: request timed out","index":0}\n'
        )
    assert served.ask("GET", "/health").status == 503


def test_many_clients_at_once_are_all_answered(served: Served) -> None:
    start = served.node.keyspace.index
    answers: list[Answer] = []

    def work(number: int) -> None:
        for i in range(5):
            answers.append(served.ask("PUT", "/v2/keys/a", f"value={number}-{i}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} <= {200, 201}
    indexes = sorted(int(answer.headers["x-etcd-index"]) for answer in answers)
    assert indexes == list(range(start + 1, start + 51))


def test_as_many_requests_may_wait_for_the_node_at_a_time_as_there_may_be_threads(served: Served) -> None:
    served.node.held = []
    clients = [served.connect() for _ in range(Limits().threads)]
    for client in clients:
        client.sendall(b"GET /v2/keys/a?quorum=true HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_for(lambda: len(served.node.held or ()) == len(clients))
    held, served.node.held = served.node.held, None
    for answer in held:
        served.give(answer)
    for client in clients:
        assert read_answer(client).status == 404
        client.close()


def test_a_client_that_goes_away_while_it_waits_harms_nobody(served: Served) -> None:
    served.node.held = []
    try:
        with served.connect() as client:
            client.sendall(b"GET /v2/keys/a?quorum=true HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: served.node.held)
    finally:
        held, served.node.held = served.node.held, None
    for answer in held or []:
        served.give(answer)
    assert served.ask("GET", "/version").status == 200


def test_an_answer_for_a_cancelled_request_is_dropped() -> None:
    async def scenario() -> None:
        node = FakeNode()
        node.held = []
        app = application(EtcdV2(node, node.keyspace), Limits())
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v2/keys/a",
            "raw_path": b"/v2/keys/a",
            "headers": [],
        }
        scope["query_string"] = b"quorum=true"

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b""}

        async def send(message: object) -> None:
            raise AssertionError("answered")

        request = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
        while not node.held:
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.wait([request])
        node.release()

    asyncio.run(scenario())


@pytest.mark.parametrize("front", FRONTS)
def test_a_port_in_use_is_named_at_start(front: str) -> None:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        served = served_by(front)
        served.port = port
        with pytest.raises(ListenError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            served.start()


@pytest.mark.parametrize("front", FRONTS)
def test_a_stopped_front_frees_its_port_and_ends_idle_connections(front: str) -> None:
    with serving(front) as served:
        client = served.connect()
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(client).status == 200
    assert client.recv(1) == b""
    client.close()
    with pytest.raises(ConnectionRefusedError):
        served.connect()


@pytest.mark.parametrize("front", FRONTS)
def test_a_stopping_front_answers_what_is_under_way(front: str) -> None:
    with serving(front) as served:
        served.node.held = []
        client = served.connect()
        client.sendall(b"GET /v2/keys/a?quorum=true HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: served.node.held)
        stopping = threading.Thread(target=served.stop)
        stopping.start()
        stopping.join(0.3)
        held, served.node.held = served.node.held, None
        for answer in held:
            served.give(answer)
        assert read_answer(client).status == 404
        stopping.join()
        client.close()
