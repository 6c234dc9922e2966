"""What nodes measure of each other: with a clock of the test's, and between real nodes of both drivers."""

import asyncio
from pathlib import Path

import pytest

from common_raft.core import Role
from common_raft.core.messages import (
    AppendEntries,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
)
from common_raft.drivers.measuring import Measuring
from common_raft.tests.test_drivers import CLUSTERS, Members, Node, propose, run, until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def measuring(clock: Clock) -> Measuring:
    return Measuring(0.1, clock)


def append(prev_index: int, count: int, to: int = 2) -> AppendEntries:
    return AppendEntries(to, 1, 1, prev_index, 1, [Entry(1, EntryKind.COMMANDS, b"12345")] * count, 0)


def answer(index: int, *, rejected: bool = False) -> AppendResponse:
    return AppendResponse(1, 2, 1, index, rejected)


def test_an_answer_stands_for_all_appends_up_to_its_entry(measuring: Measuring, clock: Clock) -> None:
    measuring.sent(append(0, 1))
    clock.now += 1
    measuring.sent(append(1, 2))
    clock.now += 0.5
    measuring.received(answer(2))  # only the first is confirmed in full
    assert measuring.followers[2].latency.succeeded == 1
    assert measuring.followers[2].latency.current == 1.5
    measuring.received(answer(3))
    assert measuring.followers[2].latency.succeeded == 2
    assert measuring.followers[2].latency.current == 0.5
    assert measuring.appends_sent == 2


def test_a_refused_append_is_neither_done_nor_lost(measuring: Measuring) -> None:
    measuring.sent(append(5, 1))
    measuring.received(answer(5, rejected=True))
    measuring.unreachable(2)
    assert 2 not in measuring.followers


def test_what_is_under_way_when_the_link_ends_has_failed(measuring: Measuring) -> None:
    for index in range(3):
        measuring.sent(append(index, 1))
    measuring.sent(append(0, 1, to=3))
    measuring.received(answer(1))
    measuring.unreachable(2)
    measuring.unreachable(2)
    measuring.received(answer(3))
    latency = measuring.followers[2].latency
    assert (latency.succeeded, latency.failed) == (1, 2)
    assert 3 not in measuring.followers


def test_another_leader_ends_what_was_asked_before(measuring: Measuring) -> None:
    measuring.sent(append(0, 1))
    measuring.sent(Heartbeat(2, 1, 1, 0, 0))
    measuring.leader_is(3)
    measuring.leader_is(0)
    measuring.leader_is(3)
    measuring.received(answer(1))
    measuring.received(HeartbeatResponse(1, 2, 1, 0))
    assert 2 not in measuring.followers
    assert measuring.leader_changes == 2  # that there is none is no change to another


def test_the_way_there_and_back_counts_from_the_oldest_heartbeat(measuring: Measuring, clock: Clock) -> None:
    measuring.received(HeartbeatResponse(1, 2, 1, 0))  # to nobody's question
    measuring.sent(Heartbeat(2, 1, 1, 0, 0))
    clock.now += 0.25
    measuring.sent(Heartbeat(2, 1, 1, 0, 0))
    clock.now += 0.25
    measuring.received(HeartbeatResponse(1, 2, 1, 0))
    measuring.received(HeartbeatResponse(1, 2, 1, 0))
    assert measuring.followers[2].round_trips.sum == 0.5
    assert sum(measuring.followers[2].round_trips.counts) == 1


def test_heartbeats_are_late_when_two_ticks_of_a_leader_are_far_apart(
    measuring: Measuring, clock: Clock
) -> None:
    for seconds, followers in ((0.1, 2), (0.15, 2), (0.3, 2), (9.0, 0), (9.0, 2), (0.1, 2)):
        clock.now += seconds
        measuring.ticked(followers)
    assert measuring.late_heartbeats == 2


def test_appends_of_the_leader_are_counted_with_their_bytes(measuring: Measuring, clock: Clock) -> None:
    for index in range(10):
        clock.now += 0.1
        measuring.received(append(index, 2))
    sending, receiving = measuring.rates()
    assert sending == (0, 0)
    assert receiving == (pytest.approx(10 / 0.9), pytest.approx(100 / 0.9))
    assert measuring.appends_received == 10


# --- real nodes -------------------------------------------------------------------------------------------------


def settled(nodes: list[Node]) -> bool:
    """Whether everything that was sent has come."""
    measured = {node.id: node.measurements() for node in nodes}
    return all(
        measured[one.id].traffic[other.id].sent_bytes == measured[other.id].traffic[one.id].received_bytes > 0
        for one in nodes
        for other in nodes
        if one is not other and Role.LEADER in (one.role, other.role)
    )


@pytest.mark.parametrize("driver", CLUSTERS)
def test_nodes_measure_what_they_do(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader, follower = members.one(Role.LEADER), members.one(Role.FOLLOWER)
        for number in range(20):
            assert isinstance(await propose(follower, f"c{number}"), int)
        await until(lambda: all(len(journal.commands) == 20 for journal in members.journals))
        await until(lambda: settled(members.nodes))
        measured = leader.measurements()
        assert measured.followers.keys() == measured.traffic.keys() == {1, 2, 3} - {leader.id}
        for following in measured.followers.values():
            assert following.latency.succeeded >= 20
            assert following.latency.minimum is not None
            assert 0 < following.latency.minimum <= following.latency.average <= following.latency.maximum
        await until(lambda: all(sum(each.round_trips.counts) for each in measured.followers.values()))
        assert all(each.connected for each in measured.traffic.values())
        assert measured.appends_sent >= 40
        assert measured.committed >= 20
        assert (measured.pending, measured.failed, measured.failed_reads) == (0, 0, 0)
        assert (measured.is_learner, measured.restoring) == (False, False)
        assert measured.log is not None
        assert measured.log.written_bytes > 20 * len("c10")
        other = follower.measurements()
        assert other.appends_received >= 20
        assert other.leader_changes >= 1
        assert all(following.latency.succeeded == 0 for following in other.followers.values())

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_follower_that_is_gone_shows_in_what_its_leader_counts(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader, follower = members.one(Role.LEADER), members.one(Role.FOLLOWER)
        await propose(leader, "before")
        await members.stop(follower)
        members.wals[members.nodes.index(follower)] = members.open_wal(follower.id)  # to be closed at the end
        await until(lambda: not leader.measurements().traffic[follower.id].connected)
        await propose(leader, "after")
        await until(lambda: leader.measurements().traffic[follower.id].send_failures > 2)
        measured = leader.measurements()
        assert measured.traffic[follower.id].disconnected == 1
        await until(lambda: leader.measurements().followers[follower.id].latency.failed > 0)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_what_has_no_outcome_is_counted_as_failed(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        node = members.nodes[0]
        for other in members.nodes[1:]:
            await members.stop(other)
            members.wals[members.nodes.index(other)] = members.open_wal(other.id)
        waiting = asyncio.gather(*(propose(node, f"c{number}") for number in range(5)))
        await until(lambda: node.measurements().pending == 5)
        await members.stop(node)
        members.wals[0] = members.open_wal(node.id)
        outcomes = await waiting
        assert not any(isinstance(outcome, int) for outcome in outcomes)
        measured = node.measurements()
        assert (measured.pending, measured.failed) == (0, 5)

    run(driver, tmp_path, 3, scenario)
