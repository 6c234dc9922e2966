"""The second phase of a simulation: all faults have ended, and the cluster must work again within a bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from common_raft.testing.invariants import Violation
from common_raft.testing.process import Process

if TYPE_CHECKING:
    from common_raft.testing.simulation import Simulation

#: The cluster must have recovered so many election timeouts after the last fault.  A healthy core needs a few:
#: stale messages, split votes and clock drift may each cost one or two.
RECOVERY_TIMEOUTS = 40

#: Events at one instant beyond which the cores are talking in circles.
MAX_STEPS_PER_TICK = 5_000


class Recovery:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def run(self) -> None:
        """Who is lost gets replaced, then all members must apply a fresh proposal and answer a fresh read."""
        simulation = self._simulation
        lag = max(process.core.last_index for process in simulation.processes if process.running)
        # Under the tightest limits a follower is sent one entry a round trip, which takes less than a tick.
        patience = RECOVERY_TIMEOUTS * simulation.weather.election_tick + lag
        self._await(patience, "commit a fresh proposal", self._propose_afresh(anywhere=True))
        self._await(patience, "replace who is lost", self._repaired())
        self._await(patience, "apply a fresh proposal at all members", self._propose_afresh(anywhere=False))
        members = self._members()
        for process in members:
            self._await(patience, f"answer a fresh read at {process.id}", self._read_afresh(process))

    def _members(self) -> list[Process]:
        members = self._simulation.invariants.history.configuration.members
        return [self._simulation.by_id[member] for member in members]

    def _propose_afresh(self, *, anywhere: bool) -> Callable[[], bool]:
        simulation = self._simulation
        committed = simulation.invariants.history.committed
        fresh: set[bytes] = set()
        start, again = len(committed), simulation.now

        def done() -> bool:
            for index in range(start + 1, len(committed) + 1):
                if committed[index - 1].data in fresh:
                    return anywhere or all(process.applied >= index for process in self._members())
            nonlocal again
            if simulation.now >= again:  # not every tick: it would wait behind its own repetitions
                again = simulation.now + simulation.weather.election_tick
                for leader in simulation.leaders():
                    fresh.update(simulation.clients.propose(leader))
            return False

        return done

    def _repaired(self) -> Callable[[], bool]:
        simulation = self._simulation
        again = simulation.now

        def done() -> bool:
            nonlocal again
            settled = not simulation.invariants.history.configuration.joint
            if settled and all(process.running for process in self._members()):
                return True
            if simulation.now >= again:
                again = simulation.now + simulation.weather.election_tick
                for leader in simulation.leaders():
                    simulation.operators.repair(leader)
            return False

        return done

    def _read_afresh(self, process: Process) -> Callable[[], bool]:
        clients = self._simulation.clients
        asked: set[int] = set()

        def done() -> bool:
            if not asked <= clients.reads_open:
                return True
            asked.add(clients.read(process))
            return False

        return done

    def _await(self, patience: float, goal: str, done: Callable[[], bool]) -> None:
        """Lets time pass until ``done``, which is asked once a tick."""
        simulation = self._simulation
        deadline = simulation.now + patience
        while not done():
            if simulation.now > deadline:
                raise Violation(
                    "Liveness", f"the cluster did not {goal} within {RECOVERY_TIMEOUTS} election timeouts"
                )
            before = simulation.step
            for _ in simulation.events_of_a_tick():
                if simulation.step - before > MAX_STEPS_PER_TICK:
                    raise Violation("Liveness", f"{MAX_STEPS_PER_TICK} steps within a tick")
