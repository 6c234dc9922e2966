"""A leader that is to stop has another one lead first: nobody waits for an election, and no command is refused."""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from common_raft.core import Role
from common_raft.core.messages import RequestVote, TimeoutNow
from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.forwarding import LEADER_CHANGED
from common_raft.drivers.machine import ProposalError
from common_raft.tests.test_drivers import (
    ALONE,
    CLUSTERS,
    Members,
    Node,
    finish,
    propose,
    read_index,
    run,
    until,
)
from common_raft.transport.messages import ForwardedProposals, PeerMessage, ProposalsRefused


async def hand_over(node: Node) -> bool:
    asynchronous = inspect.iscoroutinefunction(node.hand_over)
    return await asyncio.wait_for(node.hand_over() if asynchronous else asyncio.to_thread(node.hand_over), 20)


def messages_of(nodes: list[Node], kind: type[Any]) -> list[Any]:
    """Fills with what these nodes send of one kind."""
    sent: list[Any] = []

    def recording(node: Node) -> None:
        send = node._transport.send

        def recorded(message: PeerMessage) -> None:
            if isinstance(message, kind):
                sent.append(message)
            send(message)

        node._transport.send = recorded  # type: ignore[method-assign]

    for node in nodes:
        recording(node)
    return sent


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_leader_that_leaves_is_followed_in_the_next_term_without_anybody_waiting_for_an_election(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        old = members.one(Role.LEADER)
        term = old.term
        votes = messages_of(members.nodes, RequestVote)
        assert await hand_over(old)
        new = members.one(Role.LEADER)
        assert new is not old
        assert all((node.leader, node.term) == (new.id, term + 1) for node in members.nodes)
        # Of whom it was asked, without a timer that ran out and without a look at who would win.
        assert {(vote.sender, vote.transfer, vote.pre_vote) for vote in votes} == {(new.id, True, False)}
        await finish(old.close)
        assert isinstance(await propose(new, "after"), int)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_no_command_is_refused_or_repeated_while_the_leadership_goes_from_node_to_node(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        stopping = asyncio.Event()

        async def client(node: Node, name: str) -> list[str]:
            done = []
            while not stopping.is_set():
                done.append(f"{name}-{len(done)}")
                assert isinstance(await propose(node, done[-1]), int)
                assert await read_index(node) is None
            return done

        clients = [
            asyncio.create_task(client(node, f"{node.name}-{number}"))
            for node in members.nodes
            for number in range(8)
        ]
        led = set()
        for _ in range(3):  # nobody stops here: who has left once does not lead again while others can
            await asyncio.sleep(0.1)
            leader = members.one(Role.LEADER)
            led.add(leader.id)
            if len(led) < 3:
                assert await hand_over(leader)
        stopping.set()
        done = [command for each in await asyncio.gather(*clients) for command in each]
        await until(lambda: all(len(journal.commands) == len(done) for journal in members.journals))
        assert all(sorted(journal.commands) == sorted(done) for journal in members.journals)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_who_does_not_lead_or_leads_nobody_may_leave_at_once(driver: str, tmp_path: Path) -> None:
    async def follows(members: Members) -> None:
        leader = members.one(Role.LEADER)
        term = leader.term
        assert await hand_over(members.one(Role.FOLLOWER))
        assert (leader.role, leader.term) == (Role.LEADER, term)

    async def is_alone(members: Members) -> None:
        [node] = members.nodes
        assert not await hand_over(node)
        assert isinstance(await propose(node, "c"), int)
        node.stop()
        assert not await hand_over(node)

    run(driver, tmp_path / "three", 3, follows)
    run(driver, tmp_path / "one", 1, is_alone)


@pytest.mark.parametrize("driver", ALONE)
def test_a_voter_that_is_not_connected_is_not_chosen(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader = members.one(Role.LEADER)
        here, away = sorted((node for node in members.nodes if node is not leader), key=lambda node: node.id)
        await finish(away.close)
        await until(lambda: not leader._transport.is_connected(away.id))
        assert await hand_over(leader)
        assert here.role is Role.LEADER
        await finish(leader.close)
        assert not await hand_over(here)  # nobody is left

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_an_heir_that_does_nothing_is_passed_over(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader = members.one(Role.LEADER)
        others = [node for node in members.nodes if node is not leader]
        heirs = messages_of([leader], TimeoutNow)
        deaf: list[int] = []

        def hard_of_hearing(node: Node) -> None:
            step = node._core.step

            def heard(message: Any) -> None:
                if isinstance(message, TimeoutNow) and deaf in ([], [node.id]):
                    deaf[:] = [node.id]
                else:
                    step(message)

            node._core.step = heard  # type: ignore[method-assign]

        for node in others:
            hard_of_hearing(node)
        assert await hand_over(leader)
        first, *_, last = [message.to for message in heirs]
        assert [first] == deaf
        assert [last] == [node.id for node in members.nodes if node.role is Role.LEADER]
        assert first != last

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_nodes_that_leave_together_do_not_hand_the_leadership_to_and_fro(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        heirs = messages_of(members.nodes, TimeoutNow)
        leader = members.one(Role.LEADER)
        # Nobody closes meanwhile, as where a process has still to do something else at its end.
        for node in members.nodes:
            if node is not leader:
                assert await hand_over(node)
        assert not await hand_over(leader)
        assert {message.sender for message in heirs} == {leader.id}
        assert len(heirs) <= 2

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_an_heir_that_goes_away_is_passed_over_at_once(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader = members.one(Role.LEADER)
        others = {node.id: node for node in members.nodes if node is not leader}
        heirs = messages_of([leader], TimeoutNow)
        for node in others.values():
            assert await hand_over(node)
        leader._leaving._seconds = 60.0  # half of that is what an heir has that stays and does nothing
        handing_over = asyncio.create_task(hand_over(leader))
        await until(lambda: bool(heirs))
        await finish(others[heirs[0].to].close)
        await until(lambda: len(heirs) == 2)
        await finish(others[heirs[1].to].close)
        assert not await handing_over
        assert {message.to for message in heirs} == set(others)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_stop_does_not_wait_for_an_heir(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader = members.one(Role.LEADER)
        for node in members.nodes:
            if node is not leader:
                node._core.step = lambda message: None  # type: ignore[method-assign]
        handing_over = asyncio.create_task(hand_over(leader))
        waiting = asyncio.ensure_future(propose(leader, "c"))
        await until(lambda: leader._forwarding.holds)
        await finish(leader.close)
        assert not await handing_over
        assert isinstance(await waiting, ProposalError)

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_batch_that_a_former_leader_refuses_is_sent_again_and_applied_once(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        follower, leader = members.one(Role.FOLLOWER), members.one(Role.LEADER)
        send, sent = follower._transport.send, []

        def astray(message: PeerMessage) -> None:
            if isinstance(message, ForwardedProposals):
                sent.append(message)
                if len(sent) == 1:
                    return
            send(message)

        follower._transport.send = astray  # type: ignore[method-assign]
        result = asyncio.ensure_future(propose(follower, "c"))
        await until(lambda: len(sent) == 1)
        sequence = next(iter(follower._proposals._waiting))
        receive = follower._on_messages if isinstance(follower, AsyncioNode) else follower._messages_in_thread
        receive([ProposalsRefused(follower.id, leader.id, [sequence, 12345], LEADER_CHANGED)])
        assert isinstance(await result, int)
        assert [message.batches for message in sent] == [sent[0].batches] * 2
        journal = members.journal_of(leader)  # which may be applied to a moment later than the follower's
        await until(lambda: bool(journal.commands))
        assert journal.commands == ["c"]

    run(driver, tmp_path, 3, scenario)
