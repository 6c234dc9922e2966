"""Each variant without Raft: one process that answers as a node does, and keeps no log."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common_raft.testing.processes import HOST, NodeProcess, free_ports
from common_raft.tests.services.variants import SERVERS, command
from common_raft.tests.web_fixtures import wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(
    params=[(name, mode) for name in SERVERS for mode in ("linearizable", "unsafe")], ids="-".join
)
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeProcess]:
    variant, mode = request.param
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    flags = ["--standalone", mode, "--listen-client-urls", url, "--advertise-client-urls", url]
    node = NodeProcess("alone", [*command(variant), *flags], port, tmp_path / "log")
    node.start()
    try:
        wait_for(lambda: node.alive_or_raise() and node.knows_leader(), 20)
        yield node
    finally:
        if node.running:
            node.kill()


def test_it_answers_as_a_leader_and_stops_when_told_to(alone: NodeProcess) -> None:
    assert alone.ask("PUT", "/v2/keys/k", {"value": "v"}).status == 201
    for target in ("/v2/keys/k", "/v2/keys/k?quorum=true"):
        answer = alone.ask("GET", target)
        assert (answer.json["node"]["value"], answer.headers["x-etcd-index"]) == ("v", "1")
    assert alone.ask("DELETE", "/v2/keys/k").json["prevNode"]["value"] == "v"
    assert alone.state() == "StateLeader"
    assert alone.stop() == 0


def test_many_clients_at_a_time_are_all_answered(alone: NodeProcess) -> None:
    with ThreadPoolExecutor(16) as clients:
        keys = [f"/v2/keys/k{number}" for number in range(200)]
        written = list(clients.map(lambda key: alone.ask("PUT", key, {"value": key}), keys))
        assert {answer.status for answer in written} == {201}
        read = clients.map(lambda key: alone.ask("GET", key).json["node"]["value"], keys)
        assert list(read) == keys


@pytest.mark.parametrize("alone", [(name, "linearizable") for name in SERVERS], indirect=True, ids="-".join)
def test_linearizable_operations_each_get_an_index_of_their_own(alone: NodeProcess) -> None:
    with ThreadPoolExecutor(16) as clients:
        written = clients.map(lambda value: alone.ask("PUT", "/v2/keys/k", {"value": value}), range(200))
        indexes = [answer.json["node"]["modifiedIndex"] for answer in written]
    assert sorted(indexes) == list(range(1, 201))
