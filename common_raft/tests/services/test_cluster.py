"""Three real nodes: they agree, they outlive each other, and nothing that was acknowledged is lost.

What every cluster must do runs for each one in `variants.CLUSTERS`; the rest is a matter of the driver, and runs for
one variant on each of the two.
"""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common_raft.testing.processes import NodeProcess, ProcessCluster
from common_raft.tests.services.variants import (
    CLUSTERS,
    cluster_of,
    command,
    each_on_its_default,
)

pytestmark = pytest.mark.processes
DRIVERS = {"asyncio": "v2.reactive", "threads": "v2.servlet"}
#: Elections in a fifth of the default's time, so that the tests need not wait for them.
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessCluster]:
    with cluster_of(CLUSTERS[request.param], tmp_path, QUICK) as started:
        yield started


@pytest.fixture(params=DRIVERS)
def cluster_on(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessCluster]:
    """A cluster on one of the drivers."""
    with cluster_of(each_on_its_default(DRIVERS[request.param]), tmp_path, QUICK) as started:
        yield started


def value(node: NodeProcess, key: str) -> str | None:
    answer = node.ask("GET", f"/v2/keys/{key}?quorum=true")
    return answer.json["node"]["value"] if answer.status == 200 else None


class Writer(threading.Thread):
    """Writes 0, 1, 2 ... to a key of its own through one node after another; remembers what was acknowledged."""

    def __init__(self, cluster: ProcessCluster, key: str) -> None:
        super().__init__()
        self.cluster, self.key = cluster, key
        self.acknowledged = -1
        self.attempted = -1
        self.unexpected: list[object] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.attempted += 1
            node = self.cluster.nodes[self.attempted % len(self.cluster.nodes)]
            try:
                answer = node.ask("PUT", f"/v2/keys/{self.key}", {"value": self.attempted}, timeout=10)
            except OSError:
                continue  # the node is down, or went down: the outcome is unknown
            if answer.status in (200, 201):
                self.acknowledged = self.attempted
            elif answer.status != 500 or answer.json["errorCode"] != 300:
                self.unexpected.append(answer)

    def finish(self) -> None:
        self.stopping.set()
        self.join(60)
        assert not self.is_alive()
        assert self.unexpected == []


def writers(cluster: ProcessCluster) -> list[Writer]:
    """All of them have written something: who waits for a leader that was killed may do so until the very end."""
    started = [Writer(cluster, f"w{number}") for number in range(6)]
    for writer in started:
        writer.start()
    end = time.monotonic() + 30
    while any(writer.acknowledged < 0 for writer in started):
        assert time.monotonic() < end
        time.sleep(0.01)
    return started


def check_nothing_lost(cluster: ProcessCluster, done: list[Writer]) -> None:
    for writer in done:
        writer.finish()
    cluster.wait_ready()
    for writer in done:
        assert writer.acknowledged >= 0
        for node in cluster.nodes:
            stored = value(node, writer.key)
            # A write without an answer may have taken effect; one that was acknowledged must have.
            assert stored is not None
            assert writer.acknowledged <= int(stored) <= writer.attempted


def test_a_write_through_any_node_is_read_from_every_node(cluster: ProcessCluster) -> None:
    for number, node in enumerate(cluster.nodes):
        assert node.ask("PUT", f"/v2/keys/k{number}", {"value": number}).status == 201
        assert [value(reader, f"k{number}") for reader in cluster.nodes] == [str(number)] * 3


def test_answers_carry_the_clusters_indexes(cluster: ProcessCluster) -> None:
    written = [node.ask("PUT", "/v2/keys/k", {"value": "v"}) for node in cluster.nodes]
    assert [answer.json["node"]["modifiedIndex"] for answer in written] == [1, 2, 3]
    assert [answer.headers["x-etcd-index"] for answer in written] == ["1", "2", "3"]
    assert len({answer.headers["x-etcd-cluster-id"] for answer in written}) == 1
    assert {answer.headers["x-raft-term"] for answer in written} == {"1"}


