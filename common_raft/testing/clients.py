"""What clients and operators ask of a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from common_raft.core import NOBODY, InvalidConfChange, NoLeader, NotLeader, ProposalDropped
from common_raft.testing.machine import Workload
from common_raft.testing.process import Process
from common_raft.testing.weather import Request

if TYPE_CHECKING:
    from common_raft.testing.simulation import Simulation


class Clients:
    """``reads_open`` holds the reads that have not been answered (they may never be)."""

    def __init__(self, simulation: Simulation, workload: Workload) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self._workload = workload
        self._contexts = count(1)
        self._proposals = count(1)
        self.reads_open: set[int] = set()
        self._kinds: Mapping[Request, Callable[[Process], object]] = {
            Request.PROPOSE: self.propose,
            Request.READ: self.read,
            Request.TRANSFER: self._transfer,
            Request.CHANGE: simulation.operators.change,
        }

    def ask(self, request: Request) -> None:
        process = self._simulation.somebody(prefer_leader=0.9)
        if process.node is None or (process.node.leader == NOBODY and self._random.random() < 0.8):
            return  # clients try the others first, and most steps shall do something
        self._kinds[request](process)

    def propose(self, process: Process) -> list[bytes]:
        burst = self._random.choice((1, 1, 3))
        payloads = [self._workload(self._random, next(self._proposals)) for _ in range(burst)]
        act = partial(self.or_refuse, lambda: process.core.propose(payloads))
        self._simulation.at(process, f"gets {burst} proposals", act)
        return payloads

    def read(self, process: Process) -> int:
        context = next(self._contexts)
        # The client asks now, even if the process is paused and hears it later.
        self._simulation.invariants.asked(process, context)
        self.reads_open.add(context)
        act = partial(self.or_refuse, lambda: process.core.read_index(context))
        self._simulation.at(process, f"gets read {context}", act)
        return context

    def _transfer(self, process: Process) -> None:
        target = self._random.choice(process.core.configuration.members or (process.id,))
        act = partial(self.or_refuse, partial(self._transfer_now, process, target))
        self._simulation.at(process, f"is asked to hand over to {target}", act)

    @staticmethod
    def _transfer_now(process: Process, target: int) -> None:
        try:
            process.core.transfer_leadership(target)
        except ValueError as error:  # a learner, or no member any more
            raise NotLeader(str(error)) from None

    def or_refuse(self, act: Callable[[], None]) -> None:
        """Does it; a refusal is an answer like another."""
        try:
            act()
        except (ProposalDropped, NoLeader, NotLeader, InvalidConfChange) as refusal:
            self._simulation.note(f"  (refused: {refusal})")
