"""Clusters of processes that grow, shrink and lose members under load: nothing acknowledged is lost."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common_raft.testing.processes import NodeProcess, ProcessCluster, free_ports
from common_raft.tests.services.test_bad_start import one_line_with, run
from common_raft.tests.services.variants import cluster_of, command, driven_cluster_of

pytestmark = pytest.mark.processes
FAST = ("--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync")


class Load:
    """A client that writes numbered keys to whichever member answers."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self.acknowledged: list[int] = []
        self.failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="load")

    def _write(self) -> None:
        number = 0
        while not self._stopping.wait(0.005):
            running = [node for node in self._cluster.nodes if node.running]
            number += 1
            try:
                answer = running[number % len(running)].ask(
                    "PUT", f"/v2/keys/k{number}", {"value": number}, timeout=2
                )
            except (OSError, ZeroDivisionError):
                self.failures += 1
                continue
            if answer.status == 201:
                self.acknowledged.append(number)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for_more(self, count: int = 20) -> None:
        goal, deadline = len(self.acknowledged) + count, time.monotonic() + 20
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, f"nothing is acknowledged any more\n{self._cluster.logs()}"
            time.sleep(0.02)


def nothing_is_lost(load: Load, cluster: ProcessCluster) -> None:
    """Every member that runs has every acknowledged key."""
    for node in cluster.nodes:
        if node.running:
            for number in load.acknowledged:
                answer = node.ask("GET", f"/v2/keys/k{number}?quorum=true")
                assert answer.status == 200, (node.name, number, answer)


def added(cluster: ProcessCluster, through: NodeProcess, service: list[str]) -> NodeProcess:
    node = cluster.add(service, through)
    node.start()
    cluster.wait_ready()
    until(lambda: node.name in names(through), cluster)
    return node


def names(node: NodeProcess) -> list[str]:
    return sorted(member["name"] for member in node.ask("GET", "/v2/members").json["members"])


def knows_all(node: NodeProcess, size: int) -> bool:
    """Whether all members have told this one where clients find them."""
    members = node.ask("GET", "/v2/members").json["members"]
    return len(members) == size and all(member["clientURLs"] for member in members)


def until(condition: Callable[[], bool], cluster: ProcessCluster, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.05)


def remove(node: NodeProcess, through: NodeProcess) -> None:
    answer = through.ask("DELETE", f"/v2/members/{node.member_id()}")
    assert answer.status == 204, answer


def stops_as_removed(node: NodeProcess) -> None:
    assert node.stop_by_itself(15) == 0
    last = node.log.read_text().strip().splitlines()[-1]
    assert "permanently removed from the cluster" in last, last
    assert "Traceback" not in node.log.read_text()


@contextmanager
def growing(directory: Path, variants: list[tuple[str, str]]) -> Iterator[ProcessCluster]:
    with cluster_of(variants, directory, FAST) as cluster:
        until(lambda: all(knows_all(node, len(cluster.nodes)) for node in cluster.nodes), cluster)
        yield cluster


def test_from_one_member_to_five_and_back_under_load(tmp_path: Path) -> None:
    """Each member is of another variant; one is restarted in between, with the flags that it joined with."""
    with growing(tmp_path, [("v2.reactive", "native")]) as cluster:
        with Load(cluster) as load:
            for number, variant in enumerate(["v2.servlet", "v1.servlet", "v3.reactive", "v1.reactive"]):
                load.wait_for_more()
                added(cluster, cluster.nodes[number], command(variant))
            load.wait_for_more()
            second = cluster.nodes[1]
            second.kill()
            second.start()
            cluster.wait_ready()
            assert names(second) == ["n1", "n2", "n3", "n4", "n5"]
            load.wait_for_more()
            for _ in range(3):
                leaving = cluster.leader()
                through = next(node for node in cluster.nodes if node.running and node is not leaving)
                remove(leaving, through)
                stops_as_removed(leaving)
                cluster.wait_ready()
                load.wait_for_more()
        left = [node.name for node in cluster.nodes if node.running]
        assert all(names(node) == left for node in cluster.nodes if node.running)
        nothing_is_lost(load, cluster)


