"""The floor that the comparison is bounded by: real processes, asked over HTTP."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from benchmarks import floor
from benchmarks.cluster import Cluster
from benchmarks.errors import BenchmarkError
from benchmarks.keys import NodeClient
from benchmarks.targets import EMBEDDED, INDEPENDENT, available, resolve


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    if floor.uring() is None:
        pytest.skip("io_uring is not there, or not allowed")
    [target] = resolve("floor", EMBEDDED)
    made = Cluster(target)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        made.remove()


def test_the_floor_is_measured_only_where_it_is_named_and_only_as_a_cluster():
    assert "floor" not in available()
    with pytest.raises(BenchmarkError, match="floor is there in embedded alone, not in independent"):
        resolve("floor", INDEPENDENT)


def test_an_answer_names_the_key_that_was_written():
    answer = floor.written(b"PUT /v2/keys/put-only-1-2 HTTP/1.1\r\nHost: h\r\n\r\nvalue=7")
    head, body = answer.split(b"\r\n\r\n")
    assert b'"action":"set","node":{"key":"/put-only-1-2"' in body
    assert head.endswith(b"Content-Length: %d" % len(body))
    assert b'"action":"delete"' in floor.written(b"DELETE /v2/keys/k HTTP/1.1\r\n\r\n")


@pytest.mark.processes
def test_a_write_through_any_node_is_in_the_logs_of_a_majority_when_it_is_answered(cluster: Cluster):
    directory = cluster._directory
    assert directory is not None
    for place, endpoint in enumerate(cluster.endpoints):
        with NodeClient(endpoint) as client:
            for number in range(20):
                key = f"through-{place}-{number}"
                assert client.put(key, f"value-of-{key}").body["node"]["key"] == f"/{key}"
                logs = [(directory / name / "floor.log").read_bytes() for name in ("n1", "n2", "n3")]
                assert sum(f"value-of-{key}".encode() in log for log in logs) >= 2
            assert client.get("any").body["action"] == "get"


@pytest.mark.processes
def test_clients_that_go_before_their_answer_disturb_nobody(cluster: Cluster):
    for endpoint in cluster.endpoints * 20:
        place = urlsplit(endpoint)
        with socket.create_connection((place.hostname, place.port)) as gone:
            gone.sendall(b"PUT /v2/keys/gone HTTP/1.1\r\nContent-Length: 7\r\n\r\nvalue=1")
    for endpoint in cluster.endpoints:
        with NodeClient(endpoint) as client:
            assert client.put("after", "1").status == 200
