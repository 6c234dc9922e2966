"""Patroni's calls to its store, by its own code: what its ``etcd:`` section makes of etcd's v2 API."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import urllib3.util.connection
from patroni.dcs import AbstractDCS, Cluster, Leader, get_dcs
from patroni.exceptions import DCSError

from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster

pytestmark = pytest.mark.processes

#: Seconds that a test waits for what must come, however busy the machine is.
PATIENCE = 30.0
#: Long enough for no key to expire while a test looks at it.
LONG = 600


@pytest.fixture(autouse=True)
def _urllib3_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patroni puts a function of its own there, for the whole process."""
    monkeypatch.setattr(
        urllib3.util.connection, "create_connection", urllib3.util.connection.create_connection
    )


@pytest.fixture(autouse=True)
def _without_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="patroni")


def connect(name: str, node: NodeProcess, ttl: int = LONG) -> AbstractDCS:
    """What the member ``name`` of the PostgreSQL cluster ``pair`` has for a store; it is told of one node alone."""
    return get_dcs(
        {
            "scope": "pair",
            "name": name,
            "ttl": ttl,
            "loop_wait": 10,
            "retry_timeout": 10,
            "etcd": {"host": f"{HOST}:{node.client_port}"},
        }
    )


@pytest.fixture
def first(cluster: ProcessCluster) -> AbstractDCS:
    return connect("first", cluster.nodes[0])


@pytest.fixture
def second(cluster: ProcessCluster) -> AbstractDCS:
    """The other member; its node may be behind that of the first."""
    return connect("second", cluster.nodes[1])


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def seen(dcs: AbstractDCS, wanted: Callable[[Cluster], object]) -> Cluster:
    """The state once it is as wanted: Patroni's reads are local ones, and its node may be behind."""
    deadline = time.monotonic() + PATIENCE
    while not wanted(state := dcs.get_cluster()):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def led_by(name: str) -> Callable[[Cluster], bool]:
    return lambda state: state.leader_name == name


def leader_of(dcs: AbstractDCS) -> Leader:
    found = dcs.get_cluster().leader
    assert found is not None
    return found


def lead(first: AbstractDCS, second: AbstractDCS) -> Cluster:
    """The first member takes the lead; returns what the second sees of it."""
    assert first.attempt_to_acquire_leader()
    return seen(second, led_by("first"))


def test_all_machines_are_found_through_one(cluster: ProcessCluster, first: AbstractDCS) -> None:
    urls = {f"http://{HOST}:{node.client_port}" for node in cluster.nodes}
    assert set(first._client.machines) == set(first._client.machines_cache) == urls
    assert first._client.machines_cache[0] == f"http://{HOST}:{cluster.nodes[0].client_port}"


def test_where_nothing_is_yet(first: AbstractDCS) -> None:
    state = first.get_cluster()
    assert state.is_empty()
    assert (state.initialize, state.leader, state.members) == (None, None, [])


def test_one_member_initializes(first: AbstractDCS, second: AbstractDCS) -> None:
    assert first.initialize() is True
    assert second.initialize() is False
    assert first.get_cluster().initialize == ""
    assert first.initialize(create_new=False, sysid="7123456789") is True
    assert first.get_cluster().initialize == "7123456789"
    assert first.cancel_initialization() is True
    assert first.cancel_initialization() is False
    assert first.initialize(create_new=False, sysid="7123456789") is False
    assert second.initialize() is True


def test_members_tell_of_themselves(first: AbstractDCS, second: AbstractDCS) -> None:
    data = {
        "conn_url": "postgres://127.0.0.1:5432/postgres",
        "state": "running",
        "role": "replica",
        "ü": "☃ &=",
    }
    assert first.touch_member(data) is True
    assert second.touch_member({"state": "starting"}) is True
    state = seen(second, lambda state: len(state.members) == 2)
    assert {member.name: member.data for member in state.members} == {
        "first": data,
        "second": {"state": "starting"},
    }
    assert all(LONG - 10 < member.session <= LONG for member in state.members)
    again = first.get_cluster().get_member("first", fallback_to_leader=False)
    assert first.touch_member(data) is True
    assert first.get_cluster().get_member("first", fallback_to_leader=False).version > again.version


def test_a_member_that_is_gone_is_forgotten(cluster: ProcessCluster, first: AbstractDCS) -> None:
    mortal = connect("mortal", cluster.nodes[1], ttl=1)
    assert mortal.touch_member({"state": "running"})
    assert first.touch_member({"state": "running"})
    state = seen(first, lambda state: not state.has_member("mortal"))
    assert [member.name for member in state.members] == ["first"]


