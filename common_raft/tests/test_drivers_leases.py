"""Reads by the leader's lease: without asking anybody, and only as long as nobody else can lead."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from common_raft.core import Role
from common_raft.core.messages import HeartbeatResponse
from common_raft.drivers.machine import ProposalError
from common_raft.tests.test_drivers import ALONE, Members, Node, in_loop, propose, read_index

#: Long enough for a lease that a busy machine does not miss: two thirds of it.
ELECTION = 3.0


def run(driver: str, directory: Path, scenario: Callable[[Members], Awaitable[None]], *, lease: bool) -> None:
    async def whole() -> None:
        members = Members(
            driver, directory, 3, heartbeat_interval=0.1, election_timeout=ELECTION, lease_reads=lease
        )
        await members.start()
        try:
            await scenario(members)
        finally:
            await members.close()

    in_loop(whole)


async def deaf(members: Members) -> Node:
    """The leader, after a write and a read, when no answer to its heartbeats reaches it any more."""
    leader = members.one(Role.LEADER)
    assert await propose(leader, "c") == 0
    assert await read_index(leader) is None
    await asyncio.sleep(0.3)  # some heartbeats more, and their answers
    step = leader._core.step

    def heard(message: object) -> None:
        if not isinstance(message, HeartbeatResponse):
            step(message)  # type: ignore[arg-type]

    leader._core.step = heard  # type: ignore[method-assign,assignment]
    return leader


async def stays_open(read: Awaitable[ProposalError | None]) -> None:
    waiting = asyncio.ensure_future(read)
    await asyncio.sleep(0.3)
    assert not waiting.done()  # it is told that the node stops, in the end


@pytest.mark.parametrize("driver", ALONE)
def test_a_lease_spares_the_question_who_leads(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        assert await read_index(await deaf(members)) is None

    run(driver, tmp_path, scenario, lease=True)


@pytest.mark.parametrize("driver", ALONE)
def test_without_a_lease_each_read_asks(driver: str, tmp_path: Path) -> None:
    async def scenario(members: Members) -> None:
        await stays_open(read_index(await deaf(members)))

    run(driver, tmp_path, scenario, lease=False)


@pytest.mark.parametrize("driver", ALONE)
def test_a_process_that_stood_still_has_no_lease_when_it_goes_on(driver: str, tmp_path: Path) -> None:
    """Its clock has gone on meanwhile: before its timer can say so, a read is there."""

    async def scenario(members: Members) -> None:
        leader = await deaf(members)
        now = leader._now
        leader._now = lambda: now() + ELECTION
        await stays_open(read_index(leader))

    run(driver, tmp_path, scenario, lease=True)
