"""Nodes that take snapshots, give them to those who are behind, and start from them: the same of every driver."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop

from common_raft.core import Role
from common_raft.drivers import pace, snapshotting, transfers
from common_raft.drivers.machine import Misplaced
from common_raft.drivers.marks import mark_of
from common_raft.storage.snapshots import snapshot_name
from common_raft.tests.test_drivers import (
    ALONE,
    CLUSTERS,
    AwaitedJournal,
    Journal,
    Members,
    Node,
    finish,
    propose,
    until,
)

COUNT = 20  # entries from one snapshot to the next


class Remembering(Journal):
    """A journal whose state can be taken and replaced; ``restored`` counts how often it was."""

    restored = 0

    def snapshot(self, applied: int) -> Iterator[bytes]:
        return iter([f"{applied}".encode(), b"", *[command.encode() for command in self.commands]])

    def restore(self, chunks: Iterable[bytes]) -> None:
        if self.away is not None:
            raise ConnectionError(self.away)
        first, *commands = [chunk for chunk in chunks if chunk]
        self.commands = [command.decode() for command in commands]
        self.applied = int(first)
        self.restored += 1


class AwaitedRemembering(AwaitedJournal):
    restored = 0

    async def snapshot(self, applied: int) -> AsyncIterator[bytes]:
        if self.away is not None:
            raise ConnectionError(self.away)
        state = list(Remembering.snapshot(self, applied))  # type: ignore[arg-type]

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in state:
                await asyncio.sleep(0)
                yield chunk

        return chunks()

    async def restore(self, chunks: AsyncIterator[bytes]) -> None:
        Remembering.restore(self, [chunk async for chunk in chunks])  # type: ignore[arg-type]


def in_loop(kind: str) -> Journal:
    return Remembering()


def beside(kind: str) -> Journal:
    return AwaitedRemembering() if kind == "asyncio" else Remembering()


#: Kind of driver, and of machine.
NODES = [
    pytest.param(kind, make, id=f"{kind}, {make.__name__}") for kind in ALONE for make in (in_loop, beside)
]
MESHES = [
    pytest.param(kind, make, id=f"{kind}, {make.__name__}") for kind in CLUSTERS for make in (in_loop, beside)
]
Scenario = Callable[[Members], Awaitable[None]]


def run(kind: str, directory: Path, size: int, make: Callable[[str], Journal], scenario: Scenario) -> None:
    async def whole() -> None:
        members = Members(kind, directory, size, make, snapshot_count=COUNT, max_snapshots=2)
        await members.start()
        try:
            await scenario(members)
        finally:
            await members.close()

    uvloop.run(whole())


async def write(node: Node, prefix: str, number: int, *, waits: bool = True) -> None:
    """Entry by entry; a snapshot that takes long is waited for, so that there is one for each ``COUNT`` or so."""
    for position in range(number):
        assert isinstance(await propose(node, f"{prefix}-{position}"), int)
        await until(lambda: not (waits and node._snapshotting._taking))


def newest_of(node: Node) -> int:
    assert node._snapshotting.newest is not None
    return node._snapshotting.newest.index


def files(directory: Path, node: str = "n1") -> list[str]:
    return sorted(path.name for path in (directory / node / "snap").glob("*"))


@pytest.mark.parametrize(("kind", "make"), NODES)
def test_a_node_takes_snapshots_keeps_a_few_and_drops_what_they_hold(
    tmp_path: Path, kind: str, make: Callable[[str], Journal]
) -> None:
    async def scenario(members: Members) -> None:
        [node] = members.nodes
        await write(node, "a", 5 * COUNT)
        await until(lambda: not node._snapshotting._taking and len(files(tmp_path)) == 2)
        newest = node._snapshotting.newest
        assert newest is not None
        assert node._core.log.offset == newest.index - COUNT > 0
        assert files(tmp_path)[-1] == snapshot_name(newest)

    run(kind, tmp_path, 1, make, scenario)


@pytest.mark.parametrize(("kind", "make"), NODES)
def test_few_entries_make_a_snapshot_due_by_their_bytes(
    tmp_path: Path, kind: str, make: Callable[[str], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotting, "MIN_LOG_BYTES", 10_000)

    async def scenario(members: Members) -> None:
        [node] = members.nodes
        await write(node, "a" * 3_000, 3)
        assert files(tmp_path) == []
        await write(node, "a" * 3_000, 1)
        await until(lambda: not node._snapshotting._taking and len(files(tmp_path)) == 1)

    run(kind, tmp_path, 1, make, scenario)


@pytest.mark.parametrize(("kind", "make"), NODES)
def test_entries_that_stay_behind_a_snapshot_are_few_when_they_are_large(
    tmp_path: Path, kind: str, make: Callable[[str], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotting, "CATCH_UP_BYTES", 7_000)

    async def scenario(members: Members) -> None:
        [node] = members.nodes
        await write(node, "a" * 3_000, 2 * COUNT)
        await until(lambda: not node._snapshotting._taking and len(files(tmp_path)) == 2)
        newest = node._snapshotting.newest
        assert newest is not None
        assert node._core.log.offset == newest.index - 2

    run(kind, tmp_path, 1, make, scenario)


@pytest.mark.parametrize(
    ("size", "due"), [(0, 64 << 20), (100 << 20, 64 << 20), (200 << 20, 100 << 20), (2 << 30, 256 << 20)]
)
def test_the_larger_the_state_the_more_is_logged_before_it_is_written_again(size: int, due: int) -> None:
    assert snapshotting._bytes_due(size) == due


def test_a_node_that_starts_knows_how_large_its_snapshot_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def before(members: Members) -> None:
        await write(members.nodes[0], "a" * 1_000, COUNT)
        await until(lambda: bool(files(tmp_path)) and not members.nodes[0]._snapshotting._taking)

    async def after(members: Members) -> None:
        [file] = (tmp_path / "n1" / "snap").glob("*")
        assert members.nodes[0]._snapshotting._bytes_due == file.stat().st_size // 2

    run("asyncio", tmp_path, 1, in_loop, before)
    monkeypatch.setattr(snapshotting, "MIN_LOG_BYTES", 1)
    run("asyncio", tmp_path, 1, in_loop, after)


def test_whoever_writes_a_snapshot_rests_after_each_step_as_long_as_it_deserves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    used = iter(range(10_000))
    clock = SimpleNamespace(
        sleep=rests.append, thread_time=lambda: next(used) / 1000
    )  # a step takes a millisecond
    monkeypatch.setattr(snapshotting, "time", clock)

    async def scenario(members: Members) -> None:
        await write(members.nodes[0], "a", COUNT)
        await until(lambda: bool(files(tmp_path)) and not members.nodes[0]._snapshotting._taking)

    run("asyncio", tmp_path, 1, in_loop, scenario)
    assert len(rests) >= COUNT
    assert rests == pytest.approx([snapshotting.RESTS / 1000] * len(rests))


@pytest.mark.parametrize(("kind", "make"), NODES)
def test_a_node_starts_from_its_snapshot_and_what_follows_it(
    tmp_path: Path, kind: str, make: Callable[[str], Journal]
) -> None:
    written: list[str] = []

    async def before(members: Members) -> None:
        await write(members.nodes[0], "a", 3 * COUNT + 3)
        await until(lambda: bool(files(tmp_path)) and not members.nodes[0]._snapshotting._taking)
        written.extend(members.journals[0].commands)

    async def after(members: Members) -> None:
        [node], [journal] = members.nodes, members.journals
        await until(lambda: len(journal.commands) == len(written))
        assert journal.commands == written
        assert journal.restored == 1  # type: ignore[attr-defined]
        await write(node, "b", 2 * COUNT)
        assert len(journal.commands) == len(written) + 2 * COUNT

    run(kind, tmp_path, 1, make, before)
    run(kind, tmp_path, 1, make, after)


@pytest.mark.parametrize(("kind", "make"), MESHES)
@pytest.mark.parametrize("chunk_bytes", [transfers.CHUNK_BYTES, 64])
def test_a_follower_that_was_away_for_long_gets_a_snapshot_and_goes_on_behind_it(
    tmp_path: Path,
    kind: str,
    make: Callable[[str], Journal],
    chunk_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(transfers, "WINDOW_BYTES", 4 * chunk_bytes)

    async def scenario(members: Members) -> None:
        away = members.one(Role.FOLLOWER)
        await members.stop(away)
        others = [node for node in members.nodes if node is not away]
        await until(lambda: any(node.role is Role.LEADER for node in others))
        leader = next(node for node in others if node.role is Role.LEADER)
        await write(leader, "a", 4 * COUNT)
        await until(lambda: leader._core.log.offset > COUNT)
        back = await members.start_again(away)
        await write(leader, "b", 5)
        expected = members.journal_of(leader).commands
        await until(lambda: members.journal_of(back).commands == expected)
        assert members.journal_of(back).restored >= 1  # type: ignore[attr-defined]
        await write(leader, "c", 3 * COUNT)
        await until(lambda: members.journal_of(back).commands == expected)

    run(kind, tmp_path, 3, make, scenario)


#: A test that has failed lets nobody go on, and yet has to end.
GATE_SECONDS = 30.0


class Gated(Remembering):
    """Waits between the first chunk and the second, until it is let go on; ``begun`` and ``ended`` are entries."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun: list[int] = []
        self.ended: list[int] = []

    def restore(self, chunks: Iterable[bytes]) -> None:
        following = iter(chunks)
        first = next(following)
        self.begun.append(int(first))
        self.gate.wait(GATE_SECONDS)
        super().restore([first, *following])
        self.ended.append(self.applied)


