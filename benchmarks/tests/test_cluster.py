import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from benchmarks import cluster as cluster_module
from benchmarks.cluster import Cluster, free_ports
from benchmarks.errors import BenchmarkError
from benchmarks.targets import Target, running_elsewhere
from benchmarks.verify import verify


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cluster_module, "disk_directory", lambda: tmp_path)
    return tmp_path


def test_free_ports_differ_and_are_free():
    ports = free_ports(6)
    assert len(set(ports)) == 6
    for port in ports:
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))


def test_a_node_that_ends_at_its_start_is_quoted_and_leaves_nothing(directory: Path):
    # One node: of several, any may be the first to end.
    broken = Target("broken", "embedded", ("python", "-c", "raise SystemExit('port in use')"), nodes=1)
    cluster = Cluster(broken)
    with pytest.raises(BenchmarkError, match="broken: node n1 ended with status 1; it said: port in use"):
        cluster.start()
    cluster.stop()
    cluster.remove()
    assert list(directory.iterdir()) == []


def test_stopping_ends_nodes_that_do_not_want_to_end_and_their_children(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cluster_module, "HEALTHY_WITHIN", 1.0)
    monkeypatch.setattr(cluster_module, "STOPPED_WITHIN", 0.2)
    stubborn = (
        "import signal, subprocess, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen(['sleep', '60']); time.sleep(60)"
    )
    cluster = Cluster(Target("stubborn", "embedded", ("python", "-c", stubborn), nodes=1))
    with pytest.raises(BenchmarkError, match="is not good"):
        cluster.start()
    [[pid]] = cluster.pids.values()
    family = [psutil.Process(pid), *psutil.Process(pid).children()]
    assert len(family) == 2
    cluster.stop()
    assert [process for process in family if process.is_running() and process.status() != "zombie"] == []
    cluster.remove()
    assert list(directory.iterdir()) == []


class Pretender(BaseHTTPRequestHandler):
    """Says yes to everything, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(
            {"health": "true", "action": "set", "node": {"key": "/verify-0", "value": "1"}}
        ).encode()
        self.send_response(201 if self.command == "PUT" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def pretender() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pretender) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_cluster_that_does_not_answer_as_etcd_does_is_not_measured(pretender: str):
    with pytest.raises(BenchmarkError, match=r"answered \(200, 'set', .* where etcd answers \(200, 'get'"):
        verify("pretender", [pretender])


def test_nodes_that_run_elsewhere_must_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster_module, "ANSWERING_WITHIN", 0.1)
    [port] = free_ports(1)
    with pytest.raises(BenchmarkError, match=f"http://127.0.0.1:{port}/health is not good"):
        Cluster(running_elsewhere([f"http://127.0.0.1:{port}"])).start()
