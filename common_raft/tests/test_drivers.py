"""Nodes with real links and real logs: what their clients see, the same of every driver.

Each test runs with nodes on an event loop, with nodes on threads, and, where several nodes meet, with both at once.
"""

import asyncio
import inspect
import itertools
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop

from common_raft.core import LogDamaged, Role
from common_raft.core.messages import AppendEntries, Entry, EntryKind
from common_raft.drivers.asyncio import AsyncioNode
from common_raft.drivers.envelope import seal
from common_raft.drivers.forwarding import LEADER_CHANGED
from common_raft.drivers.machine import ProposalError
from common_raft.drivers.member import next_tick
from common_raft.drivers.options import NodeOptions
from common_raft.drivers.proposals import STOPPED, TIMED_OUT
from common_raft.drivers.standalone import StandaloneNode
from common_raft.drivers.standalone_threads import StandaloneThreadsNode
from common_raft.drivers.threads import ThreadsNode
from common_raft.storage import Wal, WriteFailed
from common_raft.testing.processes import free_ports
from common_raft.transport.messages import ForwardedProposals, PeerMessage, ProposalsRefused

Node = AsyncioNode[str, int] | ThreadsNode[str, int]
Outcome = int | ProposalError
ALONE = ("asyncio", "threads")
CLUSTERS = ("asyncio", "threads", "mixed")


class Journal:
    """A state machine that keeps what it applied; a command's result is its position.

    ``away`` says why it cannot be reached, if it cannot; each attempt takes ``seconds``.
    """

    applied = 0

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.calls = 0
        self.away: str | None = None
        self.seconds = 0.0

    def encode(self, commands: Sequence[str]) -> bytes:
        return "\n".join(commands).encode()

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
        if self.seconds:
            time.sleep(self.seconds)
        return self.take(batches)

    def take(self, batches: Sequence[tuple[bytes, bool]]) -> list[Sequence[int] | None]:
        self.calls += 1
        if self.away is not None:
            raise ConnectionError(self.away)
        results: list[Sequence[int] | None] = []
        for data, _ in batches:
            first = len(self.commands)
            self.commands += data.decode().split("\n")
            results.append(range(first, len(self.commands)))
        return results


class AwaitedJournal(Journal):
    """The same for a driver that awaits."""

    async def apply(  # type: ignore[override]
        self, batches: Sequence[tuple[bytes, bool]], applied: int
    ) -> list[Sequence[int] | None]:
        await asyncio.sleep(self.seconds)
        return self.take(batches)


def machine_beside(driver: str) -> Journal:
    """A machine that this driver applies to while consensus goes on."""
    return AwaitedJournal() if driver == "asyncio" else Journal()


class Members:
    """Nodes, their logs and their state machines.  ``driver`` is one of CLUSTERS."""

    def __init__(
        self,
        driver: str,
        directory: Path,
        size: int,
        make_machine: Callable[[str], Journal] | None = None,
        **options: Any,
    ) -> None:
        self.driver, self.directory = driver, directory
        self.addresses = {number + 1: ("127.0.0.1", port) for number, port in enumerate(free_ports(size))}
        self.make_machine, self.options = make_machine, options
        self.journals: list[Journal] = []
        self.wals = [self.open_wal(node_id) for node_id in self.addresses]
        self.nodes: list[Node] = []
        for node_id, wal in zip(self.addresses, self.wals, strict=True):
            self.journals.append(self.machine(node_id))
            self.nodes.append(self.node(node_id, wal, self.journals[-1]))

    def open_wal(self, node_id: int) -> Wal:
        return Wal.open(self.directory / f"n{node_id}", cluster_id=7, node_id=node_id, fsync=False)

    def kind(self, node_id: int) -> str:
        return ALONE[node_id % 2] if self.driver == "mixed" else self.driver

    def machine(self, node_id: int) -> Journal:
        return self.make_machine(self.kind(node_id)) if self.make_machine is not None else Journal()

    def node(self, node_id: int, wal: Wal, journal: Journal) -> Node:
        peers = {peer: address for peer, address in self.addresses.items() if peer != node_id}
        timing = {"heartbeat_interval": 0.02, "election_timeout": 0.2, **self.options}
        options = NodeOptions(node_id, f"n{node_id}", 7, [self.addresses[node_id]], peers, **timing)
        kind = AsyncioNode if self.kind(node_id) == "asyncio" else ThreadsNode
        return kind(options, wal, journal)

    async def stop(self, node: Node) -> None:
        await finish(node.close)
        self.wals[self.nodes.index(node)].close()

    async def start_again(self, node: Node) -> Node:
        """A node that was stopped, with its log and an empty machine."""
        place = self.nodes.index(node)
        wal = self.wals[place] = self.open_wal(node.id)
        journal = self.journals[place] = self.machine(node.id)
        started = self.nodes[place] = self.node(node.id, wal, journal)
        await finish(started.start)
        return started

    async def start(self) -> None:
        for node in self.nodes:
            await finish(node.start)
        await until(lambda: all(node.leader for node in self.nodes))

    async def close(self) -> None:
        for node in self.nodes:
            await finish(node.close)
        for wal in self.wals:
            wal.close()

    def one(self, role: Role) -> Node:
        return next(node for node in self.nodes if node.role is role)

    def journal_of(self, node: Node) -> Journal:
        return self.journals[self.nodes.index(node)]


