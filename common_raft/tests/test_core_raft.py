"""What the scenarios do not show: the table of handlers, configurations, and a few properties of RawNode."""

from __future__ import annotations

from random import Random
from typing import get_args

import pytest

from common_raft.core import Config, Entry, EntryKind, HardState, LogDamaged, Message, RawNode, Role
from common_raft.core.messages import AppendEntries, AppendResponse, Heartbeat
from common_raft.core.raft import HANDLERS
from common_raft.storage.memory import MemoryStorage

#: The handled messages of each role; all other cells are empty on purpose.
CELLS = {
    Role.FOLLOWER: "RequestVote AppendEntries Commit Heartbeat ReadIndexResponse TimeoutNow",
    Role.PRE_CANDIDATE: "RequestVote AppendEntries Commit Heartbeat VoteResponse",
    Role.CANDIDATE: "RequestVote AppendEntries Commit Heartbeat VoteResponse",
    Role.LEADER: "RequestVote AppendResponse HeartbeatResponse ReadIndex",
}


@pytest.mark.parametrize("role", Role)
def test_each_role_handles_these_messages_and_no_others(role: Role) -> None:
    assert {message.__name__ for message in HANDLERS[role]} == set(CELLS[role].split())


def test_every_message_is_handled_by_somebody() -> None:
    handled = {message for cells in HANDLERS.values() for message in cells}
    assert handled == set(get_args(Message))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"id": 4}, "must be one of the voters"),
        ({"id": 0, "voters": (0, 1)}, "must be one of the voters"),
        ({"voters": (1, 2, 2)}, "must differ"),
        ({"heartbeat_tick": 10}, "below election_tick"),
        ({"heartbeat_tick": 0}, "above 0"),
    ],
)
def test_a_config_that_cannot_work_is_refused(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Config(**({"id": 1, "voters": (1, 2, 3)} | arguments))  # type: ignore[arg-type]


def node(storage: MemoryStorage | None = None, **config: int | bool) -> RawNode:
    settings = Config(id=1, voters=(1, 2, 3), **config)  # type: ignore[arg-type]
    return RawNode(settings, storage or MemoryStorage(), Random(1))


def entries(*terms: int) -> list[Entry]:
    return [Entry(term, EntryKind.COMMANDS, b"x") for term in terms]


def test_election_timeouts_are_spread_over_one_to_two_election_ticks() -> None:
    ticks = set()
    for seed in range(200):
        follower = RawNode(Config(id=1, voters=(1, 2, 3), election_tick=10), MemoryStorage(), Random(seed))
        count = 0
        while follower.role is Role.FOLLOWER:
            follower.tick()
            count += 1
        ticks.add(count)
    assert ticks == set(range(10, 20))


def test_nothing_is_ready_when_nothing_happened() -> None:
    fresh = node()
    assert not fresh.has_ready()
    ready = fresh.ready()
    assert not ready.must_persist
    assert not ready.messages
    assert not fresh.has_ready()


def test_what_a_ready_has_handed_out_is_not_handed_out_again() -> None:
    follower = node()
    follower.step(AppendEntries(1, 2, 1, 0, 0, entries(1, 1), 1))
    first = follower.ready()
    assert (first.first_index, first.entries) == (1, entries(1, 1))
    assert not follower.has_ready()
    follower.on_persisted(first.number)
    second = follower.ready()
    assert (second.committed_index, second.committed, second.entries) == (1, entries(1), [])
    assert not follower.has_ready()


def test_committed_entries_are_handed_out_in_portions_of_max_apply_bytes() -> None:
    storage = MemoryStorage(HardState(1, 0, 3), 1, entries(1, 1, 1))
    restarted = node(storage, max_apply_bytes=2)
    assert restarted.ready().committed == entries(1, 1)
    assert restarted.ready().committed == entries(1)
    assert not restarted.has_ready()


def test_an_answer_to_what_was_never_sent_moves_nothing() -> None:
    storage = MemoryStorage(HardState(1, 0, 0), 1, entries(1))
    leader = node(storage, pre_vote=False)
    leader.campaign()
    leader.on_persisted(leader.ready().number)
    leader._raft._become_leader()
    leader.step(AppendResponse(1, 2, 2, 99))
    assert leader.commit == 0


def test_a_message_for_somebody_else_is_ignored() -> None:
    follower = node()
    follower.step(Heartbeat(2, 3, 7, 0, 0))
    assert follower.term == 0


def test_entries_that_came_went_and_came_back_are_not_persisted_before_their_last_write() -> None:
    """Write 1: 2/2 3/2; write 2 replaces them by 2/3; write 3 brings 2/2 3/2 back, from a leader of term 4.

    When write 1 is confirmed, write 2 may be the next to reach the disk: then it does not hold 3/2.
    """
    follower = node(MemoryStorage(HardState(1, 0, 0), 1, entries(1)))
    follower.step(AppendEntries(1, 2, 2, 1, 1, entries(2, 2), 0))
    first = follower.ready()
    follower.step(AppendEntries(1, 3, 3, 1, 1, entries(3), 0))
    follower.ready()
    follower.step(AppendEntries(1, 2, 4, 1, 1, entries(2, 2), 3))
    follower.ready()
    follower.on_persisted(first.number)
    assert follower.persisted == 1


def test_a_state_machine_that_is_found_to_have_less_is_given_again_what_it_lacks() -> None:
    restarted = node(MemoryStorage(HardState(1, 0, 3), 1, entries(1, 1, 1)))
    restarted.ready()
    restarted.on_applied(3)
    restarted.resume_at(1)
    again = restarted.ready()
    assert (again.committed_index, again.committed) == (2, entries(1, 1))
    restarted.resume_at(0)
    assert restarted.ready().committed_index == 1


def test_a_state_machine_that_is_found_to_have_more_is_not_given_it_again() -> None:
    restarted = node(MemoryStorage(HardState(1, 0, 1), 1, entries(1, 1, 1)))
    restarted.ready()
    restarted.resume_at(2)
    assert restarted.commit == 2
    assert not restarted.ready().committed


def test_a_state_machine_that_has_more_than_the_log_is_refused() -> None:
    restarted = node(MemoryStorage(HardState(1, 0, 1), 1, entries(1, 1)))
    with pytest.raises(LogDamaged, match="has applied entry 3, but this log ends at 2"):
        restarted.resume_at(3)
