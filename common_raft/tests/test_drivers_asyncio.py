"""Nodes in one event loop, with real links and real logs: what their clients see."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from common_raft.core import Role
from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.envelope import seal
from common_raft.drivers.machine import ProposalError
from common_raft.drivers.member import LEADER_CHANGED
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED
from common_raft.storage import Wal, WriteFailed
from common_raft.testing.processes import free_ports
from common_raft.transport.messages import ForwardedProposals, PeerMessage, ProposalsRefused

Node = AsyncioNode[str, int]


class Journal:
    """A state machine that keeps what it applied; a command's result is its position."""

    applied = 0

    def __init__(self) -> None:
        self.commands: list[str] = []

    def encode(self, commands: Sequence[str]) -> bytes:
        return "\n".join(commands).encode()

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
        results: list[Sequence[int] | None] = []
        for data, _ in batches:
            first = len(self.commands)
            self.commands += data.decode().split("\n")
            results.append(range(first, len(self.commands)))
        return results


class Members:
    """Nodes, their logs and their state machines."""

    def __init__(self, directory: Path, size: int) -> None:
        addresses = {number + 1: ("127.0.0.1", port) for number, port in enumerate(free_ports(size))}
        self.journals = [Journal() for _ in addresses]
        self.wals = [Wal.open(directory / f"n{i}", cluster_id=7, node_id=i, fsync=False) for i in addresses]
        self.nodes: list[Node] = []
        for node_id, wal, journal in zip(addresses, self.wals, self.journals, strict=True):
            peers = {peer: address for peer, address in addresses.items() if peer != node_id}
            options = NodeOptions(node_id, f"n{node_id}", 7, [addresses[node_id]], peers, 0.02, 0.2)
            self.nodes.append(AsyncioNode(options, wal, journal))

    async def start(self) -> None:
        for node in self.nodes:
            await node.start()
        await until(lambda: all(node.leader for node in self.nodes))

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()
        for wal in self.wals:
            wal.close()

    def one(self, role: Role) -> Node:
        return next(node for node in self.nodes if node.role is role)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def propose(node: Node, command: str) -> asyncio.Future[int | ProposalError]:
    future: asyncio.Future[int | ProposalError] = asyncio.get_running_loop().create_future()
    node.propose(command, future.set_result)
    return future


def run(directory: Path, size: int, scenario: Callable[[Members], Awaitable[None]]) -> None:
    async def whole() -> None:
        members = Members(directory, size)
        await members.start()
        try:
            await scenario(members)
        finally:
            await members.close()

    uvloop.run(whole())


def test_commands_through_every_node_are_applied_in_one_order_everywhere(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        waiting = [propose(node, f"{node.name}-{i}") for i in range(50) for node in members.nodes]
        positions = await asyncio.gather(*waiting)
        assert sorted(positions) == list(range(150))  # type: ignore[type-var]
        await until(lambda: all(len(journal.commands) == 150 for journal in members.journals))
        assert len({tuple(journal.commands) for journal in members.journals}) == 1

    run(tmp_path, 3, scenario)


def test_what_was_applied_is_applied_again_after_a_restart(tmp_path: Path) -> None:
    async def write(members: Members) -> None:
        await asyncio.gather(*(propose(members.nodes[0], f"c{i}") for i in range(20)))

    async def look(members: Members) -> None:
        await until(lambda: len(members.journals[0].commands) == 20)
        assert members.journals[0].commands == [f"c{i}" for i in range(20)]

    run(tmp_path, 1, write)
    run(tmp_path, 1, look)


def test_a_linearizable_read_sees_what_was_acknowledged_elsewhere(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader, follower = members.one(Role.LEADER), members.one(Role.FOLLOWER)
        journal = members.journals[members.nodes.index(follower)]
        for number in range(30):
            await propose(leader, f"c{number}")
            confirmed: asyncio.Future[ProposalError | None] = asyncio.get_running_loop().create_future()
            follower.read_index(confirmed.set_result)
            assert await confirmed is None
            assert f"c{number}" in journal.commands

    run(tmp_path, 3, scenario)


def test_a_disk_that_fails_ends_the_node_and_everybody_who_waits_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def scenario(members: Members) -> None:
        (node,) = members.nodes
        await propose(node, "before")
        monkeypatch.setattr(os, "pwrite", broken)
        answer = await propose(node, "during")
        assert isinstance(answer, ProposalError)
        assert answer.cause == STOPPED
        assert isinstance(await node.failed, WriteFailed)
        after = await propose(node, "after")
        assert isinstance(after, ProposalError)
        assert members.journals[0].commands == ["before"]

    run(tmp_path, 1, scenario)


def test_a_node_that_does_not_lead_refuses_forwarded_proposals_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(members: Members) -> None:
        follower = members.one(Role.FOLLOWER)
        sender = next(node for node in members.nodes if node is not follower)
        sent: list[PeerMessage] = []
        monkeypatch.setattr(follower._transport, "send", sent.append)
        batches = [seal(sender.id, 41, b"x"), seal(sender.id, 42, b"y")]
        follower._on_messages([ForwardedProposals(follower.id, sender.id, batches)])
        assert ProposalsRefused(sender.id, follower.id, [41, 42], LEADER_CHANGED) in sent
        follower._on_messages([ForwardedProposals(follower.id, sender.id, [b"no batch at all"])])
        assert not follower.failed.done()

    run(tmp_path, 3, scenario)


def test_a_stop_answers_whoever_still_waits(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        follower = members.one(Role.FOLLOWER)
        waiting = [propose(follower, "c") for _ in range(10)]
        await follower.close()
        for answer in await asyncio.gather(*waiting):
            assert isinstance(answer, ProposalError)

    run(tmp_path, 3, scenario)
