"""Three Raft nodes and the three services that they drive: any of them is killed, stopped and started again."""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common_raft.testing.processes import Answer, DrivenCluster, NodeProcess, free_ports
from common_raft.tests.services.variants import (
    CLUSTERS,
    SERVERS,
    command,
    driven_cluster_of,
    each_on_its_default,
)
from common_raft.tests.services.yardstick import Yardstick, compare, conversations_with_driven

pytestmark = pytest.mark.processes
SERVICES = each_on_its_default("v2.reactive")
QUICK = ["--heartbeat-interval", "20", "--election-timeout", "200"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DrivenCluster]:
    with driven_cluster_of(SERVICES, tmp_path, QUICK) as started:
        yield started


@pytest.fixture(params=CLUSTERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def each(kind: str, tmp_path: Path) -> Iterator[DrivenCluster]:
    """A cluster of each kind of services."""
    with driven_cluster_of(CLUSTERS[kind], tmp_path, QUICK) as started:
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


def check_nothing_lost_or_repeated(cluster: DrivenCluster, load: list[Writer], beside: int = 0) -> None:
    """Every key was written by one request: what is there was applied once, or the indexes would not add up.

    ``beside``: so many others were written by somebody else.
    """
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
        assert index == len(found) + beside
        present.append(found)
    assert present[0] == present[1] == present[2]
    marks = [service.ask("GET", "/application/marks").json for service in cluster.services]
    assert {each["index"] for each in marks} == {len(present[0]) + beside}


def test_answers_are_those_of_etcd(
    answers_of_three: Yardstick, each: DrivenCluster, kind: str, compared: Counter[str]
) -> None:
    conversations = conversations_with_driven()
    found = compare(answers_of_three, each, conversations)
    answers_of_three.stop()
    if found:
        pytest.fail(found, pytrace=False)
    compared[f"driven {kind}"] += sum(map(len, conversations))


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


OFTEN = [*QUICK, "--snapshot-count", "20"]


def says(node: NodeProcess, text: str) -> bool:
    return text in node.log.read_text()


#: Of the stores in memory, and of those that a service finds again: what is started has nothing, or the last it had.
DURABLE = ["v1.servlet", "v1.reactive", "v3.reactive"]


def with_files(cluster: DrivenCluster) -> DrivenCluster:
    for service in cluster.services:
        service.add_flags("--database-url", f"sqlite:///{cluster.directory / service.name}.db")
    return cluster


def write(node: NodeProcess, prefix: str, count: int) -> None:
    for number in range(count):
        assert node.ask("PUT", f"/v2/keys/{prefix}-{number}", {"value": number}).status == 201


@pytest.mark.parametrize("kind", ["v2.reactive", "mixed"])
def test_services_that_start_empty_get_what_the_log_has_no_more(tmp_path: Path, kind: str) -> None:
    with driven_cluster_of(CLUSTERS[kind], tmp_path, OFTEN) as cluster:
        write(cluster.nodes[0], "before", 70)
        for node in cluster.nodes:  # a second one: behind the first the log still has all
            wait_for(lambda log=node.log: log.read_text().count("took a snapshot") > 1)  # type: ignore[misc]
        load = kill_and_start_under_load(cluster, all_services, 2)
        check_nothing_lost_or_repeated(cluster, load, beside=70)
        assert all(says(service, "took the state of entry") for service in cluster.services)


def away_for_long(cluster: DrivenCluster) -> None:
    """Kills a follower and its service, and starts them again when nobody's log has what they lack."""
    write(cluster.nodes[0], "before", 30)
    node = cluster.followers()[0]
    others = [each for each in cluster.nodes if each is not node]
    for process in (node, cluster.service_of(node)):
        process.kill()
    load = [Writer(other, other.name) for other in others]
    for writer in load:
        writer.start()
    write(others[0], "meanwhile", 100)
    for process in (cluster.service_of(node), node):
        process.start()
    wait_for(lambda: says(cluster.service_of(node), "took the state of entry"))
    wait_for(lambda: sum(len(writer.acknowledged) for writer in load) > 100)
    check_nothing_lost_or_repeated(cluster, load, beside=130)


@pytest.mark.parametrize("kind", ["v2.reactive", "mixed"])
def test_a_node_and_its_service_that_were_away_for_long_catch_up(tmp_path: Path, kind: str) -> None:
    with driven_cluster_of(CLUSTERS[kind], tmp_path, OFTEN) as cluster:
        away_for_long(cluster)


def test_a_database_that_was_away_for_long_catches_up(tmp_path: Path) -> None:
    kinds = [(variant, SERVERS[variant][0]) for variant in DURABLE]
    with with_files(driven_cluster_of(kinds, tmp_path, OFTEN)) as cluster:
        away_for_long(cluster)
        node, service = cluster.nodes[0], cluster.services[0]
        for process in (node, service):
            process.stop()
            process.start()
        cluster.wait_ready()
        assert index_of(node) == index_of(cluster.nodes[1])


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


@pytest.mark.parametrize("variant", ["v1.servlet", "v1.reactive", "v3.reactive"])
def test_a_database_that_another_nodes_service_had_is_refused_after_a_restart_as_well(
    tmp_path: Path, variant: str
) -> None:
    cluster = driven_cluster_of(each_on_its_default(variant), tmp_path, QUICK)
    for service in cluster.services:
        service.add_flags("--database-url", f"sqlite:///{tmp_path / service.name}.db")
    with cluster:
        assert cluster.nodes[0].ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
        thief, service = cluster.nodes[1], cluster.services[0]
        for process in (thief, cluster.nodes[0], service):
            process.kill()
        service.start()
        thief.add_flags("--application", f"http://127.0.0.1:{service.client_port}")
        thief.start()
        ends_with(thief, "the database belongs to member", "give each its own")
        cluster.nodes[0].start()
        wait_for(cluster.nodes[0].knows_leader)
        assert cluster.nodes[0].ask("GET", "/v2/keys/k?quorum=true").json["node"]["value"] == "v"


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
