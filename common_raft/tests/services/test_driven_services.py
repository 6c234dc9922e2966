"""Three Raft nodes and the three services that they drive: any of them is killed, stopped and started again."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common_raft.testing.processes import Answer, DrivenCluster, NodeProcess, free_ports
from common_raft.tests.services.test_like_etcd import PASSING, requests
from common_raft.tests.services.variants import (
    CLUSTERS,
    cluster_of,
    command,
    driven_cluster_of,
    each_on_its_default,
)

pytestmark = pytest.mark.processes
SERVICES = each_on_its_default("v2.reactive")
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DrivenCluster]:
    with driven_cluster_of(SERVICES, tmp_path, QUICK) as started:
        yield started


@pytest.fixture(params=CLUSTERS)
def each(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DrivenCluster]:
    """A cluster of each kind of services."""
    with driven_cluster_of(CLUSTERS[request.param], tmp_path, QUICK) as started:
        yield started


class Writer(threading.Thread):
    """Writes key after key through one node, each once; remembers what became of them."""

    def __init__(self, node: NodeProcess, name: str) -> None:
        super().__init__()
        self.node, self.prefix = node, name
        self.acknowledged: set[str] = set()
        self.attempted: list[str] = []
        self.unexpected: list[Answer] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.01):
            key = f"{self.prefix}-{len(self.attempted)}"
            self.attempted.append(key)
            try:
                answer = self.node.ask("PUT", f"/v2/keys/{key}", {"value": key}, timeout=10)
            except OSError:
                continue  # the node is down, or went down: the outcome is unknown
            if answer.status == 201:
                self.acknowledged.add(key)
            elif answer.status != 500 or answer.json["errorCode"] != 300:
                self.unexpected.append(answer)

    def finish(self) -> None:
        self.stopping.set()
        self.join(60)
        assert not self.is_alive()
        assert self.unexpected == []


def writers(cluster: DrivenCluster) -> list[Writer]:
    started = [Writer(node, f"{node.name}-{number}") for node in cluster.nodes for number in range(2)]
    for writer in started:
        writer.start()
    return started


def index_of(node: NodeProcess) -> int:
    return int(node.ask("GET", "/v2/keys/no-such-key?quorum=true").headers["x-etcd-index"])


def check_nothing_lost_or_repeated(cluster: DrivenCluster, load: list[Writer]) -> None:
    """Every key was written by one request: what is there was applied once, or the indexes would not add up."""
    for writer in load:
        writer.finish()
    cluster.wait_ready()
    acknowledged = set().union(*(writer.acknowledged for writer in load))
    assert len(acknowledged) > 50
    present = []
    for node in cluster.nodes:
        index = index_of(node)
        found = set()
        for key in (key for writer in load for key in writer.attempted):
            answer = node.ask("GET", f"/v2/keys/{key}")
            if answer.status == 200:
                stored = answer.json["node"]
                assert stored["value"] == key
                assert stored["modifiedIndex"] == stored["createdIndex"]
                found.add(key)
        assert acknowledged <= found
        assert index == len(found)
        present.append(found)
    assert present[0] == present[1] == present[2]
    marks = [service.ask("GET", "/application/marks").json for service in cluster.services]
    assert {each["index"] for each in marks} == {len(present[0])}


def test_answers_are_those_of_a_service_with_raft_inside(tmp_path: Path, each: DrivenCluster) -> None:
    def seen(node: NodeProcess, method: str, target: str, form: dict[str, object] | None) -> object:
        answer = node.ask(method, target, form)
        headers = {name: text for name, text in answer.headers.items() if name not in PASSING}
        return answer.status, headers, answer.body

    (tmp_path / "embedded").mkdir()
    with cluster_of(SERVICES, tmp_path / "embedded", QUICK) as embedded:
        for number, request in enumerate(requests(seed=1, count=300)):
            which = number // 100  # a default GET is local: stay with the node that wrote
            if number % 100 == 0:
                assert index_of(each.nodes[which]) == index_of(embedded.nodes[which])
            assert seen(each.nodes[which], *request) == seen(embedded.nodes[which], *request), request


def node_of(cluster: DrivenCluster, node: NodeProcess) -> list[NodeProcess]:
    return [node]


def service_of(cluster: DrivenCluster, node: NodeProcess) -> list[NodeProcess]:
    return [cluster.service_of(node)]


def both_of(cluster: DrivenCluster, node: NodeProcess) -> list[NodeProcess]:
    return [node, cluster.service_of(node)]


def all_services(cluster: DrivenCluster, node: NodeProcess) -> list[NodeProcess]:
    return cluster.services


Whom = Callable[[DrivenCluster, NodeProcess], list[NodeProcess]]


def kill_and_start_under_load(cluster: DrivenCluster, whom: Whom, turns: int) -> list[Writer]:
    load = writers(cluster)
    for turn in range(turns):
        time.sleep(0.5)
        victims = whom(cluster, cluster.leader() if turn % 2 else cluster.followers()[0])
        for victim in victims:
            victim.kill()
        time.sleep(0.5 if turn < 2 else 0)  # long enough to be missed, or hardly away
        for victim in victims:
            victim.start()
    return load


@pytest.mark.parametrize("whom", [node_of, both_of, all_services])
def test_killing_under_load_loses_nothing_that_was_acknowledged_and_repeats_nothing(
    cluster: DrivenCluster, whom: Whom
) -> None:
    check_nothing_lost_or_repeated(cluster, kill_and_start_under_load(cluster, whom, 4))


def test_services_of_every_kind_get_again_what_they_had(each: DrivenCluster) -> None:
    check_nothing_lost_or_repeated(each, kill_and_start_under_load(each, service_of, 3))


@pytest.mark.parametrize("variant", ["v1.servlet", "v1.reactive"])
def test_a_service_with_a_database_goes_on_from_what_it_holds(tmp_path: Path, variant: str) -> None:
    cluster = driven_cluster_of(each_on_its_default(variant), tmp_path, QUICK)
    for service in cluster.services:
        service.add_flags("--database-url", f"sqlite:///{tmp_path / service.name}.db")
    with cluster:
        check_nothing_lost_or_repeated(cluster, kill_and_start_under_load(cluster, both_of, 3))
        node, service = cluster.nodes[0], cluster.services[0]
        before = service.ask("GET", "/application/marks").json["index"]
        node.kill()  # nobody is there to feed it
        service.kill()
        service.start()
        wait_for(lambda: service.knows_leader())  # that is, its /health is well
        assert service.ask("GET", "/application/marks").json["index"] == before


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("whose", ["the leader's", "a follower's"])
def test_while_a_service_is_stopped_its_node_is_unhealthy_and_says_so(
    cluster: DrivenCluster, whose: str
) -> None:
    node = cluster.leader() if whose == "the leader's" else cluster.followers()[0]
    other = next(each for each in cluster.nodes if each is not node)
    load = writers(cluster)
    time.sleep(0.5)
    cluster.service_of(node).send_signal(signal.SIGSTOP)
    wait_for(lambda: not node.knows_leader())
    health = node.ask("GET", "/health")
    assert health.status == 503
    assert "did not answer within 3 s" in health.json["reason"]
    began = time.monotonic()
    for answer in (node.ask("PUT", "/v2/keys/k", {"value": "v"}), node.ask("GET", "/v2/keys/k")):
        assert (answer.status, answer.json["errorCode"]) == (500, 300)
    assert time.monotonic() - began < 12
    assert other.ask("PUT", "/v2/keys/elsewhere", {"value": "v"}).status == 201
    assert other.ask("DELETE", "/v2/keys/elsewhere").status == 200
    cluster.service_of(node).send_signal(signal.SIGCONT)
    wait_for(node.knows_leader)
    for writer in load:
        writer.finish()
    indexes = {index_of(each) for each in cluster.nodes}
    assert len(indexes) == 1
    answer = node.ask(
        "GET", "/v2/keys/k?quorum=true"
    )  # its outcome was unknown: it was committed, and so applied
    assert answer.json["node"]["value"] == "v"


def test_a_service_that_comes_late_is_found(tmp_path: Path) -> None:
    cluster = driven_cluster_of(SERVICES, tmp_path, QUICK)
    node, service = cluster.nodes[0], cluster.services[0]
    with cluster:
        service.kill()
        node.kill()
        node.start()
        wait_for(lambda: node.state() is not None)
        health = node.ask("GET", "/health")
        assert (health.status, node.knows_leader()) == (503, False)
        assert cluster.nodes[1].ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
        service.start()
        cluster.wait_ready()
        assert node.ask("GET", "/v2/keys/k").json["node"]["value"] == "v"


def ends_with(node: NodeProcess, *parts: str) -> None:
    assert node.stop_by_itself() == 1
    said = node.log.read_text()
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    for part in ("common_raft.independent: ", *parts):
        assert part in last


def test_a_service_that_another_node_drives_is_refused(cluster: DrivenCluster) -> None:
    thief = cluster.nodes[1]
    thief.kill()
    thief.add_flags("--application", f"http://127.0.0.1:{cluster.services[0].client_port}")
    thief.start()
    ends_with(thief, "is driven by member", "and not by member")
    assert cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201


def test_a_service_that_is_ahead_of_the_log_is_refused(tmp_path: Path) -> None:
    cluster = driven_cluster_of(SERVICES, tmp_path, QUICK)
    with cluster:
        for number in range(20):
            cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": number})
        for node in cluster.nodes:
            node.kill()
        cluster.nodes[0].add_flags("--data-dir", str(tmp_path / "empty"))
        cluster.nodes[0].start()
        ends_with(cluster.nodes[0], "has applied entry", "this log ends at 0")


def test_what_is_no_service_is_refused(cluster: DrivenCluster) -> None:
    confused = cluster.nodes[1]
    confused.kill()
    confused.add_flags("--application", f"http://127.0.0.1:{cluster.nodes[0].client_port}")
    confused.start()
    ends_with(confused, f"http://127.0.0.1:{cluster.nodes[0].client_port}", "404")


def test_an_application_port_in_use_is_said_with_its_flag() -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    service = [*command("v2.reactive"), "--listen-application-urls", url]
    with subprocess.Popen(service, stderr=subprocess.PIPE) as first:
        try:
            assert first.stderr is not None
            assert b"driven by a Raft node" in first.stderr.readline()
            second = subprocess.run(service, capture_output=True, text=True, timeout=30, check=False)
        finally:
            first.terminate()
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"--listen-application-urls {url}" in second.stderr
