import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import crowd as crowd_module
from benchmarks.crowd import Answers, Crowd
from benchmarks.errors import BenchmarkError

GET = b"GET /%d HTTP/1.1\r\nHost: node\r\n\r\n"


class Echo(BaseHTTPRequestHandler):
    """Gives the path back, in two pieces; 404 for those that end in 7, the first ``failures`` times."""

    protocol_version = "HTTP/1.1"
    seen: list[str]
    clients: set[int]
    failures = 1000

    def do_GET(self):
        self.seen.append(self.path)
        self.clients.add(self.client_address[1])
        body = self.path.encode()
        fails = self.path.endswith("7") and self.seen.count(self.path) <= self.failures
        self.send_response(404 if fails else 200)
        self.send_header("CONTENT-Length", str(len(body)))
        self.end_headers()
        self.wfile.flush()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def node() -> Iterator[tuple[str, type[Echo]]]:
    kind = type("Own", (Echo,), {"seen": [], "clients": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", kind
        server.shutdown()


def upto(count: int):
    numbers = iter(range(count))

    def following(_: int) -> bytes | None:
        number = next(numbers, None)
        return None if number is None else GET % number

    return following


def wait_for(crowd: Crowd) -> None:
    with crowd.running():
        for _ in range(500):
            crowd.check()
            time.sleep(0.01)


def test_every_request_is_sent_once_and_users_are_spread_over_the_nodes():
    with node() as (first, one), node() as (second, other):
        answers = Crowd([first, second], 4, upto(50)).run()
    assert sorted(one.seen + other.seen) == sorted(f"/{number}" for number in range(50))
    assert len(one.clients) == len(other.clients) == 2
    assert len(answers.ended) == len(answers.took) == 50
    assert list(answers.ended) == sorted(answers.ended)
    assert min(answers.took) > 0


def test_answers_that_are_errors_are_counted_and_one_is_kept():
    with node() as (endpoint, _):
        answers = Crowd([endpoint], 2, upto(20)).run()
    assert answers.errors == 2
    assert answers.said in ("/7", "/17")


def test_persistent_users_repeat_what_failed():
    with node() as (endpoint, kind):
        kind.failures = 2
        answers = Crowd([endpoint], 2, upto(10), persistent=True).run()
    assert answers.errors == 2
    assert kind.seen.count("/7") == 3
    assert len(kind.seen) == 12


def test_persistent_users_give_up_some_time():
    with node() as (endpoint, _), pytest.raises(BenchmarkError, match="20 errors in a row, the last: /7"):
        Crowd([endpoint], 2, upto(10), persistent=True).run()


def test_beside_a_block_users_go_on_until_its_end():
    with node() as (endpoint, kind):
        crowd = Crowd([endpoint], 3, lambda _: GET % 1)
        with crowd.running() as answers:
            while len(answers.took) < 30:
                crowd.check()
        assert len(answers.took) == len(kind.seen)


def test_a_node_that_closes_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        crowd = Crowd([f"http://127.0.0.1:{listener.getsockname()[1]}"], 1, upto(1))
        with pytest.raises(BenchmarkError, match=r"a connection to http://127\.0\.0\.1:\d+ is lost"):
            crowd.run()


def test_a_node_that_closes_is_told_beside_a_block_as_well():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        crowd = Crowd([f"http://127.0.0.1:{listener.getsockname()[1]}"], 1, upto(1))
        with pytest.raises(BenchmarkError, match="is lost"):
            wait_for(crowd)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crowd_module, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crowd = Crowd([f"http://127.0.0.1:{listener.getsockname()[1]}"], 1, upto(1))
        with pytest.raises(BenchmarkError, match=r"no answer within 0\.2 s"):
            crowd.run()


def test_where_nobody_listens_there_is_no_crowd():
    with pytest.raises(BenchmarkError, match=r"no connection to http://127\.0\.0\.1:1"):
        Crowd(["http://127.0.0.1:1"], 1, upto(1)).run()


def test_a_rate_counts_the_answers_between_two_moments():
    answers = Answers()
    answers.ended.extend([10.0, 10.5, 11.0, 12.5, 14.0])
    assert answers.rate(10.25, 12.75) == pytest.approx(3 / 2.5)
    assert answers.rate(20, 30) == 0
