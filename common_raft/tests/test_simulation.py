"""Hundreds of seeded runs of whole clusters; and what the simulation itself must be: repeatable, and readable."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Hashable
from itertools import count
from random import Random

import pytest

from common_raft.core import Configuration, RaftLog, SnapshotMeta
from common_raft.core.messages import Entry, EntryKind, HardState, RequestVote
from common_raft.testing import RULES, Fault, Simulation, SimulationFailed, Trace, Weather
from common_raft.testing.__main__ import main
from common_raft.testing.disk import Disk, Write
from common_raft.testing.durable import SnapshotDamaged
from common_raft.testing.invariants import Invariants, Rule
from common_raft.testing.journal import Journal, JournalDamaged, JournalRecord
from common_raft.testing.runner import run_seeds
from common_raft.testing.trace import describe

SEEDS = 2000
BLOCK = 250  # so that each stays well below the time limit of a test, on a busy machine too


@pytest.mark.thorough
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_invariant_breaks_and_every_cluster_recovers(first: int) -> None:
    summary = run_seeds(range(first, first + BLOCK), steps=1000, jobs=min(4, os.cpu_count() or 1))
    assert not summary.failures, "\n".join([*summary.rules(), summary.failures[0].text])
    assert summary.seeds == BLOCK


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 7])
def test_clusters_of_every_size(nodes: int) -> None:
    for seed in range(10):
        Simulation(seed, nodes=nodes).run(steps=300)


#: What must be seen in the traces, each in more than one run.
EVENTS = (
    "RequestVote", "AppendEntries", "AppendResponse", "Heartbeat", "Commit", "ReadIndex", "TimeoutNow",
    "crashes", "are torn", "fsync failed", "refuses to start", "stalls", "is damaged", "wrong place", "flips",
    "pauses", "at once", "will not notice", "long now", "is not heard by", "are split", "campaigns early",
    "is unreachable", "is gone", "(replayed)", "(lost)", "InstallSnapshot", "begins to write", "restores",
    "has arrived", "was not taken", "add_voter", "add_learner", "to remove", "leave the joint", "(implicit)",
    "(explicit)", "is emptied", "is stopped for good", "(nobody is there)", "is asked to hand over", "(refused: ",
    "falls back to Snap", "falls back to its log", "is damaged, and the log",
)  # fmt: skip


@pytest.mark.thorough
def test_the_runs_reach_what_they_are_meant_to_test() -> None:
    """Guards against a simulation that is green because little happens in it."""
    truncations = 0
    truncate = RaftLog._truncate_from

    def counting(log: RaftLog, index: int) -> None:
        nonlocal truncations
        truncations += index <= log.last_index
        truncate(log, index)

    seen: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RaftLog, "_truncate_from", counting)
        for seed in range(90):
            text = "\n".join(trace_of(seed, steps=600))
            seen.update(event for event in EVENTS if event in text)
    summary = run_seeds(range(90), steps=600)
    assert summary.terms > 5 * summary.seeds
    assert summary.committed > 20 * summary.seeds
    assert truncations > summary.seeds / 12
    assert {event for event in EVENTS if seen[event] < 2} == set()


# --- one seed decides everything -----------------------------------------------------------------------------


def trace_of(seed: int, steps: int = 300) -> list[str]:
    lines: list[str] = []
    Simulation(seed, trace=Trace(live=lines.append)).run(steps)
    return lines


def test_a_seed_gives_the_same_run_every_time() -> None:
    assert trace_of(3) == trace_of(3)
    assert trace_of(3) != trace_of(4)


# --- failures can be read ------------------------------------------------------------------------------------


class Forgetful:
    """A state machine that leaves out every seventh command, but only on one replica."""

    replicas = 0

    def __init__(self) -> None:
        Forgetful.replicas += 1
        self._forgets = Forgetful.replicas == 2
        self._state: list[bytes] = []

    def apply(self, index: int, command: bytes) -> None:
        if not (self._forgets and index % 7 == 0):
            self._state.append(command)

    def digest(self) -> Hashable:
        return tuple(self._state)


def test_a_users_state_machine_that_diverges_is_found() -> None:
    Forgetful.replicas = 0
    with pytest.raises(SimulationFailed) as caught:
        Simulation(1, weather=Weather(), make_machine=Forgetful).run(steps=300)
    assert caught.value.rule == "StateMachineSafety"
    assert "the state machine of" in str(caught.value)


def test_a_failure_names_seed_step_replay_and_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda self, last_index, last_term: False)
    with pytest.raises(SimulationFailed) as caught:
        Simulation(7, nodes=3).run(steps=100)
    text = str(caught.value)
    assert text.startswith(f"seed 7, step {caught.value.step}: Liveness: ")
    assert "replay: python -m common_raft.testing --seed 7 --steps 100 --nodes 3 --trace" in text
    assert "RequestVote term=" in text


def test_an_exception_in_the_core_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda self, last_index: True)
    with pytest.raises(SimulationFailed, match="TypeError"):
        Simulation(7).run(steps=100)


# --- the command line ----------------------------------------------------------------------------------------


def test_one_seed_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--steps", "200", "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 starts: follower term=0" in lines[0]
    assert lines[-1].startswith("seed 3: ")
    assert lines[-1].endswith("no violation")


def test_many_seeds_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0:4", "--steps", "100", "--nodes", "5"]) == 0
    assert capsys.readouterr().out.startswith("4 seeds, ")


def test_many_seeds_with_failures_are_summed_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RaftLog, "is_up_to_date", lambda self, last_index, last_term: False)
    assert main(["--seeds", "0:2", "--steps", "50"]) == 1
    out = capsys.readouterr().out
    assert "Liveness: 2 seeds, first 0, 1" in out
    assert "2 seeds with a violation" in out


def test_several_processes_come_to_the_same_as_one() -> None:
    one, two = run_seeds(range(45), steps=50), run_seeds(range(45), steps=50, jobs=2)
    assert one == two
    assert one.seeds == 45


def test_a_run_for_a_time_ends_then_and_says_where_it_began(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    assert main(["--seconds", "1", "--first-seed", "70", "--steps", "50"]) == 0
    assert 1 <= time.monotonic() - started < 20
    assert capsys.readouterr().out.startswith("seeds from 70 on\n")


def test_an_interrupted_run_sums_up_what_it_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    summary = run_seeds(count(), steps=50, progress=interrupt)
    assert summary.seeds == 20
    assert not summary.failures


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--seconds", "0"],
        ["--seconds", "5", "--forever"],
        ["--jobs", "0", "--seeds", "0:2"],
        ["--seeds", "5"],
        ["--seeds", "5:5"],
        ["--seed", "1", "--seeds", "0:2"],
        ["--seed", "1", "--steps", "0"],
    ],
)
def test_contradictory_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


# --- its parts -----------------------------------------------------------------------------------------------


def test_every_rule_says_what_must_hold() -> None:
    assert all(rule.__doc__ for rule in RULES)
    assert all(issubclass(rule, Rule) for rule in RULES)
    assert Invariants({}).history.committed == []


def test_a_crash_loses_what_was_not_durable() -> None:
    disk = Disk()
    entries = [Entry(1, EntryKind.COMMANDS, b"%d" % number) for number in range(3)]
    for number, entry in enumerate(entries, start=1):
        disk.submit(Write(number, HardState(1, 1, 0), number, [entry], []))
    disk.complete(1)
    disk.crash(survivors=1)
    assert disk.stored.entries == entries[:2]
    assert not disk.queue
    assert disk.holds(2, 1)
    assert not disk.holds(3, 1)


# --- disks that lie ------------------------------------------------------------------------------------------


def journal_of(random: Random, frames: int) -> Journal:
    """Frames of various sizes, some larger than a sector."""
    journal = Journal(random)
    for number in range(1, frames + 1):
        append(journal, number, random)
    return journal


def record(number: int, random: Random) -> JournalRecord:
    data = b"x" * random.choice((0, 10, 600, 1500))
    return HardState(number, 1, 0), number, [Entry(number, EntryKind.COMMANDS, data)], None


def append(journal: Journal, number: int, random: Random) -> None:
    journal.append([record(number, random)])


def test_a_torn_write_is_cut_or_whole_and_what_was_before_it_stays() -> None:
    cut = 0
    for seed in range(500):
        random = Random(seed)
        frames = random.randint(0, 4)
        journal = journal_of(random, frames)
        whole = journal.tear([record(frames + 1, random)])
        found = journal.read()
        assert len(found.entries) == frames + whole
        cut += not whole
        append(journal, found.last_index + 1, random)
        assert journal.read().last_index == found.last_index + 1
    assert 100 < cut < 500


def test_damage_is_never_read_as_data() -> None:
    for seed in range(1500):
        random = Random(seed)
        frames = random.randint(0, 6)
        journal = journal_of(random, frames)
        if seed % 2:
            journal.misdirect = True
            for number in range(frames + 1, frames + random.randint(2, 3)):
                append(journal, number, random)
        elif journal.damage() is None:
            continue
        with pytest.raises(JournalDamaged):
            journal.read()


def disk_with_snapshots(*indexes: int, purged: int = 0) -> Disk:
    """Nine entries, of which the hard state tells none to be committed, and snapshots up to ``indexes``."""
    disk = Disk(journal=Journal(Random(1)))
    entries = [Entry(1, EntryKind.COMMANDS, b"%d" % index) for index in range(1, 10)]
    disk.submit(Write(1, HardState(1, 1, 0), 1, entries, []))
    disk.complete(1)
    for index in indexes:
        disk.files[index, 1] = f"the state after {index}"
        disk.mark_snapshot(SnapshotMeta(index, 1, Configuration((1,))))
    disk.purge(purged)
    return disk


@pytest.mark.parametrize(
    ("snapshots", "purged", "found"),
    [((3, 6), 3, 3), ((3, 6), 0, 3), ((6,), 0, None)],
)
def test_a_node_falls_back_to_what_its_log_reaches_and_knows_what_was_committed(
    snapshots: tuple[int, ...], purged: int, found: int | None
) -> None:
    disk = disk_with_snapshots(*snapshots, purged=purged)
    assert disk.recover().snapshot == SnapshotMeta(6, 1, Configuration((1,)))
    assert disk.can_fall_back()
    assert disk.damage_snapshot(Random(1)) is not None
    assert disk.damage_snapshot(Random(1)) is None  # it is damaged already
    for _ in range(2):  # a second start comes to the same
        stored = disk.recover()
        assert (stored.snapshot and stored.snapshot.index) == found
        assert stored.hard_state.commit == 6
        assert stored.last_index == 9
        assert set(disk.files) == ({(found, 1)} if found else set())


@pytest.mark.parametrize(("snapshots", "purged"), [((3, 6), 4), ((6,), 1)])
def test_a_node_without_a_sound_snapshot_for_what_its_log_has_dropped_does_not_start(
    snapshots: tuple[int, ...], purged: int
) -> None:
    disk = disk_with_snapshots(*snapshots, purged=purged)
    assert not disk.can_fall_back()
    disk.damage_snapshot(Random(1))
    with pytest.raises(SnapshotDamaged, match=f"up to 6 is damaged, and the log begins with {purged + 1}"):
        disk.recover()


def test_a_disk_that_refuses_although_nothing_was_done_to_it_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Disk, "is_sound", lambda self, snapshot: False)
    with pytest.raises(SimulationFailed) as caught:
        Simulation(1, weather=Weather(faults={Fault.CRASH: 1.0}, snapshot_every=3)).run(steps=1000)
    assert caught.value.rule == "SnapshotDamaged"


def test_messages_are_put_into_words() -> None:
    assert describe(RequestVote(2, 1, 3, 4, 2, pre_vote=True)) == "1->2 RequestVote term=3 last=4/2 pre-vote"
