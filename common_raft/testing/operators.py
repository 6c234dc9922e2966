"""Those who change a simulated cluster's membership, at random or to replace what is lost for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from common_raft.core import (
    ConfChange,
    ConfChangeKind,
    ConfChanges,
    Configuration,
    Entry,
    EntryKind,
    ProposalDropped,
    Role,
    Transition,
    decode_changes,
)
from common_raft.core.configuration import changed
from common_raft.core.quorum import has_quorum
from common_raft.testing.process import Process

if TYPE_CHECKING:
    from common_raft.testing.simulation import Simulation

#: Voters that operators stay within.
MAX_VOTERS = 7
#: Nodes that are added in a run, at most.
MAX_ADDED = 12


class Operators:
    """They never use an id again, and never bring about that too few are left for a majority.

    Beyond that they are careless: they add nodes that are empty or not even started, promote learners that have
    nothing yet, demote and remove leaders, and change several things at once.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self._added = 0
        self._removed: set[int] = set()

    # --- who can be done without ------------------------------------------------------------------------------

    def can_lose(self, process: Process) -> bool:
        """Whether all configurations that somebody may act on, now or after a restart, have majorities without it."""
        left = {p.id for p in self._simulation.processes if p is not process and self._lasts(p)}
        return all(has_quorum(left, each.halves) for each in self._in_use())

    @staticmethod
    def _lasts(process: Process) -> bool:
        return not (process.doomed or process.over)

    def _in_use(self) -> Iterator[Configuration]:
        """From the oldest that some voter knows to be committed, to those that are only in a log yet."""
        history = self._simulation.invariants.history
        oldest = len(history.committed)
        for process in self._simulation.processes:
            stored = process.disk.stored
            if self._lasts(process) and history.configuration.is_voter(process.id):
                snapshot = 0 if stored.snapshot is None else stored.snapshot.index
                oldest = min(oldest, max(stored.hard_state.commit, snapshot))
            yield from self._in_log(stored.entries)
            if process.node is not None:
                if process.node.configuration.voters:
                    yield process.node.configuration
                log = process.node.log
                yield from self._in_log(log.slice(max(log.persisted, log.offset) + 1, log.last_index))
        for position, (_, configuration) in enumerate(history.configurations):
            later = history.configurations[position + 1 : position + 2]
            if not later or later[0][0] > oldest:
                yield configuration

    @staticmethod
    def _in_log(entries: Sequence[Entry]) -> Iterator[Configuration]:
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                configuration = decode_changes(entry.data).configuration
                if configuration is not None:
                    yield configuration

    # --- changes ----------------------------------------------------------------------------------------------

    def change(self, leader: Process) -> None:
        """Proposes some change to ``leader``."""
        if leader.core.role is not Role.LEADER:
            return
        configuration = leader.core.configuration
        if configuration.joint and not configuration.auto_leave:
            changes = ConfChanges()
        else:
            changes = self._repair(configuration) or self._some_change(configuration)
        self._propose(leader, changes)

    def repair(self, leader: Process) -> bool:
        """Leaves a joint configuration, replaces who is lost: one step at a time.  Whether all is well."""
        configuration = leader.core.configuration
        if configuration.joint:
            if not configuration.auto_leave:
                self._propose(leader, ConfChanges())
            return False
        changes = self._repair(configuration)
        if changes is not None:
            self._propose(leader, changes)
        return changes is None

    def _propose(self, leader: Process, changes: ConfChanges) -> None:
        what = " ".join(f"{change.kind.name.lower()} {change.id}" for change in changes.changes)
        how = f" ({changes.transition.name.lower()})" if changes.changes else ""
        act = partial(self._simulation.clients.or_refuse, partial(self._propose_now, leader, changes))
        self._simulation.at(leader, f"is asked to {what or 'leave the joint configuration'}{how}", act)

    def _propose_now(self, leader: Process, changes: ConfChanges) -> None:
        """Not if too few would be left: whose disk is damaged, say, without anybody knowing."""
        lasting = {process.id for process in self._simulation.processes if self._lasts(process)}
        configuration = leader.core.configuration
        if configuration.joint == (not changes.changes):
            configuration = changed(configuration, changes)
        if not has_quorum(lasting, configuration.halves):
            raise ProposalDropped("the simulation needs a majority that lasts")
        leader.core.propose_conf_change(changes)

    def _repair(self, configuration: Configuration) -> ConfChanges | None:
        """Somebody whose disk is gone is removed, and at times replaced in the same step."""
        lost = [p for p in self._simulation.processes if p.id in configuration.members and not p.running]
        lost = [process for process in lost if not self._lasts(process)]
        if not lost:
            return None
        self._removed.update(process.id for process in lost)
        changes = [ConfChange(ConfChangeKind.REMOVE, process.id) for process in lost]
        if self._added < MAX_ADDED and self._random.random() < 0.7:
            changes.append(ConfChange(ConfChangeKind.ADD_VOTER, self._newcomer()))
        if set(configuration.voters) <= {process.id for process in lost} and len(changes) == len(lost):
            changes.append(ConfChange(ConfChangeKind.ADD_VOTER, self._newcomer()))
        return ConfChanges(changes, self._random.choice((Transition.AUTO, Transition.IMPLICIT)))

    def _some_change(self, configuration: Configuration) -> ConfChanges:
        number = self._random.choice((1, 1, 1, 2, 3))
        changes = [self._one(configuration) for _ in range(number)]
        transition = self._random.choice((Transition.AUTO, Transition.AUTO, *Transition))
        return ConfChanges(changes, transition)

    def _one(self, configuration: Configuration) -> ConfChange:
        random = self._random
        few, many = len(configuration.voters) < 3, len(configuration.voters) >= MAX_VOTERS
        if self._added < MAX_ADDED and not many and random.random() < (0.8 if few else 0.35):
            kind = random.choice((ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_LEARNER))
            return ConfChange(kind, self._newcomer())
        if configuration.learners and random.random() < 0.5:
            kind = random.choice((ConfChangeKind.ADD_VOTER, ConfChangeKind.ADD_VOTER, ConfChangeKind.REMOVE))
            return ConfChange(kind, random.choice(configuration.learners))
        voter = random.choice(configuration.voters)
        return ConfChange(random.choice((ConfChangeKind.REMOVE, ConfChangeKind.ADD_LEARNER)), voter)

    def _newcomer(self) -> int:
        """An empty node that is not a member yet; one that nobody has got round to adding, or a new one."""
        simulation = self._simulation
        idle = [
            process.id
            for process in simulation.processes
            if process.id > simulation.weather.nodes and self._never_added(process)
        ]
        if idle and self._random.random() < 0.8:
            return self._random.choice(idle)
        self._added += 1
        process = simulation.new_process()
        delay = self._random.choice((0.0, 3.0, 20.0)) * self._random.random()
        simulation.schedule(delay, partial(self._start, process))
        return process.id

    def _never_added(self, process: Process) -> bool:
        return process.id not in self._removed and not any(
            process.id in configuration.members
            for _, configuration in self._simulation.invariants.history.configurations
        )

    def _start(self, process: Process) -> None:
        if not process.running and not process.over and process.life == 0:
            self._simulation.start(process)

    def retire(self) -> None:
        """Who was removed goes on for a while, and may not even know; then it is stopped for good."""
        members = self._simulation.invariants.history.configuration.members
        gone = [
            process
            for process in self._simulation.processes
            if process.running and process.id not in members and not self._never_added(process)
        ]
        if gone and self.can_lose(process := self._random.choice(gone)):
            self._simulation.count(f"{process.id} is stopped for good")
            process.crash(len(process.disk.queue))
            process.over = True