def test_killing_the_leader_under_load_loses_nothing_that_was_acknowledged(cluster: ProcessCluster) -> None:
    load = writers(cluster)
    for _ in range(2):
        time.sleep(0.7)
        kill_and_start_again(cluster.leader())
    check_nothing_lost(cluster, load)


def test_killing_a_follower_under_load_loses_nothing_that_was_acknowledged(
    cluster_on: ProcessCluster,
) -> None:
    load = writers(cluster_on)
    for _ in range(3):
        time.sleep(0.7)
        kill_and_start_again(cluster_on.followers()[0])
    check_nothing_lost(cluster_on, load)


def kill_and_start_again(node: NodeProcess) -> None:
    node.kill()
    time.sleep(0.7)
    node.start()


def test_killing_all_nodes_at_once_loses_nothing_that_was_acknowledged(cluster_on: ProcessCluster) -> None:
    load = writers(cluster_on)
    for _ in range(3):
        time.sleep(0.7)
        for node in cluster_on.nodes:
            node.send_signal(signal.SIGKILL)
        for node in cluster_on.nodes:
            node.kill()
            node.start()
        cluster_on.wait_ready()
    check_nothing_lost(cluster_on, load)


def test_a_stopped_leader_is_replaced_and_follows_when_it_goes_on(cluster_on: ProcessCluster) -> None:
    old = cluster_on.leader()
    load = writers(cluster_on)
    time.sleep(0.3)
    old.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    others = [node for node in cluster_on.nodes if node is not old]
    assert "StateLeader" in [node.state() for node in others]
    old.send_signal(signal.SIGCONT)
    check_nothing_lost(cluster_on, load)


def test_without_a_quorum_writes_and_linearizable_reads_fail_in_bounded_time_and_local_reads_go_on(
    cluster_on: ProcessCluster,
) -> None:
    last = cluster_on.nodes[0]
    last.ask("PUT", "/v2/keys/k", {"value": "v"})
    for node in cluster_on.nodes[1:]:
        node.kill()
    began = time.monotonic()
    answer = last.ask("PUT", "/v2/keys/k", {"value": "w"})
    assert (answer.status, answer.json["errorCode"]) == (500, 300)
    assert answer.json["cause"] == "etcdserver: request timed out"
    assert last.ask("GET", "/v2/keys/k?quorum=true").status == 500
    assert time.monotonic() - began < 20
    assert last.ask("GET", "/v2/keys/k").json["node"]["value"] == "v"
    assert last.ask("GET", "/health").status == 503


def test_a_node_that_was_away_catches_up_from_the_others(cluster_on: ProcessCluster) -> None:
    away = cluster_on.followers()[0]
    away.kill()
    here = next(node for node in cluster_on.nodes if node is not away)
    for number in range(300):
        assert here.ask("PUT", f"/v2/keys/k{number}", {"value": "x" * 1000}).status == 201
    away.start()
    cluster_on.wait_ready()
    assert value(away, "k299") == "x" * 1000
    assert away.ask("GET", "/v2/keys/k0").headers["x-etcd-index"] == "300"


def test_a_restart_keeps_everything(cluster_on: ProcessCluster) -> None:
    for number in range(50):
        cluster_on.nodes[number % 3].ask("PUT", f"/v2/keys/k{number}", {"value": number})
    cluster_on.nodes[0].ask("DELETE", "/v2/keys/k7")
    assert [node.stop() for node in cluster_on.nodes] == [0, 0, 0]
    for node in cluster_on.nodes:
        node.start()
    cluster_on.wait_ready()
    for node in cluster_on.nodes:
        assert [value(node, f"k{number}") for number in (0, 7, 49)] == ["0", None, "49"]


def test_a_five_node_cluster_outlives_two_of_them(tmp_path: Path) -> None:
    with ProcessCluster(command("v2.reactive"), tmp_path, size=5, flags=QUICK) as cluster:
        load = writers(cluster)
        for _ in range(2):
            cluster.leader().kill()
            time.sleep(1)
        for node in cluster.nodes:
            if not node.running:
                node.start()
        check_nothing_lost(cluster, load)