async def finish(call: Callable[[], Any]) -> None:
    """Calls what one driver awaits and the other blocks for; a loop that is needed meanwhile goes on."""
    if inspect.iscoroutinefunction(call):
        await call()
    else:
        await asyncio.to_thread(call)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def asked(call: Callable[[Callable[[Any], None]], None], node: object) -> Awaitable[Any]:
    """The outcome of a call with a ``done``: in the loop, or in a thread of its own."""
    if isinstance(node, AsyncioNode | StandaloneNode):
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call(future.set_result)
        return future
    outcomes: list[Any] = []
    called_in: list[threading.Thread] = []

    def in_thread() -> Any:
        def done(outcome: Any) -> None:
            outcomes.append(outcome)
            called_in.append(threading.current_thread())

        call(done)
        assert called_in == [threading.current_thread()]  # before it returned, here, and once
        return outcomes[0]

    return asyncio.get_running_loop().run_in_executor(None, in_thread)


def propose(node: Any, command: str) -> Awaitable[Outcome]:
    return asked(lambda done: node.propose(command, done), node)


def read_index(node: Any) -> Awaitable[ProposalError | None]:
    return asked(node.read_index, node)


def in_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(256))
        await scenario()

    uvloop.run(whole())


def run(
    driver: str,
    directory: Path,
    size: int,
    scenario: Callable[[Members], Awaitable[None]],
    make_machine: Callable[[str], Journal] | None = None,
) -> None:
    async def whole() -> None:
        members = Members(driver, directory, size, make_machine)
        await members.start()
        try:
            await scenario(members)
        finally:
            await members.close()

    in_loop(whole)
    assert [thread.name for thread in threading.enumerate() if thread.name in ("consensus", "applying")] == []


