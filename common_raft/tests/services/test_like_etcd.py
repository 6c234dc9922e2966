"""The same conversations with etcd and with ours, in every variant and behind every server: the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common_raft.testing.processes import NodeProcess, ProcessCluster
from common_raft.tests.likeness.cases import FILE, read
from common_raft.tests.likeness.deviations import DEVIATIONS, excused
from common_raft.tests.likeness.differences import difference
from common_raft.tests.services.variants import CLUSTERS, Node, cluster_of, front
from common_raft.tests.services.yardstick import (
    FLAGS,
    Yardstick,
    compare,
    conversations_alone,
    conversations_with_clusters,
    hold,
    hold_case,
)

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ALONE: list[Node] = [("v2.reactive", "native")]


@pytest.fixture(scope="module")
def etcd(three_etcds: Yardstick) -> ProcessCluster:
    return three_etcds.cluster


@pytest.fixture(scope="module", params=CLUSTERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessCluster]:
    with cluster_of(CLUSTERS[name], tmp_path_factory.mktemp("ours")) as started:
        yield started


def test_one_node_answers_as_etcd(one_etcd: Yardstick, compared: Counter[str], tmp_path: Path) -> None:
    conversations = conversations_alone()
    with cluster_of(ALONE, tmp_path, FLAGS) as one:
        found = compare(one_etcd, one, conversations)
    if found:
        pytest.fail(found, pytrace=False)
    compared["one v2.reactive"] += sum(map(len, conversations))


def test_three_nodes_answer_as_etcds(
    three_etcds: Yardstick, ours: ProcessCluster, name: str, compared: Counter[str]
) -> None:
    conversations = conversations_with_clusters()
    found = compare(three_etcds, ours, conversations)
    if found:
        pytest.fail(found, pytrace=False)
    compared[name] += sum(map(len, conversations))


def test_what_was_found_once_is_as_etcd_says(ours: ProcessCluster, name: str, compared: Counter[str]) -> None:
    """Each case through another of the nodes."""
    for number, case in enumerate(read(FILE.read_text())):
        which = number % len(ours.nodes)
        who = CLUSTERS[name][which]
        answers = [
            expected if excused(request, [front(who)]) else answer
            for request, expected, answer in zip(
                case.requests, case.expected, hold_case(ours.nodes[which].client_port, case), strict=True
            )
        ]
        assert case.text(answers) == case.text(case.expected), who
        compared[name] += len(answers)


def test_what_is_excused_is_still_answered_otherwise(
    three_etcds: Yardstick, ours: ProcessCluster, name: str
) -> None:
    for node, who in zip(ours.nodes, CLUSTERS[name], strict=True):
        for why, deviation in DEVIATIONS.items():
            asked = [deviation.example]
            if front(who) in deviation.servers:
                theirs, mine = three_etcds.told(asked), hold([node.client_port], asked)
                assert difference(theirs, mine), (who, why)


def test_what_a_node_says_of_itself_has_the_fields_that_etcds_has(
    etcd: ProcessCluster, ours: ProcessCluster
) -> None:
    theirs, mine = (c.leader().ask("GET", "/v2/stats/self").json for c in (etcd, ours))
    followers = [c.followers()[0].ask("GET", "/v2/stats/self").json for c in (etcd, ours)]
    assert mine["state"] == theirs["state"] == "StateLeader"
    assert [stats["state"] for stats in followers] == ["StateFollower"] * 2
    assert mine["leaderInfo"]["leader"] == mine["id"]
    rates = {"sendPkgRate", "sendBandwidthRate"}  # which are left out when nothing was sent for a second
    assert set(mine) - rates == set(theirs) - rates
    assert set(mine["leaderInfo"]) == set(theirs["leaderInfo"])


def test_a_leader_says_of_its_followers_what_etcds_says(etcd: ProcessCluster, ours: ProcessCluster) -> None:
    for cluster in (etcd, ours):
        leader, followers = cluster.leader(), cluster.followers()
        leader.ask("PUT", "/v2/keys/stats", {"value": "1"})
        stats = leader.ask("GET", "/v2/stats/leader").json
        assert stats["leader"] == leader.member_id()
        assert set(stats["followers"]) == {node.member_id() for node in followers}
        for follower in stats["followers"].values():
            assert set(follower) == {"latency", "counts"}
            assert list(follower["counts"]) == ["fail", "success"]
            assert follower["counts"]["success"] > 0
            latency = follower["latency"]
            assert list(latency) == ["current", "average", "standardDeviation", "minimum", "maximum"]
            assert 0 < latency["minimum"] <= latency["average"] <= latency["maximum"]
    theirs, mine = (c.followers()[0].ask("GET", "/v2/stats/leader") for c in (etcd, ours))
    assert (mine.status, mine.body) == (theirs.status, theirs.body)


def families(node: NodeProcess) -> dict[str, tuple[str, frozenset[str]]]:
    """The metrics of etcd's names: each one's type, and the names of its labels."""
    answer = node.ask("GET", "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        family.name: (family.type, frozenset(label for sample in family.samples for label in sample.labels))
        for family in text_string_to_metric_families(answer.body.decode())
        if family.name.startswith(("etcd_", "os_fd_", "process_")) and family.samples
    }


#: Counters of etcd whose names lack the ending that Prometheus' client for Python gives all counters.
NOT_COUNTERS = {"etcd_server_health_success", "etcd_server_health_failures"}
#: What etcd shows only once there was one.
ONCE_THERE_WAS_ONE = {
    "etcd_network_disconnected_peers",
    "etcd_network_peer_sent_failures",
    "etcd_network_peer_round_trip_time_seconds",
}


def test_metrics_have_names_types_and_labels_of_etcds(etcd: ProcessCluster, ours: ProcessCluster) -> None:
    theirs = families(etcd.leader())
    mine = families(ours.leader())
    assert set(mine) - set(theirs) <= ONCE_THERE_WAS_ONE
    for name in set(mine) & set(theirs) - NOT_COUNTERS:
        assert mine[name] == theirs[name], name
    for name in ("etcd_server_has_leader", "etcd_server_proposals_committed_total", "process_open_fds"):
        assert name in mine


def test_metrics_move_with_what_is_done(ours: ProcessCluster) -> None:
    def of(node: NodeProcess) -> dict[str, float]:
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(node.ask("GET", "/metrics").body.decode())
            for sample in family.samples
            if not sample.labels
        }

    leader = ours.leader()
    before = of(leader)
    for number in range(10):
        leader.ask("PUT", "/v2/keys/metrics", {"value": number})
    after = of(leader)
    for name in (
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
    ):
        assert after[name] >= before[name] + 10, name
    assert after["etcd_disk_wal_write_bytes_total"] > before["etcd_disk_wal_write_bytes_total"]
    assert [of(node)["etcd_server_is_leader"] for node in ours.nodes].count(1) == 1
    assert all(of(node)["etcd_server_has_leader"] for node in ours.nodes)
