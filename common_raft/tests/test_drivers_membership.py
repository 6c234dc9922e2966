"""Nodes with real links and real logs whose cluster grows, shrinks and moves, whatever they run on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common_raft.core import Role
from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.machine import Misplaced
from common_raft.drivers.membership import (
    ID_NOT_FOUND,
    ID_REMOVED,
    NOT_ENOUGH_STARTED,
    UNHEALTHY,
    URL_EXISTS,
    Change,
    ChangeError,
    ChangeKind,
    MemberInfo,
    MemberRemoved,
    Members,
    Problem,
    new_member,
)
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED, TIMED_OUT
from common_raft.drivers.threads import ThreadsNode
from common_raft.storage import Wal
from common_raft.testing.processes import free_ports
from common_raft.tests.test_drivers import ALONE, Journal, asked, failure_of, finish, in_loop, propose, until
from common_raft.tests.test_drivers_snapshots import Remembering
from common_raft.transport.messages import ForwardedChange, PeerMessage

Node = AsyncioNode[str, int] | ThreadsNode[str, int]
CLUSTER = 7
CLUSTERS = ("asyncio", "threads", "mixed")
SNAPSHOT_COUNT = 0


class Machine:
    """One node over all its lives: its directory, its port, its state machine."""

    def __init__(
        self, cluster: "Growing", name: str, node_id: int, port: int, table: bytes, kind: str
    ) -> None:
        self.cluster, self.name, self.id, self.port, self.kind = cluster, name, node_id, port, kind
        self.options = NodeOptions(
            node_id,
            name,
            CLUSTER,
            [("127.0.0.1", port)],
            {},
            0.02,
            0.2,
            client_urls=(f"http://clients/{name}",),
            members=table,
            strict_reconfig_check=cluster.strict,
            snapshot_count=SNAPSHOT_COUNT,
        )
        self.journal = Journal()
        self.running = False

    async def start(self) -> None:
        self.journal = Journal()
        directory = self.cluster.directory / self.name
        self.wal = Wal.open(directory, cluster_id=CLUSTER, node_id=self.id, fsync=False)
        made = AsyncioNode if self.kind == "asyncio" else ThreadsNode
        self.node: Node = made(self.options, self.wal, self.journal)
        await finish(self.node.start)
        self.running = True

    async def stop(self) -> None:
        if self.running:
            self.running = False
            await finish(self.node.close)
            self.wal.close()

    @property
    def members(self) -> Members:
        return self.node._members


class Growing:
    """A cluster whose machines come and go.  ``driver`` is one of CLUSTERS."""

    def __init__(self, driver: str, directory: Path, size: int, strict: bool = True) -> None:
        self.driver, self.directory, self.strict = driver, directory, strict
        ports = dict(enumerate(free_ports(size), start=1))
        infos = [MemberInfo(i, f"n{i}", (f"http://127.0.0.1:{port}",)) for i, port in ports.items()]
        table = Members(infos).encode()
        self.machines = [Machine(self, f"n{i}", i, port, table, self._kind(i)) for i, port in ports.items()]

    def _kind(self, number: int) -> str:
        return ALONE[number % 2] if self.driver == "mixed" else self.driver

    @property
    def running(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.running]

    async def start(self) -> None:
        for machine in self.machines:
            await machine.start()
        await self.settled()

    async def settled(self) -> None:
        """Until all that run have a leader, and know of each other that they do."""
        urls = {machine.options.client_urls for machine in self.running}

        def agreed() -> bool:
            tables = {each.members.encode() for each in self.running}
            told = {member.client_urls for member in self.running[0].members.all()}
            return len(tables) == 1 and urls <= told and all(each.node.leader for each in self.running)

        await until(agreed)

    async def leader(self) -> Machine:
        await until(lambda: any(machine.node.role is Role.LEADER for machine in self.running))
        return next(machine for machine in self.running if machine.node.role is Role.LEADER)

    def followers(self) -> list[Machine]:
        return [machine for machine in self.running if machine.node.role is not Role.LEADER]

    def added(self, through: Machine) -> tuple[MemberInfo, Machine]:
        """A machine that is to join, and how it is told to the cluster."""
        number, port = len(self.machines) + 1, free_ports(1)[0]
        info = new_member([f"http://127.0.0.1:{port}"])
        return info, Machine(self, f"n{number}", info.id, port, b"", self._kind(number))

    async def grow(self, through: Machine) -> Machine:
        info, machine = self.added(through)
        assert await change(through, ChangeKind.ADD, info) is None
        machine.options = replace(machine.options, members=through.members.encode())
        self.machines.append(machine)
        await machine.start()
        await self.settled()
        return machine


def change(machine: Machine, kind: ChangeKind, info: MemberInfo) -> Awaitable[ChangeError | None]:
    return asked(lambda done: machine.node.change_members(kind, info, done), machine.node)


def removal(machine: Machine) -> MemberInfo:
    return MemberInfo(machine.id, "", ())


def run(
    driver: str,
    directory: Path,
    size: int,
    scenario: Callable[[Growing], Awaitable[Any]],
    *,
    strict: bool = True,
) -> None:
    async def whole() -> None:
        cluster = Growing(driver, directory, size, strict)
        await cluster.start()
        try:
            await scenario(cluster)
        finally:
            for machine in cluster.machines:
                await machine.stop()

    in_loop(whole)


async def removed(machine: Machine) -> None:
    """It says that it is a member no more, and stops."""
    async with asyncio.timeout(10):
        assert isinstance(await failure_of(machine.node), MemberRemoved)
    await machine.stop()


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_cluster_grows_and_shrinks_through_every_member_and_loses_nothing(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(cluster: Growing) -> None:
        acknowledged = []
        for number in range(4):
            acknowledged.append(f"grow-{number}")
            through = cluster.machines[number]
            assert isinstance(await propose(through.node, acknowledged[-1]), int)
            await cluster.grow(through)
        await until(lambda: all(each.journal.commands == acknowledged for each in cluster.machines))
        while len(cluster.running) > 1:
            leaving = cluster.running[0]
            assert await change(cluster.running[-1], ChangeKind.REMOVE, removal(leaving)) is None
            await removed(leaving)
            await leaving.start()  # its own disk says so
            await removed(leaving)
            await cluster.settled()
            acknowledged.append(f"shrink-{leaving.id}")
            assert isinstance(await propose(cluster.running[0].node, acknowledged[-1]), int)
        assert cluster.running[0].journal.commands == acknowledged

    run(driver, tmp_path, 1, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_member_has_published_itself_once_its_own_table_says_where_clients_find_it(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(cluster: Growing) -> None:
        assert all(machine.node.published for machine in cluster.running)
        again = cluster.followers()[0]
        await again.stop()
        again.options = replace(again.options, client_urls=("http://clients/elsewhere",))
        await again.start()
        assert not again.node.published
        await until(lambda: again.node.published)
        assert [info.client_urls for info in again.node.members if info.id == again.id] == [
            ("http://clients/elsewhere",)
        ]
        await cluster.settled()
        assert await change(await cluster.leader(), ChangeKind.REMOVE, removal(again)) is None
        await until(lambda: not again.node.published)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_member_that_removes_itself_is_told_so_before_it_stops(driver: str, tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        for leaving in (await cluster.leader(), cluster.followers()[0]):
            assert await change(leaving, ChangeKind.REMOVE, removal(leaving)) is None
            await removed(leaving)
            await cluster.settled()

    run(driver, tmp_path, 4, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_member_that_was_removed_while_it_was_down_learns_it_from_the_others(
    driver: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Growing) -> None:
        down = cluster.followers()[0]
        await down.stop()
        assert await change(await cluster.leader(), ChangeKind.REMOVE, removal(down)) is None
        terms = [each.node.term for each in cluster.running]
        await down.start()
        await removed(down)
        assert [each.node.term for each in cluster.running] == terms  # nobody was disturbed

    with caplog.at_level(logging.ERROR):
        run(driver, tmp_path, 3, scenario)
    assert "permanently removed" in caplog.text


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_restarted_member_knows_what_changed_before_and_learns_what_changed_meanwhile(
    driver: str, tmp_path: Path
) -> None:
    """Also who leads by then: somebody that it had never heard of."""

    async def scenario(cluster: Growing) -> None:
        fourth = await cluster.grow(await cluster.leader())
        away, *others = cluster.machines[:3]
        known = away.members.encode()
        await away.stop()
        await away.start()
        await until(lambda: away.members.encode() == known)
        await away.stop()
        fifth = await cluster.grow(await cluster.leader())
        for other in others:
            assert await change(fifth, ChangeKind.REMOVE, removal(other)) is None
            await removed(other)
        await until(lambda: fifth.node.leader in (fourth.id, fifth.id))
        await away.start()
        await cluster.settled()
        assert away.members.encode() == fifth.members.encode()
        assert isinstance(await propose(away.node, "c"), int)

    run(driver, tmp_path, 3, scenario, strict=False)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_members_may_move_to_another_address_while_they_run(driver: str, tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        moving = cluster.followers()[0]
        await moving.stop()
        port = free_ports(1)[0]
        told = MemberInfo(moving.id, "", (f"http://127.0.0.1:{port}",))
        assert await change(await cluster.leader(), ChangeKind.UPDATE, told) is None
        moving.options = replace(moving.options, listen=[("127.0.0.1", port)])
        await moving.start()
        await until(lambda: moving.node.leader != 0)
        assert isinstance(await propose(moving.node, "c"), int)
        await until(lambda: all(each.journal.commands == ["c"] for each in cluster.machines))

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_what_must_not_be_is_refused_in_etcds_words(driver: str, tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        follower, leader = cluster.followers()[0], await cluster.leader()
        taken = leader.members.get(leader.id)
        assert taken is not None
        for through in (leader, follower):
            assert await change(through, ChangeKind.ADD, new_member(taken.peer_urls)) == URL_EXISTS
            assert await change(through, ChangeKind.REMOVE, MemberInfo(99, "", ())) == ID_NOT_FOUND
            moved = MemberInfo(follower.id, "", taken.peer_urls)
            assert await change(through, ChangeKind.UPDATE, moved) == URL_EXISTS
        never = new_member(["http://127.0.0.1:9"])
        assert await change(follower, ChangeKind.ADD, never) is None
        # The one that was added has not run: a majority of five would need everybody.
        assert await change(follower, ChangeKind.ADD, new_member(["http://127.0.0.1:8"])) == UNHEALTHY
        assert await change(follower, ChangeKind.REMOVE, never) is None
        assert await change(follower, ChangeKind.REMOVE, never) == ID_REMOVED
        assert await change(leader, ChangeKind.ADD, never) == ID_REMOVED
        down = cluster.followers()[0]
        await down.stop()
        await until(lambda: not cluster.running[0].node._transport.is_connected(down.id))
        # Two of three are there: one of them less would be one of two.
        for running in cluster.running:
            assert await change(await cluster.leader(), ChangeKind.REMOVE, removal(running)) == UNHEALTHY
        assert await change(await cluster.leader(), ChangeKind.REMOVE, removal(down)) is None

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_the_last_member_stays(driver: str, tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        (only,) = cluster.machines
        answer = await change(only, ChangeKind.REMOVE, removal(only))
        assert answer == NOT_ENOUGH_STARTED if cluster.strict else answer is not None
        assert isinstance(await propose(only.node, "c"), int)

    run(driver, tmp_path / "strict", 1, scenario)
    run(driver, tmp_path / "lax", 1, scenario, strict=False)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_changes_asked_for_at_once_are_made_one_after_another(driver: str, tmp_path: Path) -> None:
    async def scenario(cluster: Growing) -> None:
        added = [new_member([f"http://127.0.0.1:{port}"]) for port in (1, 2, 3)]
        asking = zip(cluster.machines, added, strict=True)
        answers = await asyncio.gather(
            *(change(machine, ChangeKind.ADD, info) for machine, info in asking),
        )
        assert answers == [None, None, None]
        ids = {info.id for info in added} | {1, 2, 3}
        await until(lambda: all({m.id for m in each.members.all()} == ids for each in cluster.machines[:3]))

    run(driver, tmp_path, 3, scenario, strict=False)


@pytest.mark.parametrize("driver", ALONE)
def test_a_learner_gets_the_log_and_counts_for_nothing_until_it_is_promoted(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(cluster: Growing) -> None:
        (leader,) = cluster.machines
        port = free_ports(1)[0]
        info = new_member([f"http://127.0.0.1:{port}"], learner=True)
        assert await change(leader, ChangeKind.ADD, info) is None
        another = new_member(["http://127.0.0.1:9"], learner=True)
        refused = await change(leader, ChangeKind.ADD, another)
        assert refused is not None
        assert "too many learner" in refused.cause
        assert isinstance(await propose(leader.node, "alone"), int)  # nobody else is asked
        learner = Machine(cluster, "n2", info.id, port, leader.members.encode(), driver)
        cluster.machines.append(learner)
        await learner.start()
        await until(lambda: learner.journal.commands == ["alone"])
        await cluster.settled()
        assert learner.node._core.configuration.learners == (info.id,)
        assert await change(learner, ChangeKind.PROMOTE, info) is None
        await until(lambda: set(leader.node._core.configuration.voters) == {leader.id, info.id})
        refused = await change(leader, ChangeKind.PROMOTE, info)
        assert refused is not None
        assert "only promote a learner" in refused.cause

    run(driver, tmp_path, 1, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_change_that_nobody_can_make_ends_with_a_timeout_and_a_stop_answers_at_once(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeOptions, "request_timeout", 0.5)

    async def scenario(cluster: Growing) -> None:
        last = cluster.followers()[0]
        for other in [each for each in cluster.machines if each is not last]:
            await other.stop()
        info = new_member(["http://127.0.0.1:9"])
        async with asyncio.timeout(5):
            assert await change(last, ChangeKind.ADD, info) == (Problem.NOT_DONE, TIMED_OUT)
        monkeypatch.setattr(NodeOptions, "request_timeout", 60)
        waiting = asyncio.ensure_future(change(last, ChangeKind.ADD, info))
        await asyncio.sleep(0.3)
        await last.stop()
        assert await waiting == (Problem.NOT_DONE, STOPPED)
        assert await change(last, ChangeKind.ADD, info) == (Problem.NOT_DONE, STOPPED)

    run(driver, tmp_path, 3, scenario)


async def alone(cluster: Growing, told: MemberInfo) -> None:
    """The only member is told another URL of itself, which changes nothing that counts here."""
    (only,) = cluster.machines
    assert isinstance(await propose(only.node, "c"), int)
    assert await change(only, ChangeKind.UPDATE, told) is None


MOVED = MemberInfo(1, "", ("http://127.0.0.1:9",))


@pytest.mark.parametrize("driver", ALONE)
def test_a_machine_that_keeps_its_state_elsewhere_does_not_keep_its_node_from_knowing_the_members(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Growing) -> None:
        await alone(cluster, MOVED)
        (only,) = cluster.machines
        known, applied = only.members.encode(), only.node.applied
        await only.stop()
        monkeypatch.setattr(Journal, "applied", applied)
        await only.start()
        assert only.members.encode() == known  # though nothing will be handed out again
        await until(lambda: only.node.role is Role.LEADER)

    run(driver, tmp_path, 1, scenario)


def test_a_service_that_is_found_to_be_further_on_does_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Growing) -> None:
        await alone(cluster, MOVED)
        (only,) = cluster.machines
        known, applied = only.members.encode(), only.node.applied
        await only.stop()
        found = iter([applied])

        async def apply(self: Journal, batches: Any, _applied: int) -> Any:
            for place in found:
                raise Misplaced(place)
            return self.take(batches)

        monkeypatch.setattr(Journal, "apply", apply)
        only.options = replace(only.options, idle_check=0.05)
        await only.start()
        await until(lambda: only.node.applied >= applied and only.node.problem is None)
        assert only.members.encode() == known

    run("asyncio", tmp_path, 1, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_change_is_judged_by_what_those_before_it_leave(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Growing) -> None:
        leader = await cluster.leader()
        url = ["http://127.0.0.1:9"]
        member = new_member(url)
        assert await change(leader, ChangeKind.ADD, member) is None
        asked: list[ChangeKind] = []
        ask = leader.node._reconfiguration.ask

        def in_order(kind: ChangeKind, *rest: Any) -> None:
            asked.append(kind)
            ask(kind, *rest)

        monkeypatch.setattr(leader.node._reconfiguration, "ask", in_order)
        removed = change(leader, ChangeKind.REMOVE, member)
        await until(lambda: bool(asked))  # two threads that ask may overtake each other
        added = change(leader, ChangeKind.ADD, new_member(url))
        assert await removed is None
        assert await added is None
        assert asked == [ChangeKind.REMOVE, ChangeKind.ADD]

    run(driver, tmp_path, 3, scenario, strict=False)


@pytest.mark.parametrize("driver", ALONE)
def test_who_does_not_lead_refuses_a_forwarded_change_and_another_leader_may_get_it(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(cluster: Growing) -> None:
        asking, other = cluster.followers()
        misled = iter([other.id])
        send = asking.node._transport.send

        def astray(message: PeerMessage) -> None:
            if isinstance(message, ForwardedChange):
                message = replace_to(message, next(misled, message.to))
            send(message)

        monkeypatch.setattr(asking.node._transport, "send", astray)
        assert await change(asking, ChangeKind.ADD, new_member(["http://127.0.0.1:9"])) is None
        assert list(misled) == []

    run(driver, tmp_path, 3, scenario)


def replace_to(message: ForwardedChange, to: int) -> ForwardedChange:
    return ForwardedChange(to, message.sender, message.change)


@pytest.mark.parametrize("driver", ALONE)
def test_forwarded_changes_that_are_not_the_senders_own_are_dropped(
    driver: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Growing) -> None:
        leader = await cluster.leader()
        receive = (
            leader.node._on_messages
            if isinstance(leader.node, AsyncioNode)
            else leader.node._messages_in_thread
        )
        forged = Change(ChangeKind.REMOVE, MemberInfo(1, "", ()), origin=99)
        for data in (b"\xc1", msgspec.msgpack.encode(forged)):
            receive([ForwardedChange(leader.id, 2 if leader.id != 2 else 3, data)])
        await until(lambda: caplog.text.count("forwarded change of") == 2)
        assert len(leader.members.all()) == 3
        assert not leader.node.failed.done()

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ["mixed"])
def test_members_are_known_through_snapshots_as_well(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joins, who was away, and who starts again: the entries that told of the members are gone by then."""
    monkeypatch.setattr(f"{__name__}.Journal", Remembering)
    monkeypatch.setattr(f"{__name__}.SNAPSHOT_COUNT", 20)

    async def write(machine: Machine, number: int) -> None:
        for _ in range(number):
            assert isinstance(await propose(machine.node, "c"), int)

    async def compacted(machine: Machine, behind: int) -> None:
        """Writes until whoever lags, or joins, must be given a snapshot that knows of that entry."""
        while machine.node._core.log.offset < behind:
            await write(machine, 20)

    async def scenario(cluster: Growing) -> None:
        away = cluster.followers()[0]
        await away.stop()
        leader = await cluster.leader()
        fourth = await cluster.grow(leader)
        leader = await cluster.leader()
        await compacted(leader, leader.members.index)
        fifth = await cluster.grow(leader)
        assert fifth.journal.restored > 0  # type: ignore[attr-defined]
        await away.start()
        await until(lambda: away.members.encode() == leader.members.encode())
        assert away.journal.restored > 0  # type: ignore[attr-defined]
        leader = await cluster.leader()
        await compacted(leader, leader.members.index)
        again = next(each for each in (fourth, fifth) if each is not leader)
        await until(lambda: again.node._core.log.offset > again.members.index)
        known = again.members.encode()
        await again.stop()
        await again.start()
        assert again.members.encode() == known
        await cluster.settled()
        await write(again, 1)
        commands = [each.journal.commands for each in cluster.machines]
        await until(lambda: all(each.journal.commands == commands[0] for each in cluster.machines))

    run(driver, tmp_path, 3, scenario, strict=False)
