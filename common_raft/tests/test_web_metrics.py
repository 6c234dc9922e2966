"""``/metrics`` and ``/v2/stats`` of a node whose numbers are known."""

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common_raft.keyspace import HashMapStore, Keyspace
from common_raft.measures import Following, LogMeasures, Measurements, SnapshotMeasures, Traffic
from common_raft.tests.test_web_etcd_v2 import CORS, JSON, Api
from common_raft.web.application import application
from common_raft.web.response import Response

#: Name and labels of a sample.
Name = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def api() -> Api:
    return Api()


def parsed(answer: Response) -> dict[Name, float]:
    """Every sample, each of which is there once."""
    assert answer.status == 200
    samples = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def busy() -> Measurements:
    log, snapshots, followers = LogMeasures(), SnapshotMeasures(), {2: Following(), 0xA: Following()}
    for seconds in (0.0005, 0.001, 0.0015, 99.0):
        log.fsyncs.observe(seconds)
    log.written_bytes = 1234
    snapshots.saves.observe(0.5)
    followers[2].round_trips.observe(0.0003)
    for seconds in (0.001, 0.003):
        followers[2].latency.observe(seconds)
    followers[2].latency.failed = 4
    return Measurements(
        committed=17,
        pending=3,
        failed=5,
        failed_reads=6,
        leader_changes=7,
        late_heartbeats=8,
        restoring=True,
        log=log,
        snapshots=snapshots,
        traffic={2: Traffic(10, 20, 30, 40, connected=True), 0xA: Traffic()},
        followers=followers,
    )


def test_what_a_node_measures_has_etcds_names(api: Api) -> None:
    api.node.measured = busy()
    api.node.applied = 16
    own = "3115797e2b89d053"
    found = parsed(api("GET", "/metrics"))
    expected: dict[Name, float] = {
        ("etcd_server_has_leader", ()): 1,
        ("etcd_server_is_leader", ()): 1,
        ("etcd_server_is_learner", ()): 0,
        ("etcd_server_id", (("server_id", own),)): 1,
        ("etcd_server_version", (("server_version", "3.5.1"),)): 1,
        ("etcd_cluster_version", (("cluster_version", "3.5"),)): 1,
        ("etcd_server_leader_changes_seen_total", ()): 7,
        ("etcd_server_proposals_committed_total", ()): 17,
        ("etcd_server_proposals_applied_total", ()): 16,
        ("etcd_server_proposals_pending", ()): 3,
        ("etcd_server_proposals_failed_total", ()): 5,
        ("etcd_server_read_indexes_failed_total", ()): 6,
        ("etcd_server_heartbeat_send_failures_total", ()): 8,
        ("etcd_server_snapshot_apply_in_progress_total", ()): 1,
        ("etcd_disk_wal_write_bytes_total", ()): 1234,
        ("etcd_disk_wal_fsync_duration_seconds_count", ()): 4,
        ("etcd_disk_wal_fsync_duration_seconds_sum", ()): 99.003,
        ("etcd_disk_wal_fsync_duration_seconds_bucket", (("le", "0.001"),)): 2,
        ("etcd_disk_wal_fsync_duration_seconds_bucket", (("le", "0.002"),)): 3,
        ("etcd_disk_wal_fsync_duration_seconds_bucket", (("le", "8.192"),)): 3,
        ("etcd_disk_wal_fsync_duration_seconds_bucket", (("le", "+Inf"),)): 4,
        ("etcd_snap_fsync_duration_seconds_count", ()): 0,
        ("etcd_debugging_snap_save_total_duration_seconds_count", ()): 1,
        ("etcd_network_active_peers", (("Local", own), ("Remote", "2"))): 1,
        ("etcd_network_active_peers", (("Local", own), ("Remote", "a"))): 0,
        ("etcd_network_disconnected_peers_total", (("Local", own), ("Remote", "2"))): 40,
        ("etcd_network_peer_sent_bytes_total", (("To", "2"),)): 10,
        ("etcd_network_peer_received_bytes_total", (("From", "2"),)): 20,
        ("etcd_network_peer_sent_failures_total", (("To", "2"),)): 30,
        ("etcd_network_peer_round_trip_time_seconds_bucket", (("To", "2"), ("le", "0.0002"))): 0,
        ("etcd_network_peer_round_trip_time_seconds_bucket", (("To", "2"), ("le", "0.0004"))): 1,
        ("etcd_network_peer_round_trip_time_seconds_count", (("To", "a"),)): 0,
    }
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)
    assert found["process_open_fds", ()] > 0
    assert found["os_fd_limit", ()] >= found["os_fd_used", ()] > 0
    assert found["process_resident_memory_bytes", ()] > 1 << 20


def test_a_node_without_log_and_peers_has_no_metrics_of_them(api: Api) -> None:
    names = {name for name, _ in parsed(api("GET", "/metrics"))}
    assert not {name for name in names if name.startswith(("etcd_disk", "etcd_snap", "etcd_network"))}
    assert "etcd_server_has_leader" in names


