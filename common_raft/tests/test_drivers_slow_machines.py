"""State machines that are awaited, go away, or keep their own state: every command is applied once, in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from common_raft.core import LogDamaged
from common_raft.drivers.asyncio import AsyncioNode, NodeOptions
from common_raft.drivers.machine import Done, ProposalError
from common_raft.drivers.standalone import StandaloneNode
from common_raft.storage import Wal
from common_raft.testing.processes import free_ports


class SlowJournal:
    """Keeps what it applied, over restarts of the node; a command's result is its position.

    ``away``: it cannot be reached.  ``gate``: calls wait until it is set.
    """

    def __init__(self) -> None:
        self.applied = 0
        self.commands: list[str] = []
        self.calls = 0
        self.away = False
        self.gate: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0

    def encode(self, commands: Sequence[str]) -> bytes:
        return "\n".join(commands).encode()

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
        self.calls += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        self.at_once -= 1
        if self.away:
            raise ConnectionError("the journal is away")
        results: list[Sequence[int] | None] = []
        for data, _ in batches:
            first = len(self.commands)
            self.commands += data.decode().split("\n")
            results.append(range(first, len(self.commands)))
        self.applied = applied
        return results


Node = AsyncioNode[str, int] | StandaloneNode[str, int]


def propose(node: Node, command: str) -> asyncio.Future[int | ProposalError]:
    future: asyncio.Future[int | ProposalError] = asyncio.get_running_loop().create_future()
    done: Done[int] = future.set_result
    node.propose(command, done)
    return future


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def run(
    directory: Path, journal: SlowJournal, scenario: Callable[[AsyncioNode[str, int]], Awaitable[None]]
) -> None:
    """``scenario`` with a cluster of one on the log in ``directory``."""

    async def whole() -> None:
        wal = Wal.open(directory, cluster_id=7, node_id=1, fsync=False)
        try:
            options = NodeOptions(1, "n1", 7, [("127.0.0.1", free_ports(1)[0])], {}, 0.02, 0.2)
            node: AsyncioNode[str, int] = AsyncioNode(options, wal, journal)
            await node.start()
            try:
                await scenario(node)
            finally:
                await node.close()
        finally:
            wal.close()

    uvloop.run(whole())


def test_what_is_committed_while_the_machine_works_is_applied_together(tmp_path: Path) -> None:
    journal = SlowJournal()

    async def scenario(node: AsyncioNode[str, int]) -> None:
        journal.gate = asyncio.Event()
        first = propose(node, "a")
        await until(lambda: journal.calls == 1)
        rest = [propose(node, command) for command in "bcd"]
        await asyncio.sleep(0.1)
        journal.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 1, 2, 3]
        assert journal.calls == 2

    run(tmp_path, journal, scenario)


def test_a_linearizable_read_waits_for_a_machine_that_is_behind(tmp_path: Path) -> None:
    journal = SlowJournal()

    async def scenario(node: AsyncioNode[str, int]) -> None:
        journal.gate = asyncio.Event()
        write = propose(node, "a")
        await until(lambda: journal.calls == 1)
        confirmed: asyncio.Future[ProposalError | None] = asyncio.get_running_loop().create_future()
        node.read_index(confirmed.set_result)
        await asyncio.sleep(0.1)
        assert not confirmed.done()
        journal.gate.set()
        assert await confirmed is None
        assert journal.commands == ["a"]
        await write

    run(tmp_path, journal, scenario)


def test_a_machine_that_is_away_is_tried_again_and_loses_and_repeats_nothing(tmp_path: Path) -> None:
    journal = SlowJournal()

    async def scenario(node: AsyncioNode[str, int]) -> None:
        journal.away = True
        write = propose(node, "a")
        await until(lambda: node.problem is not None)
        assert node.problem == "the journal is away"
        journal.away = False
        assert await write == 0
        assert node.problem is None
        assert journal.commands == ["a"]

    run(tmp_path, journal, scenario)


def test_a_node_goes_on_behind_what_its_machine_has_applied(tmp_path: Path) -> None:
    journal = SlowJournal()

    async def write(node: AsyncioNode[str, int]) -> None:
        assert await asyncio.gather(*(propose(node, command) for command in "abc")) == [0, 1, 2]

    async def write_more(node: AsyncioNode[str, int]) -> None:
        assert await propose(node, "d") == 3

    run(tmp_path, journal, write)
    run(tmp_path, journal, write_more)
    assert journal.commands == ["a", "b", "c", "d"]


def test_a_machine_that_is_ahead_of_the_log_is_refused(tmp_path: Path) -> None:
    journal = SlowJournal()
    journal.applied = 1000

    async def nothing(_node: AsyncioNode[str, int]) -> None: ...

    with pytest.raises(LogDamaged, match="has applied entry 1000, but this log ends at 0"):
        run(tmp_path, journal, nothing)


def test_a_machine_that_fails_ends_the_node_and_those_who_wait_are_told(tmp_path: Path) -> None:
    journal = SlowJournal()
    journal.encode = lambda commands: b"\xff"  # type: ignore[method-assign]

    async def scenario(node: AsyncioNode[str, int]) -> None:
        assert isinstance(await propose(node, "a"), ProposalError)
        assert isinstance(await node.failed, UnicodeDecodeError)

    run(tmp_path, journal, scenario)


@pytest.mark.parametrize(("linearizable", "at_once"), [(True, 1), (False, 5)])
def test_standing_alone_operations_are_kept_apart_or_not_as_was_asked(
    linearizable: bool, at_once: int
) -> None:
    async def whole() -> None:
        journal = SlowJournal()
        node: StandaloneNode[str, int] = StandaloneNode(1, "n1", 7, journal, linearizable=linearizable)
        results = await asyncio.gather(*(propose(node, command) for command in "abcde"))
        assert sorted(results) == [0, 1, 2, 3, 4]  # type: ignore[type-var]
        assert sorted(journal.commands) == list("abcde")
        assert journal.most_at_once == at_once
        await node.close()
        assert isinstance(await propose(node, "f"), ProposalError)

    uvloop.run(whole())


def test_standing_alone_a_store_that_is_away_fails_the_operation_and_is_told() -> None:
    async def whole() -> None:
        journal = SlowJournal()
        node: StandaloneNode[str, int] = StandaloneNode(1, "n1", 7, journal, linearizable=True)
        journal.away = True
        assert isinstance(await propose(node, "a"), ProposalError)
        assert node.problem == "the journal is away"
        journal.away = False
        assert await propose(node, "b") == 0
        assert node.problem is None
        await node.close()

    uvloop.run(whole())
