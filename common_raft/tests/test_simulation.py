"""Hundreds of seeded runs of whole clusters; and what the simulation itself must be: repeatable, and readable."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from common_raft.core import RaftLog
from common_raft.core.messages import Entry, EntryKind, HardState, RequestVote
from common_raft.testing import RULES, Fault, Simulation, SimulationFailed, Trace, Weather
from common_raft.testing.__main__ import main
from common_raft.testing.disk import Disk, Write
from common_raft.testing.invariants import Invariants, Rule
from common_raft.testing.trace import describe

SEEDS = 400
BLOCK = 50


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_invariant_breaks_and_every_cluster_recovers(first: int) -> None:
    for seed in range(first, first + BLOCK):
        Simulation(seed).run(steps=600)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 7])
def test_clusters_of_every_size(nodes: int) -> None:
    for seed in range(10):
        Simulation(seed, nodes=nodes).run(steps=300)


def test_the_runs_reach_what_they_are_meant_to_test() -> None:
    """Guards against a simulation that is green because little happens in it."""
    terms = committed = truncations = 0
    kinds: set[str] = set()
    simulations = [Simulation(seed) for seed in range(60)]
    truncate = RaftLog._truncate_from

    def counting(log: RaftLog, index: int) -> None:
        nonlocal truncations
        truncations += index <= log.last_index
        truncate(log, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RaftLog, "_truncate_from", counting)
        patch.setattr(Trace, "add", lambda self, step, time, what, remark="": kinds.add(type(what).__name__))
        for simulation in simulations:
            simulation.run(steps=600)
            terms += max(process.core.term for process in simulation.processes)
            committed += len(simulation.invariants.history.committed)
    assert terms > 5 * len(simulations)
    assert committed > 20 * len(simulations)
    assert truncations > len(simulations) / 4
    assert kinds >= {"RequestVote", "AppendEntries", "AppendResponse", "Heartbeat", "ReadIndex", "TimeoutNow"}
    assert {fault for simulation in simulations for fault in simulation.weather.faults} == set(Fault)


# --- one seed decides everything -----------------------------------------------------------------------------


def trace_of(seed: int) -> list[str]:
    lines: list[str] = []
    Simulation(seed, trace=Trace(live=lines.append)).run(steps=300)
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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
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


def test_messages_are_put_into_words() -> None:
    assert describe(RequestVote(2, 1, 3, 4, 2, pre_vote=True)) == "1->2 RequestVote term=3 last=4/2 pre-vote"