def test_a_leader_that_is_another_or_not_known_shows(api: Api) -> None:
    for leader, known in ((5, 1), (0, 0)):
        api.node.leader = leader
        found = parsed(api("GET", "/metrics"))
        assert (found["etcd_server_has_leader", ()], found["etcd_server_is_leader", ()]) == (known, 0)


def test_answers_about_health_are_counted(api: Api) -> None:
    api("GET", "/health")
    api("GET", "/health")
    api.node.leader = 0
    api("GET", "/health")
    found = parsed(api("GET", "/metrics"))
    assert found["etcd_server_health_success", ()] == 2
    assert found["etcd_server_health_failures", ()] == 1


def test_metrics_are_text_for_every_method_and_at_one_path_alone(api: Api) -> None:
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "FOO"):
        answer = api(method, "/metrics?x=%zz")
        assert answer.status == 200
        assert answer.head == CORS + b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
    assert api("OPTIONS", "/metrics").body == b""
    assert api("GET", "/metrics/").status == 404


def test_metrics_come_in_the_order_of_their_names(api: Api) -> None:
    names = [
        line.split()[2] for line in api("GET", "/metrics").body.decode().splitlines() if "# TYPE" in line
    ]
    assert names == sorted(names)


def test_what_the_store_counts_is_shown_in_both_places(api: Api) -> None:
    stats = api.node.keyspace.stats
    stats.gets_success, stats.gets_fail, stats.compare_and_swap_fail = 3, 4, 5
    for _ in range(6):
        api.node.keyspace.watchers.watch("/a", recursive=False, stream=True, since=0, notify=print)
    assert api("GET", "/v2/stats/store") == Response(
        200,
        JSON,
        b'{"getsSuccess":3,"getsFail":4,"setsSuccess":0,"setsFail":0,"deleteSuccess":0,"deleteFail":0,'
        b'"updateSuccess":0,"updateFail":0,"createSuccess":0,"createFail":0,"compareAndSwapSuccess":0,'
        b'"compareAndSwapFail":5,"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":6}',
    )
    found = parsed(api("GET", "/metrics"))
    assert found["etcd_debugging_store_reads_total", (("action", "get"),)] == 7
    assert found["etcd_debugging_store_writes_total", (("action", "compareAndSwap"),)] == 5
    assert found["etcd_debugging_store_watchers", ()] == 6


def test_a_leader_says_how_its_followers_do(api: Api) -> None:
    api.node.measured = busy()
    answer = api("GET", "/v2/stats/leader")
    assert (answer.status, answer.head) == (200, JSON)
    assert answer.body.startswith(
        b'{"leader":"3115797e2b89d053","followers":{"2":{"latency":{"current":3,"average":2'
    )
    assert json.loads(answer.body)["followers"] == {
        "2": {
            "latency": pytest.approx(
                {"current": 3, "average": 2, "standardDeviation": 1, "minimum": 1, "maximum": 3}
            ),
            "counts": {"fail": 4, "success": 2},
        },
        "a": {
            "latency": {
                "current": 0,
                "average": 0,
                "standardDeviation": 0,
                "minimum": 9223372036854776000,
                "maximum": 0,
            },
            "counts": {"fail": 0, "success": 0},
        },
    }
    api.node.measured = Measurements(committed=0)
    assert api("GET", "/v2/stats/leader").body == b'{"leader":"3115797e2b89d053","followers":{}}'


def test_only_the_leader_knows_its_followers(api: Api) -> None:
    for leader in (5, 0):
        api.node.leader = leader
        assert api("GET", "/v2/stats/leader") == Response(403, JSON, b'{"message":"not current leader"}')


def test_rates_are_shown_while_there_are_any(api: Api) -> None:
    api.node.measured.receiving = (1.5, 2e-7)
    assert api("GET", "/v2/stats/self").body.endswith(
        b'"recvAppendRequestCnt":7,"recvPkgRate":1.5,"recvBandwidthRate":2e-7,"sendAppendRequestCnt":9}'
    )
    api.node.measured.receiving = (0, 0)
    api.node.measured.sending = (3, 4)
    assert api("GET", "/v2/stats/self").body.endswith(
        b'"recvAppendRequestCnt":7,"sendAppendRequestCnt":9,"sendPkgRate":3,"sendBandwidthRate":4}'
    )


def test_a_service_that_a_node_drives_has_metrics_of_its_store_and_process() -> None:
    driven = application(Keyspace(HashMapStore()))
    answers: list[Response] = []
    driven.handle("GET", b"/metrics", None, b"", answers.append)
    names = {name for name, _ in parsed(answers[0])}
    assert {"etcd_debugging_store_reads_total", "process_open_fds", "python_info"} <= names
    assert not {name for name in names if name.startswith("etcd_server")}