class AwaitedGated(AwaitedRemembering):
    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun: list[int] = []
        self.ended: list[int] = []

    async def restore(self, chunks: AsyncIterator[bytes]) -> None:
        first = await anext(chunks)
        self.begun.append(int(first))
        await asyncio.to_thread(self.gate.wait, GATE_SECONDS)
        Remembering.restore(self, [first, *[chunk async for chunk in chunks]])  # type: ignore[arg-type]
        self.ended.append(self.applied)


def gated_in_loop(kind: str) -> Journal:
    return Gated()


def gated_beside(kind: str) -> Journal:
    return AwaitedGated() if kind == "asyncio" else Gated()


def let_go(members: Members) -> None:
    for journal in members.journals:
        assert isinstance(journal, Gated | AwaitedGated)
        journal.gate.set()


@pytest.mark.parametrize("make", [gated_in_loop, gated_beside])
@pytest.mark.parametrize("kind", CLUSTERS)
def test_what_a_node_starts_from_is_given_up_for_what_the_leader_sends(
    tmp_path: Path, kind: str, make: Callable[[str], Journal]
) -> None:
    async def scenario(members: Members) -> None:
        let_go(members)
        away = members.one(Role.FOLLOWER)
        leader = members.one(Role.LEADER)
        await write(leader, "a", 2 * COUNT)
        await until(lambda: away._snapshotting.newest is not None and not away._snapshotting._taking)
        own, others = newest_of(away), [node for node in members.nodes if node is not away]
        await members.stop(away)
        await write(leader, "b", 3 * COUNT)
        await until(lambda: all(node._core.log.offset > 3 * COUNT for node in others))  # whoever leads then
        back = await members.start_again(away)
        machine = members.journal_of(back)
        assert isinstance(machine, Gated | AwaitedGated)
        await until(lambda: machine.begun == [own] and newest_of(back) > own)
        assert not is_whole(back)
        machine.gate.set()
        await until(lambda: machine.commands == names("a", 2 * COUNT) + names("b", 3 * COUNT))
        assert is_whole(back)
        assert machine.ended == machine.begun[1:]

    run(kind, tmp_path, 3, make, scenario)


