"""What the load generators send, as a server sees it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from urllib.parse import parse_qs

import pytest

from benchmarks.load import Job, locust, parse, wrk
from benchmarks.runner import _started
from benchmarks.workloads import USUAL, WORKLOADS

pytestmark = pytest.mark.processes


class Recorder(BaseHTTPRequestHandler):
    """Answers as a node would, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: set[tuple[str, str, str]]

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_PUT(self) -> None:
        self._answer("PUT", self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, method: str, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        values = parse_qs(body.decode()).get("value", [""])
        self.asked.add((method, query, values[0]))
        key = path.removeprefix("/v2/keys")
        answer = f'{{"action":"set","node":{{"key":"{key}"}}}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, set[tuple[str, str, str]]]]:
    handler = type("Handler", (Recorder,), {"asked": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


@pytest.mark.parametrize("tool", [wrk, locust])
@pytest.mark.parametrize("name", ["get-quorum", "put-10kb", "put-only"])
def test_a_workload_asks_for_what_its_name_says(
    tool: ModuleType, name: str, server: tuple[str, set[tuple[str, str, str]]]
) -> None:
    if tool is wrk and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    endpoint, asked = server
    with _started(tool.command(Job(WORKLOADS[name], (endpoint,), users=2, seconds=1))) as process:
        outcome = parse(process.communicate(timeout=60)[0])
    assert outcome.errors(WORKLOADS[name]) == 0
    if name == "get-quorum":
        assert asked == {("GET", "quorum=true", "")}
        return
    assert {(method, query) for method, query, _ in asked} == {("PUT", "")}
    values = {value for _, _, value in asked}
    assert {len(value) for value in values} <= ({10_000} if name == "put-10kb" else {1, 2, 3})
    assert {int(value.rstrip(".")) for value in values} <= set(range(1, 101))
    assert len(values) > 3


def test_what_is_not_usual_is_measured_only_where_it_is_named() -> None:
    assert USUAL == ("same-data", "random-data", "put-only", "get-only")