def test_one_member_leads(first: AbstractDCS, second: AbstractDCS) -> None:
    assert first.attempt_to_acquire_leader() is True
    assert first.attempt_to_acquire_leader() is False
    assert second.attempt_to_acquire_leader() is False
    assert first.touch_member({"role": "primary"})
    state = seen(second, lambda state: state.members)
    assert (state.leader.name, state.leader.data) == ("first", {"role": "primary"})
    assert LONG - 10 < state.leader.session <= LONG


def test_the_lead_is_kept_by_who_has_it_alone(first: AbstractDCS, second: AbstractDCS) -> None:
    elsewhere = lead(first, second)
    first.set_ttl(2 * LONG)
    assert first.update_leader(first.get_cluster(), None) is True
    assert LONG < leader_of(first).session <= 2 * LONG
    assert second.update_leader(elsewhere, None) is False
    assert leader_of(first).name == "first"


def test_a_lead_that_was_lost_is_taken_again_where_nobody_else_has(
    first: AbstractDCS, second: AbstractDCS
) -> None:
    lead(first, second)
    before = first.get_cluster()
    assert first.delete_leader(before.leader) is True
    assert first.get_cluster().is_unlocked()
    assert first.update_leader(before, None) is True
    assert leader_of(first).name == "first"
    assert first.delete_leader(before.leader) is True
    assert second.attempt_to_acquire_leader() is True
    assert first.update_leader(before, None) is False


def test_the_lead_is_taken_without_asking_at_a_bootstrap(first: AbstractDCS, second: AbstractDCS) -> None:
    before = lead(first, second)
    assert second.take_leader()
    seen(first, led_by("second"))
    assert first.delete_leader(before.leader) is False
    assert second.delete_leader(leader_of(second), last_lsn=4096) is True
    assert second.get_cluster().is_unlocked()
    assert second.get_cluster().status.last_lsn == 4096


def test_a_lead_ends_with_its_ttl(cluster: ProcessCluster, second: AbstractDCS) -> None:
    mortal = connect("mortal", cluster.nodes[0], ttl=2)
    assert mortal.attempt_to_acquire_leader()
    before = seen(second, led_by("mortal"))
    assert second.watch(before.leader.version, PATIENCE) is True
    assert second.get_cluster().is_unlocked()
    assert second.attempt_to_acquire_leader() is True
    assert mortal.update_leader(before, None) is False


def test_the_leader_tells_how_far_it_is(first: AbstractDCS, second: AbstractDCS) -> None:
    lead(first, second)
    assert first.update_leader(
        first.get_cluster(), 4096, {"second": 1024}, {"first": "http://127.0.0.1:8008"}
    )
    state = seen(second, lambda state: state.failsafe)
    assert (state.status.last_lsn, state.status.slots) == (4096, {"second": 1024})
    assert state.failsafe == second.failsafe == {"first": "http://127.0.0.1:8008"}
    first.write_leader_optime(8192)
    assert first.get_cluster().status.last_lsn == 8192


def test_members_of_old_are_told_in_their_own_key(cluster: ProcessCluster, first: AbstractDCS) -> None:
    assert first.touch_member({"version": "2.0.2"})
    first.get_cluster()
    first.write_status({"optime": 4096})
    key = cluster.nodes[0].ask("GET", "/v2/keys/service/pair/optime/leader").json["node"]
    assert key["value"] == "4096"


def test_a_configuration_changes_only_from_what_was_seen(first: AbstractDCS) -> None:
    assert first.set_config_value(json.dumps({"ttl": 30})) is True
    before = first.get_cluster().config
    assert first.set_config_value(json.dumps({"ttl": 20}), before.version) is True
    assert first.set_config_value(json.dumps({"ttl": 10}), before.version) is False
    after = first.get_cluster().config
    assert (after.data, after.version > before.version) == ({"ttl": 20}, True)


def test_a_switchover_is_asked_for_and_taken_back(first: AbstractDCS) -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert first.manual_failover("first", "second", at) is True
    asked = first.get_cluster().failover
    assert (asked.leader, asked.candidate, asked.scheduled_at) == ("first", "second", at)
    assert first.manual_failover("", "", version=asked.version + 1) is False
    assert first.manual_failover("", "", version=asked.version) is True
    assert not first.get_cluster().failover
    assert first.set_failover_value("first:second") is True
    assert first.get_cluster().failover.candidate == "second"