@pytest.mark.parametrize("make", [gated_in_loop, gated_beside])
@pytest.mark.parametrize("kind", ALONE)
def test_a_node_that_stops_does_not_wait_until_it_has_its_state_again(
    tmp_path: Path, kind: str, make: Callable[[str], Journal]
) -> None:
    async def before(members: Members) -> None:
        await write(members.nodes[0], "a", 2 * COUNT)
        await until(lambda: bool(files(tmp_path)) and not members.nodes[0]._snapshotting._taking)

    async def after() -> None:
        members = Members(kind, tmp_path, 1, make, snapshot_count=COUNT)
        [node], [machine] = members.nodes, members.journals
        assert isinstance(machine, Gated | AwaitedGated)
        await finish(node.start)
        await until(lambda: bool(machine.begun))
        closing = asyncio.create_task(members.close())
        await until(lambda: is_whole(node))  # nobody is kept waiting for its state
        machine.gate.set()
        await closing
        assert machine.ended == []

    run(kind, tmp_path, 1, make, before)
    uvloop.run(after())


def test_a_start_goes_on_when_the_newer_snapshot_does_not_come_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Coming:
        received = None
        looks = 0

        @property
        def is_awaited(self) -> bool:
            self.looks += 1
            return self.looks < 5

    async def scenario(members: Members) -> None:
        [node] = members.nodes
        await write(node, "a", 2 * COUNT)
        await until(lambda: bool(files(tmp_path)) and not node._snapshotting._taking)
        newest, coming = node._snapshotting.newest, Coming()
        assert newest is not None
        with monkeypatch.context() as patch:
            patch.setattr(snapshotting, "HOLD_SECONDS", 0)
            patch.setattr(node._snapshotting, "_receiving", coming)
            chunks = list(node._snapshotting.state_in(newest))
        assert chunks == list(node._snapshots.chunks(newest))
        assert coming.looks == 4 + len(chunks)

    run("asyncio", tmp_path, 1, in_loop, scenario)


