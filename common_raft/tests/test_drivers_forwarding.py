"""When batches leave: together with what comes while an entry is under way, and never much later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from common_raft.core import Role
from common_raft.drivers.envelope import split
from common_raft.drivers.forwarding import GATHER_SECONDS, Forwarding
from common_raft.drivers.proposals import Proposals
from common_raft.transport.messages import ForwardedProposals

ME, OTHER = 1, 2


class Machine:
    applied = 0

    def encode(self, commands: Sequence[str]) -> bytes:
        return "".join(commands).encode()


class Core:
    """As much of a core as proposing needs."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.leader = ME if role is Role.LEADER else OTHER
        self.term = 1
        self.commit = self.last_index = 5
        self.proposed: list[bytes] = []

    def propose(self, payloads: Sequence[bytes]) -> None:
        self.proposed += payloads
        self.last_index += len(payloads)


class Links:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def is_connected(self, _peer: int) -> bool:
        return True

    def send(self, message: ForwardedProposals) -> None:
        self.sent.append(b"".join(message.batches))


class Member:
    def __init__(self, role: Role) -> None:
        self.now = 10.0
        self.core, self.links = Core(role), Links()
        self.proposals: Proposals[str, str] = Proposals(Machine(), ME, 0, 5.0)  # type: ignore[arg-type]
        core: Any = self.core
        self.forwarding = Forwarding(core, self.proposals, ME, lambda: self.now)
        self.forwarding.transport = self.links  # type: ignore[assignment]

    def add(self, command: str, *, disk_is_busy: bool = False) -> list[str]:
        """What has left once this has come."""
        self.proposals.add(command, lambda _: None, self.now)
        return self.advance(disk_is_busy=disk_is_busy)

    def advance(self, *, disk_is_busy: bool = False) -> list[str]:
        self.forwarding.advance(disk_is_busy=disk_is_busy)
        left = self.core.proposed + self.links.sent
        return ["".join(payload.decode() for _, _, payload in split(data)) for data in left]


def test_a_leader_proposes_at_once_when_nothing_is_under_way() -> None:
    assert Member(Role.LEADER).add("a") == ["a"]


def test_what_comes_while_an_entry_is_under_way_shares_the_next_one() -> None:
    member = Member(Role.LEADER)
    member.add("a")
    member.add("b")
    assert member.add("c") == ["a"]
    member.core.commit = member.core.last_index
    assert member.advance() == ["a", "bc"]
    assert member.forwarding.gathers_until is None


def test_a_slow_majority_is_not_waited_for() -> None:
    member = Member(Role.LEADER)
    member.add("a")
    member.add("b")
    assert member.forwarding.gathers_until == member.now + GATHER_SECONDS
    member.now += 0.75 * GATHER_SECONDS
    assert member.add("c") == ["a"]
    member.now += 0.25 * GATHER_SECONDS
    assert member.advance() == ["a", "bc"]
    assert member.add("d") == ["a", "bc"]  # which waits anew


def test_a_leader_waits_for_its_own_disk_as_long_as_it_takes() -> None:
    member = Member(Role.LEADER)
    member.add("a")
    member.now += 1
    assert member.add("b", disk_is_busy=True) == ["a"]


@pytest.mark.parametrize("done", [True, False])
def test_a_followers_batch_leaves_with_its_acknowledgement_or_a_little_later(done: bool) -> None:
    member = Member(Role.FOLLOWER)
    assert member.add("a") == ["a"]
    member.add("b", disk_is_busy=True)
    assert member.add("c", disk_is_busy=True) == ["a"]
    if not done:
        member.now += GATHER_SECONDS
    assert member.advance(disk_is_busy=not done) == ["a", "bc"]


@pytest.mark.parametrize("why", ["no leader is known", "leading ends", "the node leaves", "its disk works"])
def test_nothing_is_due_while_nothing_can_be_proposed_or_sent(why: str) -> None:
    member = Member(Role.LEADER)
    member.add("a")
    member.add("b")
    assert member.forwarding.gathers_until is not None
    if why == "the node leaves":
        member.forwarding.holds = True
    elif why != "its disk works":
        member.core.role = Role.FOLLOWER
        member.core.leader = 0 if why == "no leader is known" else OTHER
    member.advance(disk_is_busy=why == "its disk works")
    assert member.forwarding.gathers_until is None


def test_nothing_waits_once_nothing_is_there_to_be_sent() -> None:
    member = Member(Role.FOLLOWER)
    member.add("a", disk_is_busy=True)
    member.advance()
    member.advance(disk_is_busy=True)
    assert member.forwarding.gathers_until is None
