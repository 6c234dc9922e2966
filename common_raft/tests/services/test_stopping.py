"""Real nodes that are told to stop: the leadership goes elsewhere first, and everybody who waits is answered.

Elections take so long here that a cluster whose leader just went would be without one until the tests are over.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from common_raft.testing.processes import Answer, NodeProcess, ProcessCluster
from common_raft.tests.services.test_cluster import check_nothing_lost, writers
from common_raft.tests.services.variants import (
    CLUSTERS,
    SERVERS,
    cluster_of,
    driven_cluster_of,
)

pytestmark = pytest.mark.processes
FIRST_ELECTION = ["--election-timeout", "2000"]
PATIENT = ["--election-timeout", "20000"]
FRONTS = [(variant, server) for variant in ("v2.reactive", "v2.servlet") for server in SERVERS[variant]]


@contextmanager
def patient(cluster: ProcessCluster) -> Iterator[NodeProcess]:
    """Started, with followers that would wait for a long time before they elect somebody; gives the leader."""
    with cluster:
        leader = cluster.leader()
        for follower in cluster.followers():
            assert follower.stop() == 0
            follower.add_flags(*PATIENT)
            follower.start()
            cluster.wait_ready()
        assert cluster.leader() is leader
        yield leader


def term_of(node: NodeProcess) -> int:
    return int(node.ask("GET", "/v2/keys/k?quorum=true").headers["x-raft-term"])


def since(sizes: Sequence[int], nodes: Sequence[NodeProcess]) -> list[str]:
    """What the nodes have logged since their logs had these sizes."""
    return [node.log.read_text()[size:] for node, size in zip(nodes, sizes, strict=True)]


@pytest.mark.parametrize("kind", [*CLUSTERS, "independent"])
def test_a_leader_that_is_told_to_stop_under_load_is_followed_at_once_and_nothing_is_lost(
    kind: str, tmp_path: Path
) -> None:
    made = (
        driven_cluster_of(CLUSTERS["mixed"], tmp_path, FIRST_ELECTION)
        if kind == "independent"
        else cluster_of(CLUSTERS[kind], tmp_path, FIRST_ELECTION)
    )
    with patient(made) as old:
        others = [node for node in made.nodes if node is not old]
        assert old.ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
        term, sizes = term_of(old), [len(node.log.read_text()) for node in others]
        load = writers(made)
        time.sleep(0.7)
        assert old.stop() == 0
        new = made.leader()
        assert [term_of(node) for node in others] == [term + 1, term + 1]
        logged = since(sizes, others)
        assert "hands the leadership over to this node" in logged[others.index(new)]
        # Nobody gave the leader up: neither did a timer run out, nor was it asked who might win an election.
        assert all(f"term {term}: the leader is not known" not in log for log in logged)
        old.start()
        made.wait_ready()
        check_nothing_lost(made, load)


@pytest.mark.parametrize("kind", ["v2.reactive", "v2.servlet", "independent"])
def test_nodes_that_are_told_to_stop_together_end_soon_and_lose_nothing(kind: str, tmp_path: Path) -> None:
    made = (
        driven_cluster_of(CLUSTERS["mixed"], tmp_path, FIRST_ELECTION)
        if kind == "independent"
        else cluster_of(CLUSTERS[kind], tmp_path, FIRST_ELECTION)
    )
    with made:
        leader = made.leader()
        assert leader.ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
        term, load = term_of(leader), writers(made)
        time.sleep(0.5)
        for node in sorted(made.nodes, key=lambda node: node is leader):
            node.send_signal(signal.SIGTERM)
        assert [node.stop_by_itself() for node in made.nodes] == [0, 0, 0]
        for node in made.nodes:
            node.start()
        made.wait_ready()
        assert term_of(made.leader()) <= term + 5  # the leadership went around once, not thousands of times
        check_nothing_lost(made, load)


@contextmanager
def requests_under_way(cluster: ProcessCluster, leader: NodeProcess) -> Iterator[list[Future[Answer]]]:
    """Writes that the leader has taken, and that nobody has answered since the followers are stopped."""
    for follower in [node for node in cluster.nodes if node is not leader]:
        follower.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(10) as pool:
        try:
            yield [
                pool.submit(leader.ask, "PUT", f"/v2/keys/k{number}", {"value": number}, timeout=30)
                for number in range(10)
            ]
        finally:
            go_on(cluster)


def go_on(cluster: ProcessCluster) -> None:
    for node in cluster.nodes:
        if node.running:
            node.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(("variant", "server"), FRONTS)
def test_requests_that_are_under_way_are_answered_before_the_process_ends(
    variant: str, server: str, tmp_path: Path
) -> None:
    cluster = cluster_of([(variant, server)] * 3, tmp_path, FIRST_ELECTION)
    with patient(cluster) as leader:
        with requests_under_way(cluster, leader) as answers:
            time.sleep(0.5)
            leader.send_signal(signal.SIGTERM)
            until_it_stops(leader)
            go_on(cluster)
            assert [answer.result().status for answer in answers] == [201] * 10
        assert leader.stop_by_itself() == 0
        for node in [node for node in cluster.nodes if node is not leader]:
            read = [node.ask("GET", f"/v2/keys/k{number}?quorum=true") for number in range(10)]
            assert [answer.json["node"]["value"] for answer in read] == [str(number) for number in range(10)]


@pytest.mark.parametrize(("variant", "server"), FRONTS)
def test_without_anybody_who_could_lead_whoever_waits_is_told_that_the_server_stops(
    variant: str, server: str, tmp_path: Path
) -> None:
    cluster = cluster_of([(variant, server)] * 3, tmp_path, FIRST_ELECTION)
    with cluster:
        leader = cluster.leader()
        with requests_under_way(cluster, leader) as answers:
            time.sleep(0.5)
            assert leader.stop() == 0
            for answer in answers:
                assert (answer.result().status, answer.result().json["errorCode"]) == (500, 300)
                assert answer.result().json["cause"] == "etcdserver: server stopped"


@pytest.mark.parametrize("variant", ["v2.reactive", "v2.servlet"])
def test_a_second_signal_does_not_wait_for_anybody(variant: str, tmp_path: Path) -> None:
    cluster = cluster_of([(variant, SERVERS[variant][0])] * 3, tmp_path, FIRST_ELECTION)
    with cluster:
        leader = cluster.leader()
        assert leader.ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
        with requests_under_way(cluster, leader):
            leader.send_signal(signal.SIGTERM)
            until_it_stops(leader)
            assert leader.stop(signal.SIGINT) == 128 + signal.SIGINT
        assert leader.log.read_text().endswith("SIGINT again: stopped at once\n")
        leader.start()
        cluster.wait_ready()
        assert leader.ask("GET", "/v2/keys/k?quorum=true").json["node"]["value"] == "v"


def until_it_stops(node: NodeProcess) -> None:
    deadline = time.monotonic() + 10
    while "SIGTERM: stopping" not in node.log.read_text():
        assert time.monotonic() < deadline, node.log.read_text()
        time.sleep(0.02)