def is_whole(node: Node) -> bool:
    return node._whole.is_set()


@pytest.mark.parametrize("kind", CLUSTERS)
def test_what_the_leader_sends_is_taken_in_at_a_pace_and_what_a_node_starts_from_is_not(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(pace.Pace, "keep", lambda _, size: kept.append(size))

    async def scenario(members: Members) -> None:
        away, leader = members.one(Role.FOLLOWER), members.one(Role.LEADER)
        await members.stop(away)
        await write(leader, "a", 4 * COUNT)
        await until(lambda: leader._core.log.offset > COUNT)
        back = await members.start_again(away)
        await until(lambda: members.journal_of(back).commands == names("a", 4 * COUNT))
        received = back._snapshotting._receiving.received
        assert received is not None
        state = list(back._snapshots.chunks(received))
        assert kept == [back._snapshots.size(received), *map(len, state)]
        del kept[:]
        await members.stop(back)
        again = await members.start_again(back)
        await until(lambda: members.journal_of(again).commands == names("a", 4 * COUNT))
        assert kept == []

    run(kind, tmp_path, 3, in_loop, scenario)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_follower_whose_snapshot_takes_long_to_come_needs_no_second_one(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "CHUNK_BYTES", 64)
    monkeypatch.setattr(snapshotting, "CATCH_UP_ENTRIES", 5)
    hold = threading.Event()
    monkeypatch.setattr(pace.Pace, "keep", lambda *_: hold.wait())

    async def scenario(members: Members) -> None:
        away, leader = members.one(Role.FOLLOWER), members.one(Role.LEADER)
        await members.stop(away)
        await write(leader, "a", 4 * COUNT)
        await until(lambda: leader._core.log.offset > COUNT)
        sent = leader._snapshotting.newest
        assert sent is not None
        back = await members.start_again(away)
        await until(lambda: back._snapshotting._receiving.is_awaited)
        await write(leader, "b", 3 * COUNT // 2)
        newest, begins_behind = leader._snapshotting.newest, leader._core.log.offset
        hold.set()
        assert newest is not None
        assert newest.index > sent.index
        assert begins_behind == sent.index
        await until(lambda: members.journal_of(back).commands == members.journal_of(leader).commands)
        assert members.journal_of(back).restored == 1  # type: ignore[attr-defined]
        await write(leader, "c", 2 * COUNT)
        assert leader._core.log.offset > sent.index + COUNT

    run(kind, tmp_path, 3, in_loop, scenario)


class Large(AwaitedRemembering):
    """Gives its state away in twenty seconds."""

    async def snapshot(self, applied: int) -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(2000):
                await asyncio.sleep(0.01)
                yield b"more"

        return chunks()


def test_a_node_that_stops_does_not_wait_for_all_of_its_state(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        await write(members.nodes[0], "a", COUNT, waits=False)
        await until(lambda: members.nodes[0]._snapshotting._taking)
        began.append(time.monotonic())

    began: list[float] = []
    run("asyncio", tmp_path, 1, lambda _: Large(), scenario)
    assert time.monotonic() - began[0] < 10


class Elsewhere(AwaitedRemembering):
    """Keeps its state in a place that is not the node's, and loses it, or is replaced by another: as a service.

    What the node believes about it goes with each request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = self.believed = 0
        self.met = False
        self.gate: asyncio.Event | None = None

    def lose(self) -> None:
        self.place, self.commands, self.met = 0, [], False

    async def apply(  # type: ignore[override]
        self, batches: Sequence[tuple[bytes, bool]], applied: int
    ) -> list[Sequence[int] | None]:
        await asyncio.sleep(0.001)
        if self.away is not None:
            raise ConnectionError(self.away)
        if not (self.met and self.believed == self.place <= applied):
            self.met, self.believed = True, self.place
            raise Misplaced(self.place)
        results = self.take(batches)
        self.place = self.believed = applied
        return results

    async def restore(self, chunks: AsyncIterator[bytes]) -> None:
        received = [chunk async for chunk in chunks]
        if self.gate is not None:
            await self.gate.wait()
        if self.place >= int(received[0]):
            self.met, self.believed = True, self.place
            raise Misplaced(self.place)
        Remembering.restore(self, received)  # type: ignore[arg-type]
        self.place, self.applied = self.applied, 0
        self.met, self.believed = True, self.place


def run_elsewhere(directory: Path, size: int, scenario: Scenario, machine: Elsewhere | None = None) -> None:
    async def whole() -> None:
        make = (lambda _: machine) if machine is not None else lambda _: Elsewhere()
        members = Members("asyncio", directory, size, make, snapshot_count=COUNT, idle_check=0.05)
        await members.start()
        try:
            await scenario(members)
        finally:
            await members.close()

    uvloop.run(whole())


async def compacted(node: Node) -> None:
    """Until the log does not reach back to its first entries."""
    await until(lambda: node._core.log.offset > COUNT and not node._snapshotting._taking)


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}-{position}" for position in range(number)]


def test_a_machine_that_lost_what_the_log_has_no_more_gets_it_again_while_entries_are_committed(
    tmp_path: Path,
) -> None:
    async def scenario(members: Members) -> None:
        [node], [machine] = members.nodes, members.journals
        assert isinstance(machine, Elsewhere)
        await write(node, "a", 4 * COUNT)
        await compacted(node)
        machine.gate = asyncio.Event()
        machine.lose()
        waiting = []
        for command in names("b", 3 * COUNT):
            waiting.append(propose(node, command))
            await asyncio.sleep(0.005)  # an entry of its own, handed out while the machine restores
        machine.gate.set()
        await asyncio.wait_for(asyncio.gather(*waiting), 15)
        assert machine.commands == names("a", 4 * COUNT) + names("b", 3 * COUNT)
        assert machine.restored == 1
        assert [await each for each in waiting] == list(range(4 * COUNT, 7 * COUNT))
        await until(lambda: node.problem is None)

    run_elsewhere(tmp_path, 1, scenario)


@pytest.mark.parametrize("lost", [True, False])
def test_a_node_started_anew_finds_out_whether_its_machine_needs_the_snapshot(
    tmp_path: Path, lost: bool
) -> None:
    machine = Elsewhere()

    async def before(members: Members) -> None:
        await write(members.nodes[0], "a", 4 * COUNT)
        await compacted(members.nodes[0])

    async def after(members: Members) -> None:
        await until(lambda: machine.commands == names("a", 4 * COUNT))
        await write(members.nodes[0], "b", 5)
        assert machine.commands == names("a", 4 * COUNT) + names("b", 5)
        assert machine.restored == lost

    run_elsewhere(tmp_path, 1, before, machine)
    machine.met = False  # a node's new life knows nothing of it
    if lost:
        machine.lose()
    run_elsewhere(tmp_path, 1, after, machine)


def test_a_machine_that_loses_its_state_while_the_node_gets_a_snapshot_has_all_in_the_end(
    tmp_path: Path,
) -> None:
    async def scenario(members: Members) -> None:
        away = members.one(Role.FOLLOWER)
        await write(away, "a", 4 * COUNT)
        await until(lambda: len(members.journal_of(away).commands) == 4 * COUNT)
        await compacted(away)
        await members.stop(away)
        others = [node for node in members.nodes if node is not away]
        await until(lambda: any(node.role is Role.LEADER for node in others))
        leader = next(node for node in others if node.role is Role.LEADER)
        await write(leader, "b", 4 * COUNT)
        await until(lambda: leader._core.log.offset > 5 * COUNT)
        back = await members.start_again(away)  # with an empty machine
        machine = members.journal_of(back)
        assert isinstance(machine, Elsewhere)
        await until(lambda: machine.place > 0)
        machine.lose()
        await write(leader, "c", 5)
        expected = names("a", 4 * COUNT) + names("b", 4 * COUNT) + names("c", 5)
        await until(lambda: machine.commands == expected)

    run_elsewhere(tmp_path, 3, scenario)


def test_an_older_snapshot_that_was_restored_late_is_followed_by_the_newest(tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        [node], [machine] = members.nodes, members.journals
        assert isinstance(machine, Elsewhere)
        await write(node, "a", 4 * COUNT)
        await compacted(node)
        machine.gate = asyncio.Event()
        machine.lose()
        await until(lambda: node.problem is not None)
        state = [f"{node._core.applied}".encode(), *[name.encode() for name in names("a", 4 * COUNT)]]
        take_snapshot(node, state)  # as if the one that was being taken had become the newest meanwhile
        machine.gate.set()
        await until(lambda: machine.commands == names("a", 4 * COUNT))
        assert machine.restored == 2
        await write(node, "b", 5)
        assert machine.commands[-5:] == names("b", 5)

    run_elsewhere(tmp_path, 1, scenario)


def take_snapshot(node: Node, state: list[bytes]) -> None:
    meta = node._core.snapshot_meta()
    node._snapshotting.newest = mark_of(meta, node._members.encode())
    node._snapshots.write(node._snapshotting.newest, state)
    node._core.snapshot_available(meta)
    node._core.compact(meta.index)