def test_a_history_is_kept(first: AbstractDCS) -> None:
    lines = [[number, 1000 * number, "no recovery target specified"] for number in range(1, 200)]
    assert first.set_history_value(json.dumps(lines)) is True
    state = first.get_cluster()
    assert (state.history.lines, state.timeline) == (lines, 200)


def test_who_is_synchronous_changes_only_from_what_was_seen(first: AbstractDCS) -> None:
    one = first.write_sync_state("first", ["second"], 0)
    assert (one.leader, one.voters) == ("first", ["second"])
    assert first.get_cluster().sync == one
    two = first.write_sync_state("first", ["second", "third"], 1, version=one.version)
    assert first.write_sync_state("second", None, 0, version=one.version) is None
    assert first.get_cluster().sync == two
    assert first.delete_sync_state(version=one.version) is False
    assert first.delete_sync_state(version=two.version) is True
    assert first.get_cluster().sync.is_empty


def test_a_watch_ends_with_the_leaders_next_sign_of_life(
    first: AbstractDCS, second: AbstractDCS, beside: ThreadPoolExecutor
) -> None:
    watching = beside.submit(second.watch, lead(first, second).leader.version, PATIENCE)
    assert first.touch_member({"role": "primary"})  # that is none
    time.sleep(0.2)
    assert not watching.done()
    assert first.update_leader(first.get_cluster(), None)
    assert watching.result() is True


def test_a_watch_ends_when_the_leader_steps_down(
    first: AbstractDCS, second: AbstractDCS, beside: ThreadPoolExecutor
) -> None:
    watching = beside.submit(second.watch, lead(first, second).leader.version, PATIENCE)
    assert first.delete_leader(leader_of(first))
    assert watching.result() is True
    assert second.get_cluster().is_unlocked()


def test_a_watch_sees_what_has_happened_since_it_looked(first: AbstractDCS, second: AbstractDCS) -> None:
    before = lead(first, second).leader
    assert first.update_leader(first.get_cluster(), None)
    assert second.watch(before.version, PATIENCE) is True


def test_a_watch_ends_without_news_when_its_time_is_over(first: AbstractDCS, second: AbstractDCS) -> None:
    assert second.watch(lead(first, second).leader.version, 1) is False


def test_a_watch_from_before_all_history_ends_at_once(
    cluster: ProcessCluster, first: AbstractDCS, second: AbstractDCS
) -> None:
    before = lead(first, second).leader
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cluster.nodes[1].ask("PUT", "/v2/keys/other", {"value": "x"}), range(1010)))
    assert second.watch(before.version, PATIENCE) is True


def test_a_cluster_is_removed(first: AbstractDCS, second: AbstractDCS) -> None:
    lead(first, second)
    assert first.touch_member({"role": "primary"})
    assert first.set_config_value("{}")
    assert first.delete_cluster() is True
    assert first.get_cluster().is_empty()
    assert first.delete_cluster() is False


def test_a_member_goes_on_with_another_machine_when_its_own_dies(cluster: ProcessCluster) -> None:
    dying = cluster.followers()[0]
    dcs = connect("first", dying)
    assert dcs.attempt_to_acquire_leader()
    assert dcs._client.machines_cache[0].endswith(f":{dying.client_port}")
    dying.kill()
    assert seen(dcs, led_by("first")).leader.session > LONG - PATIENCE
    assert dcs.update_leader(dcs.get_cluster(), 4096) is True
    assert dcs.touch_member({"role": "primary"}) is True
    assert not dcs._client.machines_cache[0].endswith(f":{dying.client_port}")


def test_the_lead_is_kept_over_the_death_of_the_stores_own_leader(cluster: ProcessCluster) -> None:
    dying = cluster.leader()
    dcs = connect("first", dying)
    assert dcs.attempt_to_acquire_leader()
    before = dcs.get_cluster()
    dying.kill()
    deadline = time.monotonic() + PATIENCE
    while not updated(dcs, before):
        assert time.monotonic() < deadline
    other = connect("second", cluster.followers()[0])
    assert other.attempt_to_acquire_leader() is False
    assert seen(other, led_by("first")).leader.session > LONG - PATIENCE


def updated(dcs: AbstractDCS, state: Cluster) -> bool:
    """Whether the leader's key was refreshed; Patroni itself tries again in its next round."""
    try:
        return dcs.update_leader(state, None)
    except DCSError:
        return False