def test_a_dead_member_is_replaced_and_learns_that_it_was_removed_when_it_comes_back(tmp_path: Path) -> None:
    with growing(tmp_path, [("v2.reactive", "native")] * 3) as cluster:
        with Load(cluster) as load:
            load.wait_for_more()
            dead = cluster.followers()[0]
            dead_id = dead.member_id()
            dead.kill()
            through = cluster.leader()
            assert through.ask("DELETE", f"/v2/members/{dead_id}").status == 204
            new = added(cluster, through, command("v2.servlet"))
            load.wait_for_more()
            dead.start()
            stops_as_removed(dead)
            assert through.ask("DELETE", f"/v2/members/{dead_id}").status == 410
            load.wait_for_more()
        assert names(new) == sorted(node.name for node in cluster.nodes if node.running)
        nothing_is_lost(load, cluster)


def test_nodes_that_drive_services_come_and_go_as_well(tmp_path: Path) -> None:
    services = [("v2.reactive", "native"), ("v1.servlet", "granian"), ("v2.servlet", "hypercorn")]
    with driven_cluster_of(services, tmp_path, FAST) as cluster:
        for number in range(20):
            assert cluster.nodes[0].ask("PUT", f"/v2/keys/k{number}", {"value": number}).status == 201
        leaving = cluster.leader()
        through = cluster.followers()[0]
        remove(leaving, through)
        stops_as_removed(leaving)
        cluster.wait_ready()
        node = cluster.add(command("v2.reactive"), through)  # a mixed cluster: this one has its own state
        node.start()
        cluster.wait_ready()
        assert node.ask("GET", "/v2/keys/k19?quorum=true").json["node"]["value"] == "19"
        until(lambda: node.name in names(through), cluster)


def test_who_cannot_join_is_told_why_in_one_line(tmp_path: Path) -> None:
    service = command("v2.reactive")
    with growing(tmp_path, [("v2.reactive", "native")]) as cluster:
        (node,) = cluster.nodes
        running = node.ask("GET", "/v2/members").json["members"][0]["peerURLs"][0]
        mine, nobody = (f"http://127.0.0.1:{port}" for port in free_ports(2))

        def join(name: str, peers: str, directory: str) -> str:
            client, listen = (f"http://127.0.0.1:{port}" for port in free_ports(2))
            status, said = run(
                service,
                *(
                    "--name",
                    name,
                    "--initial-cluster-state",
                    "existing",
                    "--data-dir",
                    str(tmp_path / directory),
                ),
                *("--initial-advertise-peer-urls", mine, "--initial-cluster", f"{name}={mine}{peers}"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", listen),
            )
            assert status == 1
            return said

        one_line_with(join("m", "", "d"), "--initial-cluster", "nobody but this member")
        one_line_with(join("m", f",x={nobody}", "d"), "--initial-cluster", "no member answers", nobody)
        said = join("m", f",n1={running}", "d")
        one_line_with(said, "--initial-advertise-peer-urls", mine, "no member of cluster", "POST /v2/members")
        assert node.ask_json("POST", "/v2/members", {"peerURLs": [mine]}).status == 201
        said = join("m", f",x={nobody},n1={running}", "d")
        one_line_with(said, "--initial-cluster", f"n1={running}", f"m={mine}")
        assert not (tmp_path / "d").exists()


def test_a_member_whose_directory_is_gone_must_not_go_on_as_if_it_had_promised_nothing(
    tmp_path: Path,
) -> None:
    with growing(tmp_path, [("v2.reactive", "native")] * 3) as cluster:
        lost = cluster.followers()[0]
        lost.kill()
        shutil.rmtree(tmp_path / "data" / lost.name)
        lost.start()
        assert lost.stop_by_itself() == 1
        one_line_with(lost.log.read_text(), "--data-dir", "has run before", "existing")
