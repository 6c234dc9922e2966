"""What one caller does wrong is that caller's to know: the node goes on, and all others get their answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from common_raft.core import Role
from common_raft.drivers import proposals
from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.machine import ProposalError
from common_raft.drivers.membership import ChangeError, ChangeKind, MemberInfo, Problem
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import TOO_LARGE
from common_raft.drivers.threads import ThreadsNode
from common_raft.storage import Wal
from common_raft.tests.test_drivers import (
    ALONE,
    AwaitedJournal,
    Journal,
    Members,
    Node,
    asked,
    failure_of,
    in_loop,
    propose,
    read_index,
    run,
    until,
)


class Ascii(Journal):
    """Cannot encode everything."""

    def encode(self, commands: Sequence[str]) -> bytes:
        return "\n".join(commands).encode("ascii")


async def all_go_on(members: Members) -> None:
    for node in members.nodes:
        assert isinstance(await propose(node, "after"), int)
        assert not node.failed.done()


def change(node: Node, kind: Any, member: MemberInfo) -> Awaitable[ChangeError | None]:
    return asked(lambda done: node.change_members(kind, member, done), node)


@pytest.mark.parametrize(
    "ask",
    [
        lambda node, done: node.propose("theirs", done),
        lambda node, done: node.read_index(done),
        lambda node, done: node.change_members(ChangeKind.REMOVE, MemberInfo(9, "", ()), done),
    ],
    ids=["propose", "read_index", "change_members"],
)
@pytest.mark.parametrize("fault", ["cancelled", "raises"])
def test_a_callback_that_fails_takes_nobody_elses_answer(
    ask: Callable[[AsyncioNode[str, int], Callable[[Any], None]], None],
    fault: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: object) -> None:
        raise KeyError("theirs")

    async def scenario(members: Members) -> None:
        [node] = members.nodes
        assert isinstance(node, AsyncioNode)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ask(node, future.set_result if fault == "cancelled" else broken)
        innocent = [propose(node, "ours"), read_index(node)]
        future.cancel()  # as asyncio.wait_for does
        outcome, confirmed = await asyncio.gather(*innocent)
        assert isinstance(outcome, int)
        assert confirmed is None
        await all_go_on(members)

    run("asyncio", tmp_path, 1, scenario)
    assert ("a caller's callback failed" in caplog.text) == (fault == "raises")


def test_a_node_whose_callers_have_gone_still_closes(tmp_path: Path) -> None:
    async def scenario() -> None:
        members = Members("asyncio", tmp_path, 3)
        node = members.nodes[0]
        await node.start()  # type: ignore[misc]
        futures: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        node.propose("c", futures[0].set_result)
        node.read_index(futures[1].set_result)
        for future in futures:
            future.cancel()
        await members.close()

    in_loop(scenario)


def test_whoever_stops_waiting_for_a_hand_over_does_not_end_the_node(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        node = members.one(Role.LEADER)
        assert isinstance(node, AsyncioNode)
        handing_over = asyncio.create_task(node.hand_over())
        await asyncio.sleep(0)
        handing_over.cancel()
        await until(lambda: members.nodes[0].leader not in (0, node.id))
        await all_go_on(members)

    run("asyncio", tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_command_that_cannot_be_encoded_is_refused_and_those_beside_it_are_done(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        [node] = members.nodes
        outcomes = await asyncio.gather(*(propose(node, each) for each in ("a", "b", "é", "c")))
        refused = [each for each in outcomes if isinstance(each, ProposalError)]
        assert [type(each) for each in outcomes] == [int, int, ProposalError, int]
        assert "cannot encode the command: UnicodeEncodeError" in refused[0].cause
        assert sorted(members.journals[0].commands) == ["a", "b", "c"]
        await all_go_on(members)

    run(driver, tmp_path, 1, scenario, lambda _: Ascii())


@pytest.mark.parametrize("driver", ALONE)
@pytest.mark.parametrize("role", [Role.LEADER, Role.FOLLOWER])
def test_a_command_that_no_frame_holds_is_refused_before_it_is_in_any_log(
    driver: str, role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An entry that no follower can be sent would be in the way of all behind it.
    monkeypatch.setattr(proposals, "MAX_COMMAND_BYTES", 100)

    async def scenario(members: Members) -> None:
        node = members.one(role)
        large, small = await asyncio.gather(propose(node, "x" * 101), propose(node, "y"))
        assert isinstance(large, ProposalError)
        assert large.cause == TOO_LARGE
        assert isinstance(small, int)
        await all_go_on(members)

    run(driver, tmp_path, 3, scenario)


def test_a_command_as_large_as_may_be_reaches_all(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        for role in (Role.LEADER, Role.FOLLOWER):
            assert isinstance(await propose(members.one(role), "x" * proposals.MAX_COMMAND_BYTES), int)
        await until(lambda: all(len(journal.commands) == 2 for journal in members.journals))

    run("asyncio", tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_machine_that_gives_too_few_results_ends_the_node_and_all_are_told(
    driver: str, tmp_path: Path
) -> None:
    class Forgetful(Journal):
        def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
            return [() for _ in batches]

    async def scenario(members: Members) -> None:
        [node] = members.nodes
        assert isinstance(await propose(node, "c"), ProposalError)
        assert "0 results for 1 commands" in str(await failure_of(node))

    run(driver, tmp_path, 1, scenario, lambda _: Forgetful())


@pytest.mark.parametrize("driver", ALONE)
@pytest.mark.parametrize(
    ("kind", "member", "told"),
    [
        (7, MemberInfo(2, "", ()), "Invalid enum value 7"),
        (ChangeKind.UPDATE, MemberInfo(1, "", (b"http://127.0.0.1:9",)), "Expected `str`, got `bytes`"),  # type: ignore[arg-type]
        (ChangeKind.ADD, MemberInfo(2**64, "", ("http://127.0.0.1:9",)), "not a change of members"),
        (ChangeKind.ADD, MemberInfo(0, "", ("http://127.0.0.1:9",)), "member id 0"),
        (ChangeKind.ADD, MemberInfo(2, "", ()), "none names a host and a port"),
        (ChangeKind.ADD, MemberInfo(2, "", ("http://127.0.0.1:99999",)), "none names a host and a port"),
        (ChangeKind.ADD, MemberInfo(2, "", tuple("http://127.0.0.1:9")), "none names a host and a port"),
    ],
)
def test_a_change_that_members_would_not_understand_is_refused_before_it_is_in_any_log(
    driver: str, kind: Any, member: MemberInfo, told: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        [node] = members.nodes
        error = await change(node, kind, member)
        assert error is not None
        assert error.problem is Problem.REFUSED
        assert told in error.cause
        await all_go_on(members)
        assert [each.id for each in node.members] == [1]

    run(driver, tmp_path, 1, scenario)


@pytest.mark.parametrize("driver", ["asyncio", "mixed"])
def test_members_that_were_told_of_by_address_alone_tell_the_others_who_they_are(
    driver: str, tmp_path: Path
) -> None:
    async def whole() -> None:
        members = Members(driver, tmp_path, 3, client_urls=("http://clients:1",))
        await members.start()
        try:
            want = [(number, f"n{number}", ("http://clients:1",)) for number in (1, 2, 3)]
            await until(
                lambda: all(
                    [(each.id, each.name, each.client_urls) for each in node.members] == want
                    for node in members.nodes
                )
            )
        finally:
            await members.close()

    in_loop(whole)


def alone(**changes: Any) -> NodeOptions:
    return NodeOptions(1, "n1", 7, [("127.0.0.1", 0)], {}, **changes)


@pytest.mark.parametrize("kind", [AsyncioNode, ThreadsNode])
@pytest.mark.parametrize("ids", [(7, 3), (99, 1)])
def test_no_node_runs_on_anothers_log(kind: type[Node], ids: tuple[int, int], tmp_path: Path) -> None:
    # Its votes are those of the node that it is of (Raft paper, figure 2: votedFor).
    wal = Wal.open(tmp_path, cluster_id=ids[0], node_id=ids[1])

    async def scenario() -> None:
        with pytest.raises(ValueError, match=f"the log is that of node {ids[1]:x} in cluster {ids[0]:x}"):
            kind(alone(), wal, Journal())

    in_loop(scenario)
    wal.close()


def test_a_machine_must_be_able_to_do_what_is_asked_of_its_node(tmp_path: Path) -> None:
    wal = Wal.open(tmp_path, cluster_id=7, node_id=1)
    with pytest.raises(ValueError, match="snapshot_count is 5, and Journal has no snapshot"):
        ThreadsNode(alone(snapshot_count=5), wal, Journal())
    with pytest.raises(TypeError, match="AwaitedJournal awaits"):
        ThreadsNode(alone(), wal, AwaitedJournal())
    wal.close()
