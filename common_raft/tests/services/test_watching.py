"""Watches on real nodes: whichever node is asked, whichever node is written to, whatever happens to the leader.

Runs for every cluster in `variants.CLUSTERS`, and for some whose services are in processes of their own.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster
from common_raft.tests.services.variants import CLUSTERS, cluster_of, driven_cluster_of
from common_raft.tests.web_fixtures import Listening, connect, request_bytes, wait_for

pytestmark = pytest.mark.processes
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]


#: Nodes that drive their services watch what those say that they did.
DRIVEN = {"driven-mixed": "mixed", "driven-v2.servlet": "v2.servlet"}


def started_as(name: str, directory: Path) -> ProcessCluster:
    if name in DRIVEN:
        return driven_cluster_of(CLUSTERS[DRIVEN[name]], directory, QUICK)
    return cluster_of(CLUSTERS[name], directory, QUICK)


@pytest.fixture(scope="module", params=[*CLUSTERS, *DRIVEN])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    with started_as(request.param, tmp_path_factory.mktemp("nodes")) as started:
        yield started


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessCluster]:
    """One that a test may hurt."""
    with cluster_of(CLUSTERS[request.param], tmp_path, QUICK) as started:
        yield started


def watch(node: NodeProcess, target: str) -> Listening:
    client = connect(node.client_port, 20)
    client.sendall(request_bytes("GET", f"/v2/keys{target}"))
    listening = Listening(client)
    assert listening.status == 200
    return listening


def put(node: NodeProcess, key: str, value: object = "v") -> int:
    """The index of the change."""
    answer = node.ask("PUT", f"/v2/keys{key}", {"value": value})
    assert answer.status in (200, 201), answer
    return int(answer.json["node"]["modifiedIndex"])


def event(line: bytes) -> Any:
    return json.loads(line)


def caught_up(node: NodeProcess) -> None:
    node.ask("GET", "/v2/keys?quorum=true")


def test_an_event_is_told_at_every_node_whichever_was_written_to(shared: ProcessCluster) -> None:
    for writer in shared.nodes:
        waiting = [watch(node, "/a?wait=true") for node in shared.nodes]
        index = put(writer, "/a", writer.name)
        told = [client.rest() for client in waiting]
        assert told[0] == told[1] == told[2]
        assert event(told[0])["node"]["value"] == writer.name
        assert event(told[0])["node"]["modifiedIndex"] == index


def test_a_stream_has_all_events_below_a_directory_in_the_same_order_at_every_node(
    shared: ProcessCluster,
) -> None:
    streams = [watch(node, "/d?wait=true&recursive=true&stream=true") for node in shared.nodes]
    writing = [
        threading.Thread(
            target=lambda node=node: [put(node, f"/d/{node.name}/{n % 5}", n) for n in range(40)]
        )
        for node in shared.nodes
    ]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    told = [[client.line() for _ in range(120)] for client in streams]
    assert told[0] == told[1] == told[2]
    changes = [event(line)["node"] for line in told[0]]
    assert [change["modifiedIndex"] for change in changes] == sorted(
        {change["modifiedIndex"] for change in changes}
    )
    for node in shared.nodes:
        own = [change["value"] for change in changes if change["key"].startswith(f"/d/{node.name}/")]
        assert own == [str(n) for n in range(40)]


def test_what_has_happened_is_told_by_the_node_that_is_asked(shared: ProcessCluster) -> None:
    first = put(shared.nodes[0], "/a", "old")
    put(shared.nodes[0], "/b", "other")
    put(shared.nodes[0], "/a", "new")
    for node in shared.nodes:
        caught_up(node)
        assert event(watch(node, f"/a?wait=true&waitIndex={first}").rest())["node"]["value"] == "old"
        assert event(watch(node, f"/a?wait=true&waitIndex={first + 1}").rest())["node"]["value"] == "new"


def test_hidden_keys_are_told_to_those_alone_who_watch_them(shared: ProcessCluster) -> None:
    node = shared.nodes[1]
    above = watch(node, "/h?wait=true&recursive=true&stream=true")
    itself = watch(node, "/h/_x?wait=true")
    put(shared.nodes[2], "/h/_x", 1)
    put(shared.nodes[2], "/h/_y/z", 2)
    put(shared.nodes[2], "/h/seen", 3)
    assert event(itself.rest())["node"]["value"] == "1"
    assert event(above.line())["node"]["key"] == "/h/seen"


def fill_history(node: NodeProcess, until: int) -> None:
    """Writes until that index, whatever becomes of a single one; on one connection, since that is quicker."""
    connection = HTTPConnection(HOST, node.client_port, timeout=20)
    index = 0
    while index < until:
        connection.request("PUT", "/v2/keys/much?value=v", headers={"Content-Length": "0"})
        answer = connection.getresponse()
        answer.read()
        if answer.status in (200, 201):
            index = int(answer.headers["X-Etcd-Index"])
    connection.close()


def test_history_that_is_gone_is_error_401(shared: ProcessCluster) -> None:
    until = put(shared.nodes[0], "/much") + 1_000
    writing = [threading.Thread(target=fill_history, args=(node, until)) for node in shared.nodes * 2]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    for node in shared.nodes:
        caught_up(node)
        answer = node.ask("GET", "/v2/keys/much?wait=true&waitIndex=1")
        assert (answer.status, answer.json["errorCode"]) == (400, 401), answer
        last = int(answer.headers["x-etcd-index"])
        assert answer.json["cause"] == f"the requested history has been cleared [{last - 999}/1]"
        assert node.ask("GET", f"/v2/keys/much?wait=true&waitIndex={last - 999}").status == 200


def test_watches_outlive_a_leader(cluster: ProcessCluster) -> None:
    leader = cluster.leader()
    followers = cluster.followers()
    streams = [watch(node, "/k?wait=true&stream=true") for node in followers]
    put(leader, "/k", "before")
    assert [event(client.line())["node"]["value"] for client in streams] == ["before"] * 2
    leader.kill()
    deadline = time.monotonic() + 30
    while followers[0].ask("PUT", "/v2/keys/k", {"value": "after"}).status != 200:
        assert time.monotonic() < deadline
    for client in streams:
        told = event(client.line())
        assert (told["node"]["value"], told["prevNode"]["value"]) == ("after", "before")


def test_a_node_that_is_told_to_stop_ends_its_watches_cleanly(cluster: ProcessCluster) -> None:
    for node in cluster.nodes:
        streams = [watch(node, "/k?wait=true&stream=true"), watch(node, "/k?wait=true")]
        assert node.stop() == 0
        assert [client.rest() for client in streams] == [b"", b""]


def test_clients_that_come_and_go_leave_nothing_behind(shared: ProcessCluster) -> None:
    for node in shared.nodes:
        before = descriptors(node)
        for _ in range(3):
            clients = [watch(node, "/gone?wait=true&stream=true") for _ in range(30)]
            for client in clients:
                client.leave()
        wait_for(lambda node=node: watchers(node) == 0, 20)  # type: ignore[misc]
        wait_for(lambda node=node, before=before: descriptors(node) <= before + 5, 20)  # type: ignore[misc]


def test_the_expiry_of_a_directory_is_told_at_every_node_to_who_watches_in_it(shared: ProcessCluster) -> None:
    first = shared.nodes[0]
    assert first.ask("PUT", "/v2/keys/brief", {"dir": "true", "ttl": 2}).status == 201
    index = put(first, "/brief/x")
    waiting = [watch(node, f"/brief/x?wait=true&waitIndex={index + 1}") for node in shared.nodes]
    told = [event(client.rest()) for client in waiting]
    for each in told:
        assert each["action"] == "expire"
        assert each["node"] == {**told[0]["node"], "key": "/brief", "dir": True}


def watchers(node: NodeProcess) -> int:
    return int(node.ask("GET", "/v2/stats/store").json["watchers"])


def descriptors(node: NodeProcess) -> int:
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))