@pytest.mark.parametrize("driver", CLUSTERS)
def test_commands_through_every_node_are_applied_in_one_order_everywhere(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        waiting = [propose(node, f"{node.name}-{i}") for i in range(50) for node in members.nodes]
        positions = await asyncio.gather(*waiting)
        assert sorted(positions) == list(range(150))  # type: ignore[type-var]
        await until(lambda: all(len(journal.commands) == 150 for journal in members.journals))
        assert len({tuple(journal.commands) for journal in members.journals}) == 1

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_what_was_applied_is_applied_again_after_a_restart(driver: str, tmp_path: Path) -> None:
    applied: list[str] = []

    async def write(members: Members) -> None:
        await asyncio.gather(*(propose(members.nodes[0], f"c{i}") for i in range(20)))
        applied.extend(members.journals[0].commands)

    async def look(members: Members) -> None:
        await until(lambda: len(members.journals[0].commands) == 20)
        assert members.journals[0].commands == applied

    run(driver, tmp_path, 1, write)
    assert sorted(applied) == sorted(f"c{i}" for i in range(20))
    run(driver, tmp_path, 1, look)


@pytest.mark.parametrize("driver", CLUSTERS)
def test_a_linearizable_read_sees_what_was_acknowledged_elsewhere(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        leader, follower = members.one(Role.LEADER), members.one(Role.FOLLOWER)
        journal = members.journal_of(follower)
        for number in range(30):
            await propose(leader, f"c{number}")
            assert await read_index(follower) is None
            assert f"c{number}" in journal.commands

    run(driver, tmp_path, 3, scenario)


async def failure_of(node: Node) -> BaseException:
    failed = node.failed
    return await (asyncio.wrap_future(failed) if isinstance(failed, Future) else failed)


@pytest.mark.parametrize("driver", ALONE)
def test_a_disk_that_fails_ends_the_node_and_everybody_who_waits_is_told(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def scenario(members: Members) -> None:
        (node,) = members.nodes
        await propose(node, "before")
        monkeypatch.setattr(os, "pwrite", broken)
        for answer in await asyncio.gather(*(propose(node, "during") for _ in range(10))):
            assert isinstance(answer, ProposalError)
            assert answer.cause == STOPPED
        assert isinstance(await failure_of(node), WriteFailed)
        after = await propose(node, "after")
        assert isinstance(after, ProposalError)
        assert isinstance(await read_index(node), ProposalError)
        assert members.journals[0].commands == ["before"]

    run(driver, tmp_path, 1, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_node_that_does_not_lead_refuses_forwarded_proposals_by_name(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(members: Members) -> None:
        follower = members.one(Role.FOLLOWER)
        sender = next(node for node in members.nodes if node is not follower)
        sent: list[PeerMessage] = []
        monkeypatch.setattr(follower._transport, "send", sent.append)
        receive = follower._on_messages if isinstance(follower, AsyncioNode) else follower._messages_in_thread
        batches = [seal(sender.id, 41, b"x"), seal(sender.id, 42, b"y")]
        receive([ForwardedProposals(follower.id, sender.id, batches)])
        await until(lambda: ProposalsRefused(sender.id, follower.id, [41, 42], LEADER_CHANGED) in sent)
        receive([ForwardedProposals(follower.id, sender.id, [b"no batch at all"])])
        await asyncio.sleep(0.05)
        assert not follower.failed.done()

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_stop_answers_whoever_still_waits(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        follower = members.one(Role.FOLLOWER)
        for other in members.nodes:
            if other is not follower:
                await finish(other.close)
        waiting = [propose(follower, "c") for _ in range(10)] + [read_index(follower) for _ in range(10)]
        await asyncio.sleep(0.05)
        await finish(follower.close)
        for answer in await asyncio.gather(*waiting):
            assert isinstance(answer, ProposalError)
            assert answer.cause == STOPPED

    run(driver, tmp_path, 3, scenario)


def test_a_client_that_comes_while_the_node_stops_is_answered_and_never_hangs(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        (node,) = members.nodes
        stopping = asyncio.Event()

        async def ask() -> list[Outcome]:
            answers = []
            while not stopping.is_set():
                answers.append(await propose(node, "c"))
            return [*answers, await propose(node, "late")]

        clients = [asyncio.create_task(ask()) for _ in range(16)]
        await asyncio.sleep(0.05)
        await finish(node.close)
        stopping.set()
        async with asyncio.timeout(5):
            for answers in await asyncio.gather(*clients):
                assert isinstance(answers[-1], ProposalError)
                assert answers[-1].cause == STOPPED

    for attempt in range(5):
        run("threads", tmp_path / str(attempt), 1, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_without_a_quorum_commands_and_reads_end_with_a_timeout(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeOptions, "request_timeout", 0.5)

    async def scenario(members: Members) -> None:
        last, *others = members.nodes
        for other in others:
            await finish(other.close)
        async with asyncio.timeout(5):
            for answer in await asyncio.gather(propose(last, "c"), read_index(last)):
                assert isinstance(answer, ProposalError)
                assert answer.cause == TIMED_OUT

    run(driver, tmp_path, 3, scenario)


@pytest.mark.parametrize("driver", ALONE)
def test_a_machine_that_is_away_stops_applying_and_nothing_is_lost_or_repeated(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (AsyncioNode.__module__, ThreadsNode.__module__):
        monkeypatch.setattr(f"{module}.RETRY_SECONDS", 0.02)

    async def scenario(members: Members) -> None:
        (node,), (journal,) = members.nodes, members.journals
        await propose(node, "c0")
        journal.away = "it rains"
        calls = journal.calls
        waiting = [asyncio.ensure_future(propose(node, f"c{number}")) for number in range(1, 10)]
        await until(lambda: journal.calls > calls + 3)
        assert node.problem == "it rains"
        assert not any(answer.done() for answer in waiting)
        journal.away = None
        assert sorted(await asyncio.gather(*waiting)) == list(range(1, 10))  # type: ignore[type-var]
        assert node.problem is None
        assert sorted(journal.commands) == [f"c{number}" for number in range(10)]

    with caplog.at_level(logging.INFO):
        run(driver, tmp_path, 1, scenario, machine_beside)
    assert caplog.text.count("it rains; trying again") == 1
    assert caplog.text.count("applying again") == 1


@pytest.mark.parametrize("driver", ALONE)
def test_a_node_whose_machine_is_away_can_be_stopped(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        members.journals[0].away = "gone"
        waiting = asyncio.ensure_future(propose(members.nodes[0], "c"))
        await until(lambda: members.nodes[0].problem is not None)
        async with asyncio.timeout(5):
            await finish(members.nodes[0].close)
            assert isinstance(await waiting, ProposalError)

    run(driver, tmp_path, 1, scenario, machine_beside)


@pytest.mark.parametrize("driver", ALONE)
def test_a_slow_machine_does_not_hold_up_consensus_and_takes_what_has_gathered_at_once(
    driver: str, tmp_path: Path
) -> None:
    async def scenario(members: Members) -> None:
        leader = members.one(Role.LEADER)
        term = leader.term
        journal = members.journal_of(leader)
        journal.seconds = 0.6  # three election timeouts
        waiting = []
        for number in range(20):
            waiting.append(propose(leader, f"c{number}"))
            await asyncio.sleep(0.02)  # entries of their own
        await asyncio.gather(*waiting)
        assert journal.calls <= 4
        assert (leader.role, leader.term) == (Role.LEADER, term)

    run(driver, tmp_path, 3, scenario, machine_beside)


def test_a_machine_that_fails_ends_the_node(tmp_path: Path) -> None:
    class Broken(Journal):
        def apply(self, batches: object, applied: int) -> list[Sequence[int] | None]:
            raise ValueError("no such table")

    async def scenario(members: Members) -> None:
        answer = await propose(members.nodes[0], "c")
        assert isinstance(answer, ProposalError)
        assert isinstance(await failure_of(members.nodes[0]), ValueError)

    for driver in ALONE:
        run(driver, tmp_path / driver, 1, scenario, lambda _: Broken())


class Racing(Journal):
    """Decides slowly on what it has read: two at a time would give a position twice."""

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
        position = len(self.commands)
        time.sleep(0.001)
        self.commands.append(batches[0][0].decode())
        return [[position]]


@pytest.mark.parametrize("linearizable", [True, False])
def test_without_raft_operations_of_many_threads_are_kept_apart_only_if_they_are_to_be(
    linearizable: bool,
) -> None:
    async def scenario() -> None:
        node = StandaloneThreadsNode(1, "n1", 7, Racing(), linearizable=linearizable)
        node.start()
        positions = await asyncio.gather(*(propose(node, f"c{number}") for number in range(50)))
        assert (len(set(positions)) == 50) == linearizable
        assert await read_index(node) is None
        node.close()
        for answer in (await propose(node, "late"), await read_index(node)):
            assert isinstance(answer, ProposalError)

    in_loop(scenario)


def test_without_raft_a_machine_that_is_away_is_a_problem_until_it_is_back() -> None:
    async def scenario() -> None:
        journal = Journal()
        node = StandaloneThreadsNode(1, "n1", 7, journal, linearizable=True)
        journal.away = "it rains"
        answer = await propose(node, "c")
        assert isinstance(answer, ProposalError)
        assert (answer.cause, node.problem) == ("it rains", "it rains")
        journal.away = None
        assert await propose(node, "c") == 0
        assert node.problem is None

    in_loop(scenario)


def test_a_late_tick_does_not_put_off_the_next_one_and_missed_ones_are_not_made_up_for() -> None:
    assert next_tick(10.0, 10.0, 0.1) == pytest.approx(10.1)
    assert next_tick(10.0, 10.09, 0.1) == pytest.approx(10.1)
    assert next_tick(10.0, 13.0, 0.1) == pytest.approx(13.1)


@pytest.mark.parametrize("driver", ALONE)
def test_each_tick_is_due_by_when_the_one_before_was_due_and_not_by_when_it_came(
    driver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[tuple[float, float, float]] = []  # due, came, next one due

    def recorded(due: float, now: float, interval: float) -> float:
        ticks.append((due, now, next_tick(due, now, interval)))
        return ticks[-1][-1]

    async def scenario(members: Members) -> None:
        await until(lambda: len(ticks) > 20)

    monkeypatch.setattr(f"common_raft.drivers.{driver}.next_tick", recorded)
    run(driver, tmp_path, 1, scenario)
    for (*_, following), (due, came, _) in itertools.pairwise(ticks):
        assert due == following
        assert came > due - 0.002  # an event loop's timers have steps of 1 ms


@pytest.mark.parametrize("driver", ALONE)
def test_who_has_what_the_leader_lacks_stops_and_serves_nothing(driver: str, tmp_path: Path) -> None:
    """The others have lost their logs: their leader's first entry lies where this node has committed others."""

    async def scenario(members: Members) -> None:
        follower = members.one(Role.FOLLOWER)
        other = next(node for node in members.nodes if node is not follower)
        for number in range(10):
            await propose(follower, f"c{number}")
        receive = follower._on_messages if isinstance(follower, AsyncioNode) else follower._messages_in_thread
        term = follower.term + 5

        def append(commit: int) -> AppendEntries:
            noop = [Entry(term, EntryKind.NOOP, b"")]
            return AppendEntries(follower.id, other.id, term, 2, 1, noop, commit)

        receive([append(commit=2)])  # not committed: it may be on its way
        await asyncio.sleep(0.05)
        assert not follower.failed.done()
        receive([append(commit=3)])
        failure = await failure_of(follower)
        assert isinstance(failure, LogDamaged)
        assert "are committed here, but leader" in str(failure)
        assert isinstance(await propose(follower, "after"), ProposalError)

    run(driver, tmp_path, 3, scenario)
