"""Clusters that real clients are tried with: etcd's own, so that a test is known to be right, and ours."""

import time
from collections.abc import Iterator

import pytest

from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster
from common_raft.tests.services.variants import SYSTEMS, system_of


@pytest.fixture(scope="session", params=SYSTEMS)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    with system_of(request.param, tmp_path_factory.mktemp("system")) as started:
        yield started


@pytest.fixture
def cluster(running: ProcessCluster) -> ProcessCluster:
    """Three nodes, all of them there, and no keys that somebody can see."""
    for node in running.nodes:
        if not node.running:
            node.start()
    running.wait_ready()
    _wait_until_all_are_named(running.nodes)
    first = running.nodes[0]
    for node in first.ask("GET", "/v2/keys?quorum=true").json["node"].get("nodes", []):
        first.ask("DELETE", f"/v2/keys{node['key']}?recursive=true")
    first.ask("DELETE", "/v2/keys/_locks?recursive=true")
    for node in running.nodes:
        node.ask("GET", "/v2/keys?quorum=true")  # once it knows of that, too
    return running


def _wait_until_all_are_named(nodes: list[NodeProcess], seconds: float = 30) -> None:
    """Nodes of ours take requests a moment before all of them know where the others take theirs; etcd's do not."""
    urls = {f"http://{HOST}:{node.client_port}" for node in nodes}
    deadline = time.monotonic() + seconds
    for node in nodes:
        while set(node.ask("GET", "/v2/machines").body.decode().split(", ")) != urls:
            assert time.monotonic() < deadline, f"{node.name} does not name all machines"
            time.sleep(0.01)
