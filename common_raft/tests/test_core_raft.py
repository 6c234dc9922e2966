"""What the scenarios do not show: the table of handlers, configurations, and a few properties of RawNode."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random
from typing import get_args

import pytest

from common_raft.core import (
    Compacted,
    ConfChange,
    ConfChangeKind,
    ConfChanges,
    Config,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogDamaged,
    Message,
    ProposalDropped,
    RawNode,
    Role,
    SnapshotMeta,
    elections,
    membership,
)
from common_raft.core.configuration import encode_changes
from common_raft.core.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from common_raft.core.raft import HANDLERS
from common_raft.core.reads import ReadRounds
from common_raft.storage.memory import MemoryStorage

#: The handled messages of each role; all other cells are empty on purpose.
CELLS = {
    Role.FOLLOWER: "RequestVote AppendEntries Commit Heartbeat InstallSnapshot ReadIndexResponse TimeoutNow",
    Role.PRE_CANDIDATE: "RequestVote AppendEntries Commit Heartbeat InstallSnapshot VoteResponse",
    Role.CANDIDATE: "RequestVote AppendEntries Commit Heartbeat InstallSnapshot VoteResponse",
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
        ({"id": 0}, "id 0 must be a whole number from 1 to 18446744073709551615"),
        ({"id": 2**64}, "id 18446744073709551616 must be a whole number from 1 to"),
        ({"id": 1.0}, "id 1.0 must be"),
        ({"id": True}, "id True must be"),
        ({"voters": (0, 1)}, r"voters \(0, 1\) must be whole numbers from 1 to 18446744073709551615"),
        ({"voters": (1, 2**64)}, "voters .* must be whole numbers"),
        ({"voters": (1, "2")}, r"voters \(1, '2'\) must be whole numbers"),
        ({"voters": (1, 2, 2)}, "must differ"),
        ({"heartbeat_tick": 10}, "heartbeat_tick 10 must be below election_tick 10"),
        ({"heartbeat_tick": 0}, "heartbeat_tick 0 must be a whole number, 1 or above"),
        ({"heartbeat_tick": 1.5}, "heartbeat_tick 1.5 must be a whole number"),
        ({"election_tick": 2.5}, "election_tick 2.5 must be a whole number"),
        ({"election_tick": "10"}, "election_tick '10' must be a whole number"),
        ({"election_tick": True}, "election_tick True must be a whole number"),
        ({"max_message_bytes": -1}, "max_message_bytes -1 must be a whole number, 0 or above"),
        ({"max_inflight_messages": 0}, "max_inflight_messages 0 must be a whole number, 1 or above"),
        ({"max_inflight_bytes": 0}, "max_inflight_bytes 0 must be a whole number, 1 or above"),
        ({"max_uncommitted_bytes": -1}, "max_uncommitted_bytes -1 must be a whole number, 0 or above"),
        ({"max_apply_bytes": -1}, "max_apply_bytes -1 must be a whole number, 0 or above"),
        ({"max_apply_bytes": None}, "max_apply_bytes None must be a whole number"),
        ({"pre_vote": "no"}, "pre_vote 'no' must be True or False"),
        ({"check_quorum": 1}, "check_quorum 1 must be True or False"),
        ({"lease_reads": None}, "lease_reads None must be True or False"),
        ({"lease_reads": True, "check_quorum": False}, "need check_quorum"),
    ],
)
def test_a_config_that_cannot_work_is_refused(arguments: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Config(**({"id": 1, "voters": (1, 2, 3)} | arguments))  # type: ignore[arg-type]


def test_a_config_at_its_limits_is_taken() -> None:
    """The rest sends, and applies, one entry at a time."""
    config = Config(
        id=2**64 - 1,
        voters=(1, 2**64 - 1),
        election_tick=2,
        heartbeat_tick=1,
        max_message_bytes=0,
        max_inflight_messages=1,
        max_inflight_bytes=1,
        max_uncommitted_bytes=0,
        max_apply_bytes=0,
    )
    assert RawNode(config, MemoryStorage(), Random(1)).id == 2**64 - 1


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
    elections.become_leader(leader._raft)
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


@pytest.mark.parametrize("index", [0, 3])
def test_only_what_was_handed_out_can_be_applied_and_nothing_is_taken_back(index: int) -> None:
    """The third entry is committed, and waits in the log for the next Ready."""
    restarted = node(MemoryStorage(HardState(1, 0, 3), 1, entries(1, 1, 1)), max_apply_bytes=2)
    restarted.ready()
    restarted.on_applied(1)
    with pytest.raises(
        ValueError, match=f"entry {index} cannot be the last one applied: .* from 1, .* to 2,"
    ):
        restarted.on_applied(index)
    assert restarted.applied == 1
    restarted.on_applied(1)
    restarted.on_applied(2)
    assert restarted.ready().committed_index == 3


@pytest.mark.parametrize(
    ("payloads", "others"),
    [([b"a", "b"], "str"), ([bytearray(b"a"), None], "NoneType, bytearray"), (b"ab", "int"), ("ab", "str")],
)
def test_what_is_not_made_of_bytes_is_not_proposed(payloads: list[bytes], others: str) -> None:
    leader = lead(node())
    with pytest.raises(TypeError, match=f"must be bytes, not {others}$"):
        leader.propose(payloads)
    assert leader.last_index == 1
    assert not leader._raft.uncommitted_bytes


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


# --- snapshots -----------------------------------------------------------------------------------------------

THREE = Configuration((1, 2, 3))


def snapshot(index: int, term: int, configuration: Configuration = THREE) -> SnapshotMeta:
    return SnapshotMeta(index, term, configuration)


def applied_node(*terms: int, commit: int | None = None, **config: int | bool) -> RawNode:
    """A follower that has applied all of its log, or up to ``commit``."""
    commit = len(terms) if commit is None else commit
    restarted = node(MemoryStorage(HardState(terms[-1], 0, commit), 1, entries(*terms)), **config)
    restarted.ready()
    restarted.on_applied(commit)
    return restarted


def apply_all(node: RawNode) -> None:
    """Applies what is committed and on its disk, and drops what it sends meanwhile."""
    node.ready()
    node.on_applied(node.commit)


def lead(node: RawNode) -> RawNode:
    """Makes a leader of it, in the next term, with its no-op written and not replicated."""
    node.campaign()
    node.on_persisted(node.ready().number)
    elections.become_leader(node._raft)
    node.on_persisted(node.ready().number)
    return node


@pytest.mark.parametrize(
    ("first_index", "terms", "held", "first", "last"),
    [
        (1, (), snapshot(0, 0), 1, 0),  # the first configuration
        (1, (1, 1, 2), snapshot(2, 1), 1, 3),  # nothing purged yet
        (3, (2, 2), snapshot(2, 1), 3, 4),  # all purged
        (3, (2, 2, 2), snapshot(4, 2), 4, 5),  # a tail is left: the term before it is lost
        (3, (2, 2), snapshot(3, 2), 4, 4),
        (3, (2, 2), snapshot(4, 2), 4, 4),
        (1, (1, 1), snapshot(5, 2), 6, 5),  # the log ends before the snapshot
        (6, (), snapshot(5, 2), 6, 5),
    ],
)
def test_a_node_starts_from_its_snapshot_and_what_the_disk_holds_besides(
    first_index: int, terms: tuple[int, ...], held: SnapshotMeta, first: int, last: int
) -> None:
    storage = MemoryStorage(HardState(3, 0, 0), first_index, entries(*terms), held)
    started = node(storage)
    assert (started.log.first_index, started.last_index) == (first, last)
    assert (started.commit, started.applied) == (held.index, held.index)
    assert started.log.term(held.index) == held.term
    assert not started.has_ready()


@pytest.mark.parametrize(
    ("first_index", "terms", "held", "complaint"),
    [
        (3, (1,), None, "begins with entry 3, and the snapshot ends at 0"),
        (4, (2,), snapshot(2, 1), "begins with entry 4, and the snapshot ends at 2"),
        (1, (1, 1, 1), snapshot(2, 2), "entry 2 is of term 1, but the snapshot that ends there says 2"),
    ],
)
def test_a_snapshot_and_a_log_that_do_not_meet_are_refused(
    first_index: int, terms: tuple[int, ...], held: SnapshotMeta | None, complaint: str
) -> None:
    with pytest.raises(LogDamaged, match=complaint):
        node(MemoryStorage(HardState(2, 0, 0), first_index, entries(*terms), held))


def test_a_commit_index_on_disk_that_is_behind_the_snapshot_is_no_contradiction() -> None:
    assert node(MemoryStorage(HardState(1, 0, 1), 4, entries(1), snapshot(3, 1))).commit == 3
    assert node(MemoryStorage(HardState(1, 0, 4), 4, entries(1), snapshot(3, 1))).commit == 4
    # A machine that is behind the snapshot may be fed from a log that reaches further back.
    storage = MemoryStorage(HardState(1, 0, 1), 1, entries(1, 1, 1, 1), snapshot(3, 1))
    behind = RawNode(Config(id=1, voters=(1, 2, 3)), storage, Random(1), applied=1)
    assert behind.commit == 3
    assert behind.ready().committed == entries(1, 1)


def test_a_state_machine_that_has_less_than_the_log_begins_with_gets_nothing_before_the_snapshot() -> None:
    storage = MemoryStorage(HardState(1, 0, 4), 4, entries(1), snapshot(3, 1))
    settings = Config(id=1, voters=(1, 2, 3))
    behind = RawNode(settings, storage, Random(1), applied=2)
    assert behind.log.restoring
    assert (behind.applied, behind.commit) == (2, 4)
    assert not behind.has_ready()
    for _ in range(3 * settings.election_tick):
        behind.tick()
    assert behind.role is Role.FOLLOWER
    with pytest.raises(Compacted, match="applied entry 2, but this log begins behind 3"):
        behind.resume_at(2)
    behind.resume_at(3)
    assert behind.ready().committed == entries(1)
    assert RawNode(settings, storage, Random(1), applied=4).applied == 4


def test_a_snapshot_is_described_only_where_nothing_is_in_between() -> None:
    follower = applied_node(1, 1, 2)
    assert follower.snapshot_meta() == snapshot(3, 2)
    follower.step(InstallSnapshot(1, 2, 3, snapshot(9, 3)))
    with pytest.raises(ValueError, match="wait for on_applied"):
        follower.snapshot_meta()
    follower.on_persisted(follower.ready().number)
    follower.on_applied(9)
    assert follower.snapshot_meta() == snapshot(9, 3)


def test_a_snapshot_waits_for_the_entry_of_a_configuration_that_is_in_effect() -> None:
    follower = applied_node(1, 1, 2, commit=2)
    follower.step(Heartbeat(1, 2, 2, 3, 0))
    follower.ready()
    follower.apply_conf_change(3, resulting(1, 2, 3, 4))
    with pytest.raises(ValueError, match="being applied behind 2"):
        follower.snapshot_meta()
    follower.on_applied(3)
    assert follower.snapshot_meta().configuration == Configuration((1, 2, 3, 4))


def test_a_snapshot_of_what_is_not_applied_is_not_available() -> None:
    with pytest.raises(ValueError, match="a snapshot up to 4, where only 3 is applied"):
        applied_node(1, 1, 2).snapshot_available(snapshot(4, 2))


def test_the_newest_snapshot_is_offered_whatever_the_order_in_which_they_become_durable() -> None:
    leader = lead(applied_node(1, 1, 2))
    leader.snapshot_available(snapshot(3, 2))
    leader.snapshot_available(snapshot(1, 1))
    leader.compact(2)
    leader.step(HeartbeatResponse(1, 2, leader.term, 0))
    leader.step(AppendResponse(1, 2, leader.term, 3, True, 0, 0))
    sent = leader.ready().messages
    assert [message.snapshot for message in sent if isinstance(message, InstallSnapshot)] == [snapshot(3, 2)]


def test_a_ready_with_a_snapshot_says_so_before_anything_that_follows_on_it() -> None:
    follower = applied_node(1)
    follower.step(InstallSnapshot(1, 2, 2, snapshot(5, 2)))
    follower.step(AppendEntries(1, 2, 2, 5, 2, entries(2), 6))
    ready = follower.ready()
    assert ready.snapshot == snapshot(5, 2)
    assert ready.must_persist
    assert ready.hard_state == HardState(2, 0, 6)
    assert (ready.first_index, ready.entries, ready.committed) == (6, entries(2), [])
    assert ready.messages_after_append == [AppendResponse(2, 1, 2, 6)]
    follower.on_persisted(ready.number)
    assert not follower.has_ready()
    follower.on_applied(5)
    after = follower.ready()
    assert (after.snapshot, after.committed_index, after.committed) == (None, 6, entries(2))


def test_of_two_snapshots_before_a_ready_the_later_one_counts() -> None:
    follower = applied_node(1)
    follower.step(InstallSnapshot(1, 2, 2, snapshot(5, 2)))
    follower.step(InstallSnapshot(1, 2, 2, snapshot(8, 2)))
    follower.step(InstallSnapshot(1, 2, 2, snapshot(6, 2)))
    ready = follower.ready()
    assert ready.snapshot == snapshot(8, 2)
    assert ready.messages_after_append == [AppendResponse(2, 1, 2, 8)]


def test_a_node_that_is_being_restored_does_not_campaign() -> None:
    follower = applied_node(1, pre_vote=False)
    follower.step(InstallSnapshot(1, 2, 2, snapshot(5, 2)))
    follower.on_persisted(follower.ready().number)
    follower.step(TimeoutNow(1, 2, 2))
    for _ in range(50):
        follower.tick()
    assert follower.role is Role.FOLLOWER
    follower.on_applied(5)
    follower.tick()
    assert follower.role is Role.CANDIDATE


def test_a_snapshot_of_a_deposed_leader_is_void() -> None:
    follower = applied_node(1, 1, 2)
    follower.step(InstallSnapshot(1, 2, 1, snapshot(5, 1)))
    assert (follower.commit, follower.last_index) == (3, 3)


def test_a_snapshot_of_what_is_committed_changes_nothing_and_is_acknowledged() -> None:
    follower = applied_node(1, 1, 2)
    follower.step(InstallSnapshot(1, 2, 2, snapshot(2, 1, Configuration((7,)))))
    ready = follower.ready()
    assert (ready.snapshot, ready.messages_after_append) == (None, [AppendResponse(2, 1, 2, 3)])
    assert follower.configuration == THREE


# --- membership ----------------------------------------------------------------------------------------------


def change(kind: ConfChangeKind, *ids: int) -> ConfChanges:
    return ConfChanges([ConfChange(kind, each) for each in ids])


def change_entry(term: int, *voters: int) -> Entry:
    """As a leader would have appended it."""
    changes = change(ConfChangeKind.ADD_VOTER, voters[-1])
    whole = ConfChanges(changes.changes, configuration=Configuration(voters))
    return Entry(term, EntryKind.CONFIGURATION, encode_changes(whole))


def resulting(*voters: int) -> ConfChanges:
    return ConfChanges(configuration=Configuration(voters))


def test_a_configuration_that_is_applied_again_or_late_changes_nothing() -> None:
    """A state machine that starts anew is given old entries; their time is over."""
    follower = applied_node(1)
    assert follower.apply_conf_change(5, resulting(1, 2)) == Configuration((1, 2))
    assert follower.apply_conf_change(3, resulting(1, 2, 3, 4)) == Configuration((1, 2))
    assert follower.apply_conf_change(
        5,
        resulting(
            9,
        ),
    ) == Configuration((1, 2))
    assert follower.apply_conf_change(6, resulting(1, 2, 5)) == Configuration((1, 2, 5))


def test_a_change_that_no_leader_has_completed_is_refused() -> None:
    with pytest.raises(ValueError, match="entry 5 does not say what results"):
        applied_node(1).apply_conf_change(5, change(ConfChangeKind.REMOVE, 2))


def test_a_state_machine_that_keeps_its_own_state_is_not_asked_to_apply_configurations_again() -> None:
    """The core finds those that it has seen in the log."""
    log = [*entries(1), change_entry(1, 1, 2, 3, 4), *entries(1), change_entry(1, 1, 2, 3, 4, 5)]
    storage = MemoryStorage(HardState(1, 0, 4), 1, log)
    settings = Config(id=1, voters=(1, 2, 3))
    assert RawNode(settings, storage, Random(1), applied=1).configuration == THREE
    assert RawNode(settings, storage, Random(1), applied=3).configuration == Configuration((1, 2, 3, 4))
    started = RawNode(settings, storage, Random(1), applied=4)
    assert started.configuration == Configuration((1, 2, 3, 4, 5))
    later = RawNode(settings, storage, Random(1))
    later.resume_at(3)
    assert later.configuration == Configuration((1, 2, 3, 4))
    later.resume_at(0)
    assert later.configuration == Configuration((1, 2, 3, 4))


def test_the_disk_that_holds_a_configuration_knows_that_the_one_before_it_is_committed() -> None:
    """Else a restart could bring back a configuration of two changes ago, whose majorities may not overlap."""
    follower = node(MemoryStorage(HardState(1, 0, 0), 1, entries(1)))
    follower.step(AppendEntries(1, 2, 1, 1, 1, [change_entry(1, 1, 2, 3, 4)], 1))
    follower.on_persisted(follower.ready().number)
    # The leader has applied the first change, else it would not have appended the second.
    follower.step(AppendEntries(1, 2, 1, 2, 1, [change_entry(1, 1, 2, 3, 4, 5)], 2))
    ready = follower.ready()
    assert ready.entries
    assert ready.hard_state is not None
    assert ready.hard_state.commit == 2


def test_an_append_that_a_leader_sent_before_a_change_counts_in_the_new_configuration() -> None:
    """Fewer voters may have committed more, at once."""
    leader = lead(applied_node(1))
    index = leader.last_index
    leader.step(AppendResponse(1, 2, leader.term, index))
    apply_all(leader)
    leader.propose([b"a"])
    leader.on_persisted(leader.ready().number)
    assert leader.commit == index
    leader.apply_conf_change(index, resulting(1))
    assert leader.commit == index + 1


def test_answers_to_a_round_of_reads_count_in_the_new_configuration_too() -> None:
    leader = RawNode(Config(id=1, voters=(1, 2, 3, 4, 5)), MemoryStorage(), Random(1))
    lead(leader)
    for each in (2, 3):
        leader.step(AppendResponse(1, each, leader.term, leader.last_index))
    leader.read_index(7)
    leader.step(HeartbeatResponse(1, 2, leader.term, 1))
    assert not leader.ready().read_states
    leader.apply_conf_change(leader.last_index, resulting(1, 2, 3))
    assert [state.context for state in leader.ready().read_states] == [7]


def test_the_limit_of_uncommitted_bytes_does_not_hold_up_a_change() -> None:
    leader = lead(applied_node(1, max_uncommitted_bytes=10))
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    apply_all(leader)
    leader.propose([b"x" * 100])
    leader.propose_conf_change(change(ConfChangeKind.REMOVE, 3))
    assert leader.last_index == 4


ADD_4 = ConfChange(ConfChangeKind.ADD_VOTER, 4)


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        (ConfChanges([ConfChange(0, 4)]), TypeError, "kind 0 must be of type ConfChangeKind"),  # type: ignore[arg-type]
        (ConfChanges([ConfChange(7, 4)]), TypeError, "kind 7 must be of type ConfChangeKind"),  # type: ignore[arg-type]
        (ConfChanges([(0, 4)]), TypeError, r"change \(0, 4\) must be of type ConfChange"),  # type: ignore[list-item]
        (ConfChanges([ADD_4], 0), TypeError, "transition 0 must be of type Transition"),  # type: ignore[arg-type]
        (ConfChanges([ADD_4], context="c"), TypeError, "context 'c' must be of type bytes"),  # type: ignore[arg-type]
        (
            change(ConfChangeKind.ADD_VOTER, 0),
            ValueError,
            "0 is no node's id: .* from 1 to 18446744073709551615",
        ),
        (change(ConfChangeKind.ADD_LEARNER, -1), ValueError, "-1 is no node's id"),
        (change(ConfChangeKind.ADD_VOTER, 2**64), ValueError, "18446744073709551616 is no node's id"),
        (change(ConfChangeKind.REMOVE, "2"), ValueError, "'2' is no node's id"),  # type: ignore[arg-type]
    ],
)
def test_a_change_that_others_could_not_read_is_not_proposed(
    changes: ConfChanges, error: type[Exception], complaint: str
) -> None:
    leader = lead(applied_node(1))
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    apply_all(leader)
    with pytest.raises(error, match=complaint):
        leader.propose_conf_change(changes)
    assert leader.last_index == 2
    leader.propose_conf_change(change(ConfChangeKind.ADD_VOTER, 2**64 - 1))
    assert leader.last_index == 3


def test_a_transfer_ends_when_its_target_is_no_voter_any_more() -> None:
    leader = lead(applied_node(1))
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    apply_all(leader)
    leader.transfer_leadership(3)
    leader.apply_conf_change(leader.last_index, ConfChanges(configuration=Configuration((1, 2), (), (3,))))
    leader.propose([b"a"])
    assert leader.last_index == 3


def test_check_quorum_wants_both_majorities_and_no_learners() -> None:
    def still_leads(configuration: Configuration, *active: int) -> bool:
        leader = lead(applied_node(1))
        membership.apply_conf_change(leader._raft, 9, ConfChanges(configuration=configuration))
        for follower in leader._raft.progress.values():
            follower.recent_active = False
        for each in active:
            leader.step(HeartbeatResponse(1, each, leader.term, 0))
        for _ in range(10):
            leader.tick()
        return leader.role is Role.LEADER

    assert still_leads(THREE, 2)
    assert not still_leads(THREE)
    assert not still_leads(Configuration((1, 2, 3), learners=(4, 5)), 4, 5)
    joint = Configuration((1, 4, 5), (1, 2, 3))
    assert still_leads(joint, 2, 4)
    assert not still_leads(joint, 2, 3)
    assert not still_leads(joint, 4, 5)


def test_who_is_new_gets_until_the_next_look_at_the_quorum_to_be_heard() -> None:
    leader = lead(applied_node(1))
    leader.apply_conf_change(2, resulting(1, 4, 5))
    for _ in range(10):
        leader.tick()
    assert leader.role is Role.LEADER
    for _ in range(10):
        leader.tick()
    assert leader.role is Role.FOLLOWER


def test_a_joint_configuration_is_left_even_if_a_transfer_stood_against_it_when_it_was_applied() -> None:
    """Nothing else need ever be applied: the leader remembers by itself."""
    leader = lead(applied_node(1))
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    apply_all(leader)
    leader.transfer_leadership(3)
    joint = Configuration((1, 2), (1, 2, 3), auto_leave=True)
    leader.apply_conf_change(leader.last_index, ConfChanges(configuration=joint))
    leader.on_applied(leader.last_index)
    assert leader.last_index == 2
    for _ in range(10):
        leader.step(HeartbeatResponse(1, 2, leader.term, 0))
        leader.tick()
    assert leader.last_index == 3
    assert leader.log.entry(3).kind is EntryKind.CONFIGURATION
    leader.on_applied(2)  # once is enough
    assert leader.last_index == 3


def test_a_leader_that_is_gone_from_the_configuration_knows_no_followers() -> None:
    leader = lead(applied_node(1))
    assert set(leader.followers) == {2, 3}
    leader.apply_conf_change(2, resulting(2, 3))
    assert (leader.role, leader.followers) == (Role.FOLLOWER, {})


@pytest.mark.parametrize("furthest", [2, 3])
def test_a_leader_that_is_removed_hands_over_to_the_one_who_is_furthest_on(furthest: int) -> None:
    leader = lead(applied_node(1))
    leader.step(AppendResponse(1, furthest, leader.term, 2))
    leader.ready()
    leader.apply_conf_change(2, resulting(2, 3))
    assert leader.ready().messages == [TimeoutNow(furthest, 1, leader.term)]


def test_a_candidate_that_learns_that_it_was_removed_gives_up() -> None:
    candidate = applied_node(1, pre_vote=False)
    candidate.campaign()
    candidate.apply_conf_change(2, resulting(2, 3))
    assert candidate.role is Role.FOLLOWER


def handed_over_before_it_has_applied() -> RawNode:
    """A follower that its leader, which was removed, told to campaign, before it has applied that removal."""
    follower = node(MemoryStorage(HardState(1, 0, 2), 1, [*entries(1), change_entry(1, 1, 3)]))
    follower.ready()
    follower.step(TimeoutNow(1, 2, 1))
    assert follower.role is Role.FOLLOWER
    return follower


def test_who_is_told_to_campaign_does_so_as_soon_as_it_has_applied_what_is_committed() -> None:
    follower = handed_over_before_it_has_applied()
    for _ in range(30):  # a timeout does not take the handover away
        follower.tick()
    follower.apply_conf_change(2, resulting(1, 3))
    assert follower.role is Role.CANDIDATE


@pytest.mark.parametrize(
    "message", [Heartbeat(1, 3, 2, 0, 0), Heartbeat(1, 3, 1, 0, 0), RequestVote(1, 3, 2, 9, 9)]
)
def test_but_not_when_somebody_else_leads_or_campaigns_meanwhile(message: Message) -> None:
    follower = handed_over_before_it_has_applied()
    follower.step(message)
    follower.apply_conf_change(2, resulting(1, 3))
    assert follower.role is Role.FOLLOWER


def test_the_leader_is_heard_even_by_a_node_that_does_not_know_it_as_a_member() -> None:
    joining = RawNode(Config(id=4, voters=()), MemoryStorage(), Random(1))
    joining.step(AppendEntries(4, 1, 1, 0, 0, [], 0))
    joining.read_index(7)
    joining.step(ReadIndexResponse(4, 2, 1, 7, 5))
    assert not joining.ready().read_states
    joining.step(ReadIndexResponse(4, 1, 1, 7, 5))
    assert [state.index for state in joining.ready().read_states] == [5]


def test_a_lease_takes_the_answers_of_a_majority() -> None:
    leader = RawNode(Config(id=1, voters=(1, 2, 3, 4, 5), lease_reads=True), MemoryStorage(), Random(1))
    lead(leader)
    for each in (2, 3):
        leader.step(AppendResponse(1, each, leader.term, leader.last_index))
    leader.tick()
    round_ = next(m.read_round for m in leader.ready().messages if isinstance(m, Heartbeat))
    leader.step(HeartbeatResponse(1, 2, leader.term, round_))
    leader.read_index(7)
    assert not leader.ready().read_states
    leader.step(HeartbeatResponse(1, 3, leader.term, round_))
    leader.read_index(8)
    assert [state.context for state in leader.ready().read_states] == [8]


@pytest.mark.parametrize("lease_reads", [True, False])
def test_a_promise_to_a_leader_outlives_a_higher_term(lease_reads: bool) -> None:
    """The leader still counts on it: it has not heard of that term."""
    follower = applied_node(1, lease_reads=lease_reads)
    for _ in range(10):
        follower.tick()
    follower.step(Heartbeat(1, 2, 1, 0, 0))
    follower.step(AppendResponse(1, 3, 5, 0, True))
    follower.step(RequestVote(1, 3, 5, 9, 9))
    assert follower.term == 5
    assert follower.vote == (0 if lease_reads else 3)
    for _ in range(10):
        follower.tick()
    follower.step(RequestVote(1, 3, 6, 9, 9))
    assert follower.vote == 3


def test_a_stranger_that_pretends_to_be_this_node_or_nobody_is_not_heard() -> None:
    follower = applied_node(1)
    follower.step(RequestVote(1, 1, 9, 9, 9))
    follower.step(Heartbeat(1, 0, 9, 0, 0))
    assert follower.term == 1


def in_configuration(configuration: Configuration, **config: int | bool) -> RawNode:
    """A follower whose log has one entry, which it has applied."""
    storage = MemoryStorage(HardState(1, 0, 1), 2, [], SnapshotMeta(1, 1, configuration))
    return node(storage, **config)


@pytest.mark.parametrize("pre_vote", [True, False])
def test_a_candidate_of_an_earlier_term_is_refused_and_told_the_term_of_now(pre_vote: bool) -> None:
    voter = applied_node(1, 7)
    voter.step(RequestVote(1, 3, 5, 9, 5, pre_vote))
    ready = voter.ready()
    assert ready.messages == []
    assert ready.messages_after_append == [VoteResponse(3, 1, 7, False, pre_vote, 2, 7)]
    assert (voter.term, voter.vote) == (7, 0)


def test_a_candidate_far_behind_in_terms_wins_the_vote_of_one_that_does_not_know_it() -> None:
    """Node 2 has yet to learn that 1 took the place of 3, so that it never asks 1, which needs its vote."""

    def start(id_: int, term: int, index: int, *voters: int) -> RawNode:
        meta = SnapshotMeta(index, 5, Configuration(voters))
        storage = MemoryStorage(HardState(term, 0, index), index + 1, [], meta)
        return RawNode(Config(id_, (), pre_vote=False, check_quorum=False), storage, Random(id_))

    nodes = {1: start(1, 5, 10, 1, 2), 2: start(2, 100, 9, 2, 3)}

    def exchange(sender: RawNode) -> None:
        ready = sender.ready()
        if ready.must_persist:
            sender.on_persisted(ready.number)
        for message in ready.messages + ready.messages_after_append:
            if message.to in nodes:
                nodes[message.to].step(message)

    for _ in range(2000):
        for each in nodes.values():
            each.tick()
        while waiting := [each for each in nodes.values() if each.has_ready()]:
            exchange(waiting[0])
        if nodes[1].role is Role.LEADER:
            return
    pytest.fail(f"no leader; the terms are {nodes[1].term} and {nodes[2].term}")


def test_a_joint_election_is_not_won_by_the_new_voters_alone() -> None:
    candidate = in_configuration(Configuration((1, 4, 5), (1, 2, 3)), pre_vote=False)
    candidate.campaign()
    candidate.on_persisted(candidate.ready().number)
    for each in (4, 5):
        candidate.step(VoteResponse(1, each, candidate.term, True))
    assert candidate.role is Role.CANDIDATE
    candidate.step(VoteResponse(1, 3, candidate.term, True))
    assert candidate.role is Role.LEADER


@pytest.mark.parametrize(
    "configuration", [Configuration((1, 2), learners=(3,)), Configuration((1, 2), (1, 2))]
)
def test_a_leaders_own_log_counts_as_far_as_its_disk_has_it_in_any_configuration(
    configuration: Configuration,
) -> None:
    leader = lead(in_configuration(configuration))
    leader.propose([b"a"])
    write = leader.ready().number
    leader.step(AppendResponse(1, 2, leader.term, 3))
    assert leader.commit == 2
    leader.on_persisted(write)
    assert leader.commit == 3


def test_learners_do_not_make_a_majority_with_their_leader() -> None:
    leader = lead(in_configuration(Configuration((1, 2, 3), learners=(4, 5))))
    for each in (4, 5):
        leader.step(AppendResponse(1, each, leader.term, 2))
    assert leader.commit == 1
    leader.step(AppendResponse(1, 3, leader.term, 2))
    assert leader.commit == 2


def test_a_snapshot_brings_its_configuration_and_may_be_passed_on() -> None:
    follower = applied_node(1, pre_vote=False)
    meta = snapshot(9, 2, Configuration((1, 2, 3, 4)))
    follower.step(InstallSnapshot(1, 2, 2, meta))
    assert follower.configuration == meta.configuration
    follower.on_persisted(follower.ready().number)
    follower.on_applied(9)
    leader = lead(follower)
    leader.ready()
    leader.step(AppendResponse(1, 4, leader.term, 9, True, 0, 0))
    assert leader.ready().messages == [InstallSnapshot(4, 1, leader.term, meta)]


def test_a_follower_that_is_not_there_is_probed_when_its_next_entries_are_compacted_away() -> None:
    leader = lead(applied_node(1, 1, 1))
    leader._raft.progress[3].matched(1, 0)
    leader._raft.progress[3].next_index = 2
    leader.snapshot_available(snapshot(3, 1))
    leader.compact(3)
    leader.propose([b"a"])
    assert not [message for message in leader.ready().messages if message.to == 3]
    leader.step(HeartbeatResponse(1, 3, leader.term, 0))
    assert leader.ready().messages[-1] == InstallSnapshot(3, 1, leader.term, snapshot(3, 1))


# --- time and bytes -------------------------------------------------------------------------------------------


def sent(node: RawNode, kind: type) -> list[Message]:
    """What of this kind it sends at once, to the first of its peers."""
    return [message for message in node.ready().messages if type(message) is kind and message.to == 2]


def test_a_leader_sends_heartbeats_every_heartbeat_tick() -> None:
    leader = lead(node(pre_vote=False, heartbeat_tick=3, check_quorum=False))
    beats = []
    for _ in range(9):
        leader.tick()
        beats.append(len(sent(leader, Heartbeat)))
    assert beats == [0, 0, 1, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("ticks", "vote"), [(9, 0), (10, 3)])
def test_a_promise_lasts_for_one_election_timeout_from_when_the_leader_was_heard(
    ticks: int, vote: int
) -> None:
    follower = applied_node(1, lease_reads=True)
    follower.tick()
    follower.step(Heartbeat(1, 2, 1, 1, 0))
    for _ in range(ticks):
        follower.tick()
    follower.step(RequestVote(1, 3, 2, 1, 1))
    assert follower.vote == vote


def test_who_gives_a_vote_in_its_own_term_waits_a_whole_timeout_for_the_new_leader() -> None:
    follower = applied_node(1, 1, pre_vote=False)
    follower.step(RequestVote(1, 2, 2, 1, 1))  # whose log is too short
    timeout = follower._raft.randomized_timeout
    for _ in range(timeout - 1):
        follower.tick()
    assert (follower.term, follower.vote) == (2, 0)
    follower.step(RequestVote(1, 3, 2, 2, 1))
    for _ in range(timeout - 1):
        follower.tick()
    assert (follower.role, follower.term, follower.vote) == (Role.FOLLOWER, 2, 3)


def test_who_hears_its_leader_waits_a_whole_timeout_for_it() -> None:
    follower = applied_node(1, pre_vote=False)
    follower.step(Heartbeat(1, 2, 1, 1, 0))
    timeout = follower._raft.randomized_timeout
    for _ in range(timeout - 1):
        follower.tick()
    follower.step(Heartbeat(1, 2, 1, 1, 0))
    for _ in range(timeout - 1):
        follower.tick()
    assert follower.role is Role.FOLLOWER
    follower.tick()
    assert follower.role is Role.CANDIDATE


def test_who_waits_for_a_change_to_be_applied_does_not_campaign_at_every_tick() -> None:
    """Looking through the log for the change takes time if much is unapplied."""
    change = Entry(1, EntryKind.CONFIGURATION, encode_changes(ConfChanges(configuration=THREE)))
    waiting = node(MemoryStorage(HardState(1, 0, 1), 1, [change]), pre_vote=False)
    for _ in range(waiting._raft.randomized_timeout):
        waiting.tick()
    waiting.apply_conf_change(1, ConfChanges(configuration=THREE))
    for _ in range(9):
        waiting.tick()
        assert waiting.role is Role.FOLLOWER
    waiting.tick()
    assert waiting.role is Role.CANDIDATE


def test_what_is_committed_makes_room_for_proposals_of_as_many_bytes() -> None:
    leader = lead(
        node(MemoryStorage(HardState(1, 0, 1), 1, entries(1)), pre_vote=False, max_uncommitted_bytes=30)
    )
    leader.step(AppendResponse(1, 2, 2, 2))
    for size in (10, 10, 10):
        leader.propose([b"x" * size])
    leader.on_persisted(leader.ready().number)
    with pytest.raises(ProposalDropped, match="30 bytes wait"):
        leader.propose([b"x"])
    leader.step(AppendResponse(1, 2, 2, 3))
    leader.step(AppendResponse(1, 2, 2, 4))
    assert leader.commit == 4
    with pytest.raises(ProposalDropped, match="10 bytes wait"):
        leader.propose([b"x" * 21])
    leader.propose([b"x" * 20])
    leader.on_persisted(leader.ready().number)
    leader.step(AppendResponse(1, 2, 2, 6))
    leader.propose([b"x" * 31])  # beyond the limit, and the only one


def test_only_a_leader_that_has_applied_every_change_may_propose_one() -> None:
    follower = applied_node(1, pre_vote=False)
    assert not follower.may_propose_conf_change
    leader = lead(follower)
    assert leader.may_propose_conf_change
    leader.propose_conf_change(ConfChanges([ConfChange(ConfChangeKind.ADD_LEARNER, 4)]))
    assert not leader.may_propose_conf_change


# --- handing over ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [(2, 2), (2, 3)])
def test_a_leader_that_is_cut_off_steps_down_however_often_it_is_asked_to_hand_over(
    targets: tuple[int, int],
) -> None:
    leader = lead(applied_node(1))
    for ticks in range(30):
        if leader.role is Role.LEADER and ticks % 9 == 0:
            leader.transfer_leadership(targets[ticks // 9 % 2])
        leader.tick()
    assert leader.role is not Role.LEADER


def test_a_transfer_that_is_asked_for_again_ends_when_it_would_have_ended() -> None:
    leader = lead(applied_node(1, check_quorum=False))
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    for tick in range(10):
        with pytest.raises(ProposalDropped, match="being transferred to 2") if tick else nullcontext():
            leader.propose([])
        leader.transfer_leadership(2)
        assert len(sent(leader, TimeoutNow)) == (tick == 0)
        leader.tick()
    leader.propose([b"a"])


def test_a_transfer_to_another_target_takes_the_place_of_the_first_and_has_as_long() -> None:
    leader = lead(applied_node(1, check_quorum=False))
    leader.transfer_leadership(2)
    for _ in range(9):
        leader.tick()
    leader.transfer_leadership(3)
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    assert not sent(leader, TimeoutNow)
    for _ in range(9):
        leader.tick()
    with pytest.raises(ProposalDropped, match="being transferred to 3"):
        leader.propose([b"a"])
    leader.tick()
    leader.propose([b"a"])


def test_a_leader_that_is_asked_to_hand_over_to_itself_ends_the_transfer() -> None:
    leader = lead(applied_node(1))
    leader.transfer_leadership(2)
    leader.transfer_leadership(1)
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    assert not sent(leader, TimeoutNow)
    leader.propose([b"a"])


def test_a_transfer_to_who_is_no_voter_is_refused_and_leaves_the_one_under_way() -> None:
    leader = lead(applied_node(1))
    leader.transfer_leadership(2)
    with pytest.raises(ValueError, match="cannot transfer leadership to 9"):
        leader.transfer_leadership(9)
    with pytest.raises(ProposalDropped, match="being transferred to 2"):
        leader.propose([b"a"])


# --- what ends with a role ------------------------------------------------------------------------------------


def depose(leader: RawNode) -> RawNode:
    """A leader of the next term speaks, and has nothing new."""
    leader.step(Heartbeat(1, 3, leader.term + 1, 0, 0))
    assert leader.role is Role.FOLLOWER
    return leader


def test_a_new_leader_has_a_whole_election_timeout_to_be_answered() -> None:
    candidate = node(MemoryStorage(HardState(1, 0, 1), 1, entries(1)), pre_vote=False)
    candidate.campaign()
    candidate.on_persisted(candidate.ready().number)
    for _ in range(9):
        candidate.tick()
    candidate.step(VoteResponse(1, 2, 2, True))
    for _ in range(9):
        candidate.tick()
        assert candidate.role is Role.LEADER
    candidate.tick()
    assert candidate.role is Role.FOLLOWER


def test_who_leads_again_sends_its_first_heartbeat_after_a_whole_interval() -> None:
    leader = lead(node(pre_vote=False, heartbeat_tick=3, check_quorum=False))
    leader.tick()
    leader.tick()
    lead(depose(leader))
    leader.tick()
    assert not sent(leader, Heartbeat)


def test_reads_that_wait_for_a_leaders_first_entry_end_with_its_leadership() -> None:
    leader = lead(node(MemoryStorage(HardState(1, 0, 1), 1, entries(1)), pre_vote=False))
    leader.read_index(7)
    lead(depose(leader))
    leader.read_index(8)
    leader.step(AppendResponse(1, 2, leader.term, leader.last_index))
    leader.step(HeartbeatResponse(1, 2, leader.term, 1))
    leader.step(HeartbeatResponse(1, 2, leader.term, 2))
    assert [state.context for state in leader.ready().read_states] == [8]


def test_what_an_earlier_leadership_left_uncommitted_does_not_count_against_the_next() -> None:
    leader = lead(node(pre_vote=False, max_uncommitted_bytes=30))
    leader.propose([b"x" * 20])
    leader.on_persisted(leader.ready().number)
    lead(depose(leader)).propose([b"x" * 20])


@pytest.mark.parametrize(("term", "granted"), [(2, False), (3, True)])
def test_a_pre_vote_is_for_a_term_that_is_still_to_come(term: int, granted: bool) -> None:
    follower = applied_node(2)
    follower.step(RequestVote(1, 2, 2, 1, 2))
    assert follower.vote == 2
    follower.step(RequestVote(1, 3, term, 1, 2, pre_vote=True))
    (answer,) = (message for message in follower.ready().messages if message.to == 3)
    assert isinstance(answer, VoteResponse)
    assert answer.granted is granted


def test_a_machine_that_has_seen_a_change_brings_its_configuration_wherever_the_change_is() -> None:
    four = Configuration((1, 2, 3, 4))
    change = Entry(1, EntryKind.CONFIGURATION, encode_changes(ConfChanges(configuration=four)))
    for before in range(3):
        storage = MemoryStorage(HardState(1, 0, 0), 1, [*entries(*[1] * before), change])
        started = RawNode(Config(id=1, voters=(1, 2, 3)), storage, Random(1), applied=before + 1)
        assert started.configuration == four


def test_a_round_of_reads_needs_a_majority_of_the_configuration_of_now() -> None:
    rounds = ReadRounds(1, ((1, 2, 3),))
    rounds.add(5, 1, 7)
    rounds.reconfigure(((1, 2, 3, 4, 5),))
    assert rounds.answered(2, 1) == ([], False)
    done, _ = rounds.answered(4, 1)
    assert [read.context for read in done] == [7]
