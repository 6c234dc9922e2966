"""A node whose state machine is awaited: slow, away, started anew, ahead."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from common_raft.core import LogDamaged
from common_raft.drivers.applying import Work, take
from common_raft.drivers.asyncio import NOT_REACHED, AsyncioNode, NodeOptions
from common_raft.drivers.machine import Misplaced, ProposalError
from common_raft.storage import Wal
from common_raft.testing.processes import free_ports

Node = AsyncioNode[str, int]


class Elsewhere:
    """A state machine somewhere else, and what is known of it here (``believed``)."""

    applied = 0

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.at = 0
        self.believed = 0
        self.away = False
        self.calls = 0
        self.stops_when_misplaced = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    def encode(self, commands: Sequence[str]) -> bytes:
        return "\n".join(commands).encode()

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> list[Sequence[int] | None]:
        self.calls += 1
        await self.go_on.wait()
        if self.away:
            raise ConnectionError("it is away")
        if self.believed != self.at:
            self.believed = self.at
            if self.stops_when_misplaced:
                self.go_on.clear()
            raise Misplaced(self.at)
        results: list[Sequence[int] | None] = []
        for data, _ in batches:
            first = len(self.commands)
            self.commands += data.decode().split("\n")
            results.append(range(first, len(self.commands)))
        self.at = self.believed = applied
        return results

    def start_anew(self) -> None:
        self.commands, self.at = [], 0


def run(
    directory: Path,
    scenario: Callable[[Node, Elsewhere], Awaitable[None]],
    idle_check: float | None = 0.05,
    machine: Callable[[], Elsewhere] = Elsewhere,
) -> None:
    async def whole() -> None:
        [port] = free_ports(1)
        wal = Wal.open(directory / "n", cluster_id=7, node_id=1, fsync=False)
        state = machine()
        # Named as the table of the first members has it, so that nothing is to be published.
        options = NodeOptions(1, "1", 7, [("127.0.0.1", port)], {}, 0.01, 0.1, idle_check)
        node: Node = AsyncioNode(options, wal, state)
        await node.start()
        try:
            await scenario(node, state)
        finally:
            await node.close()
            wal.close()

    uvloop.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


def propose(node: Node, command: str) -> asyncio.Future[int | ProposalError]:
    future: asyncio.Future[int | ProposalError] = asyncio.get_running_loop().create_future()
    node.propose(command, future.set_result)
    return future


def test_a_machine_started_anew_is_given_everything_again_in_order(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        for number in range(5):
            assert await propose(node, f"c{number}") == number
        machine.start_anew()
        assert await propose(node, "c5") == 5
        assert machine.commands == [f"c{number}" for number in range(6)]
        assert node.problem is None

    run(tmp_path, scenario)


def test_an_idle_node_notices_that_its_machine_was_started_anew(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        await propose(node, "a")
        machine.start_anew()
        await until(lambda: machine.commands == ["a"])

    run(tmp_path, scenario)


def test_an_idle_node_notices_that_its_machine_is_away_and_back(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        assert node.problem == NOT_REACHED
        await until(lambda: node.problem is None)
        machine.away = True
        await until(lambda: node.problem == "it is away")
        machine.away = False
        await until(lambda: node.problem is None)

    run(tmp_path, scenario)


def test_without_idle_checks_an_idle_machine_is_left_alone(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        await propose(node, "a")
        calls = machine.calls
        await asyncio.sleep(0.2)
        assert machine.calls == calls

    run(tmp_path, scenario, idle_check=None)


def test_what_was_committed_while_the_machine_was_away_is_applied_once_when_it_is_back(
    tmp_path: Path,
) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        await propose(node, "a")
        machine.away = True
        waiting = [propose(node, "b")]
        await until(lambda: node.problem is not None)
        waiting.append(propose(node, "c"))
        machine.start_anew()
        await asyncio.sleep(0.1)
        machine.away = False
        assert await asyncio.gather(*waiting) == [1, 2]
        assert machine.commands == ["a", "b", "c"]

    run(tmp_path, scenario)


def test_while_a_machine_gets_again_what_it_had_the_node_says_so(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        await propose(node, "a")
        before = node.applied
        machine.stops_when_misplaced = True
        machine.start_anew()
        await until(lambda: node.applied < before)
        assert node.problem == f"the state machine has 0 of {before} entries again"
        machine.go_on.set()
        await until(lambda: node.applied == before)
        await until(lambda: node.problem is None)

    run(tmp_path, scenario)


def test_a_machine_that_has_more_than_this_node_believed_goes_on_from_there(tmp_path: Path) -> None:
    def further() -> Elsewhere:
        machine = Elsewhere()
        machine.at, machine.commands = 3, ["a", "b"]  # the first entry is the leader's own
        return machine

    async def write(node: Node, _: Elsewhere) -> None:
        assert await propose(node, "a") == 0
        assert await propose(node, "b") == 1

    async def look(node: Node, machine: Elsewhere) -> None:
        assert await propose(node, "c") == 2
        assert machine.commands == ["a", "b", "c"]

    run(tmp_path, write)
    run(tmp_path, look, machine=further)


def test_a_machine_that_has_more_than_the_log_ends_the_node(tmp_path: Path) -> None:
    async def scenario(node: Node, machine: Elsewhere) -> None:
        machine.at = 99
        error = await node.failed
        assert isinstance(error, LogDamaged)
        assert "has applied entry 99" in str(error)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("limit", "taken"), [(0, [1]), (4, [1, 2]), (5, [1, 2]), (6, [1, 2, 3]), (100, [1, 2, 3])]
)
def test_work_is_put_together_while_it_fits(limit: int, taken: list[int]) -> None:
    works = deque(Work([(b"xx", True)], [number], number) for number in (1, 2, 3))
    work = take(works, limit)
    assert (work.sequences, work.applied, len(work.batches)) == (taken, taken[-1], len(taken))
    assert [left.applied for left in works] == [1, 2, 3][len(taken) :]
