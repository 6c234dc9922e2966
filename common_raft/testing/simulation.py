"""A cluster of cores on a simulated network, with simulated disks, clocks and faults, all decided by one seed.

Time is virtual and counted in nominal ticks.  Everything that happens is an event in one queue, ordered by time;
a *step* is one event that reached a process, or one fault.  After every step all invariants are checked.  A run
has two phases: in the first whatever the seed's `Weather` holds may happen; in the second all faults end, and
the cluster must elect a leader, commit a fresh proposal at every node and answer reads within a bounded time
(`recovery`).  Here are the queue, the processes and what drives them; the rest of what happens is in `faults`,
`clients`, `operators` and `snapshots`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random
from typing import TypeVar

from common_raft.core import Message, RawNode, Ready, Role
from common_raft.core.messages import InstallSnapshot
from common_raft.testing.clients import Clients
from common_raft.testing.disk import Disk
from common_raft.testing.durable import DiskDamaged
from common_raft.testing.faults import Faults
from common_raft.testing.invariants import RULES, Invariants, Rule, Violation
from common_raft.testing.journal import Journal
from common_raft.testing.machine import Accumulator, Workload, numbered_commands
from common_raft.testing.network import CALM, Network
from common_raft.testing.operators import Operators
from common_raft.testing.process import MakeMachine, MakeNode, Process
from common_raft.testing.recovery import Recovery
from common_raft.testing.snapshots import Snapshots
from common_raft.testing.trace import Trace, describe_node
from common_raft.testing.weather import Fault, Weather, draw

_T = TypeVar("_T")

#: Readies in one turn beyond which a core is talking in circles.
MAX_READIES = 1_000


class SimulationFailed(AssertionError):
    """A run found a violation.  The text holds what broke, how to replay it, and the last lines of the trace."""

    def __init__(self, simulation: Simulation, cause: BaseException) -> None:
        self.seed = simulation.seed
        self.step = simulation.step
        #: name of the violated rule, "Liveness", or the exception that the core raised
        self.rule = cause.rule if isinstance(cause, Violation) else type(cause).__name__
        nodes = "\n".join(
            f"  {process.id}: {simulation.describe(process)}" for process in simulation.processes
        )
        super().__init__(
            f"seed {self.seed}, step {self.step}: {cause if isinstance(cause, Violation) else repr(cause)}\n"
            f"replay: python -m common_raft.testing --seed {self.seed} --steps {simulation.steps}"
            f"{simulation.replay_arguments} --trace\n"
            f"weather: {simulation.weather}\nnodes:\n{nodes}\nlast steps:\n{simulation.trace}"
        )


class Simulation:
    """One run.  ``make_node`` and ``make_machine`` replace the core and the state machine under test.

    ``rules`` may hold rules of your own after those of `RULES`.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int | None = None,
        weather: Weather | None = None,
        make_node: MakeNode = RawNode,
        make_machine: MakeMachine = Accumulator,
        workload: Workload = numbered_commands,
        rules: tuple[type[Rule], ...] = RULES,
        trace: Trace | None = None,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.weather = draw(self.random, nodes) if weather is None else weather
        self.replay_arguments = "" if nodes is None else f" --nodes {nodes}"
        self.trace = Trace() if trace is None else trace
        self.step = 0
        self.steps = 0
        self.now = 0.0
        self.network = Network(self.random, self.weather.conditions)
        self.processes: list[Process] = []
        self.by_id: dict[int, Process] = {}
        for _ in range(self.weather.nodes):
            self.new_process()
        self.invariants = Invariants(self.by_id, rules)
        self.operators = Operators(self)
        self.clients = Clients(self, workload)
        self.snapshots = Snapshots(self)
        self._faults = Faults(self)
        self._make_node = make_node
        self._make_machine = make_machine
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._stormy = True

    # --- running ----------------------------------------------------------------------------------------------

    def run(self, steps: int = 500) -> None:
        """Both phases: ``steps`` steps of faults, then recovery.  Raises `SimulationFailed`."""
        self.steps = steps
        try:
            self._start_all()
            while self.step < steps:
                self._next_event()
            self._end_faults()
            Recovery(self).run()
        except BrokenPipeError:
            raise  # whoever reads the trace has seen enough
        except Exception as error:
            raise SimulationFailed(self, error) from error

    def _start_all(self) -> None:
        for process in self.processes:
            self.start(process)
        if self.random.random() < 0.7:  # else a timeout has to come first, which costs many steps
            self.at(self.processes[0], "campaigns", lambda: self.processes[0].core.campaign())
        if self.weather.faults:
            self.schedule(self._some_time(self.weather.fault_interval), self._fault)
        self.schedule(self._some_time(self.weather.request_interval), self._request)

    def _fault(self) -> None:
        if self._stormy:
            self.schedule(self._some_time(self.weather.fault_interval), self._fault)
            victim = self.somebody(prefer_leader=0.5)
            self._faults.befall(
                self._pick(self.weather.faults), victim, self._some_time(self.weather.fault_length)
            )

    def _request(self) -> None:
        if self._stormy:
            self.schedule(self._some_time(self.weather.request_interval), self._request)
            self.clients.ask(self._pick(self.weather.requests))
            if len(self.processes) > self.weather.nodes and self.random.random() < 0.1:
                self.operators.retire()

    def _end_faults(self) -> None:
        self.note("--- all faults end ---")
        self._stormy = False
        self.weather = replace(
            self.weather, disk_delay=0.2, apply_delay=0.0, batching=0.0, clock_drift=0.0, snapshot_delay=0.2
        )
        self.network.conditions = CALM
        self._faults.heal()
        for process in self.processes:
            if process.over:
                continue
            process.silent_ticks, process.tick_length = 0, 1.0
            process.disk.failing = False
            process.disk.stalled_until = 0.0
            if process.paused:
                self._faults.resume(process, process.life)
            elif not process.running:
                self.start(process)

    # --- time -------------------------------------------------------------------------------------------------

    def schedule(self, delay: float, event: Callable[[], None]) -> None:
        self._schedule_at(self.now + delay, event)

    def _schedule_at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._sequence), event))

    def _next_event(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()

    def events_of_a_tick(self) -> Iterator[None]:
        """Lets a tick's time pass, event by event."""
        until = self.now + 1.0
        while self._events[0][0] < until:
            self._next_event()
            yield
        self.now = until

    def _some_time(self, mean: float) -> float:
        return self.random.expovariate(1.0 / mean)

    # --- chance -----------------------------------------------------------------------------------------------

    def _pick(self, weights: Mapping[_T, float]) -> _T:
        return self.random.choices(list(weights), list(weights.values()))[0]

    def leaders(self) -> list[Process]:
        return [p for p in self.processes if p.node is not None and p.node.role is Role.LEADER]

    def somebody(self, prefer_leader: float) -> Process:
        leaders = self.leaders()
        if leaders and self.random.random() < prefer_leader:
            return self.random.choice(leaders)
        if len(self.processes) > self.weather.nodes and self.random.random() < 0.9:
            # Most of what happens shall happen to members, not to those that wait to become some, or were some.
            return self.by_id[self.random.choice(self.invariants.history.configuration.members)]
        return self.random.choice(self.processes)

    # --- one process ------------------------------------------------------------------------------------------

    def new_process(self) -> Process:
        """One more, with an empty disk, not started yet; its id is the next number."""
        process = Process(len(self.processes) + 1, Disk(journal=Journal(Random(self.random.getrandbits(64)))))
        self.processes.append(process)
        self.by_id[process.id] = process
        return process

    def start(self, process: Process) -> None:
        """From what its disk holds; a node whose disk is damaged stays down."""
        self.set_clock(process)
        rng = Random(self.random.getrandbits(64))
        fell_back = bool(process.disk.damaged)
        try:
            process.start(self.weather.config(process.id), rng, self._make_node, self._make_machine)
        except DiskDamaged as error:
            if not process.doomed:
                raise
            self.count(f"{process.id} refuses to start: {error}")
            process.over = True
            return
        if fell_back:
            self.note(f"{process.id} falls back to {process.found.snapshot or 'its log'}")
        self.count(f"{process.id} starts: ", describe_node(process.core))
        self.invariants.started(process)
        self.schedule(self.random.random() * process.tick_length, partial(self._tick, process, process.life))

    def set_clock(self, process: Process) -> None:
        drift = self.weather.clock_drift
        process.tick_length = self.random.uniform(1.0 - drift, 1.0 + drift)

    def at(self, process: Process, what: str | Message, act: Callable[[], None], remark: str = "") -> None:
        """Input for a process: handled now, kept for later while it is paused, and lost on a dead one."""
        if process.paused:
            process.backlog.append(partial(self._handle, process, what, act))
        elif process.running:
            self._handle(process, what, act, remark)
            self._drive_soon(process)
        elif not isinstance(what, str):
            self.note(what, "  (nobody is there)")

    def at_life(self, process: Process, life: int, what: str, act: Callable[[], None]) -> None:
        if process.life == life:
            self.at(process, what, act)

    def _handle(
        self, process: Process, what: str | Message, act: Callable[[], None], remark: str = ""
    ) -> None:
        self.count(what if not isinstance(what, str) else f"{process.id} {what}", remark)
        act()
        self.invariants.stepped(process)

    def _tick(self, process: Process, life: int) -> None:
        if process.life != life or not process.running:
            return
        self.schedule(process.tick_length, partial(self._tick, process, life))
        if process.paused:
            return  # a process that was stopped does not catch up on its timers
        if process.silent_ticks:
            process.silent_ticks -= 1
            return
        process.core.tick()
        if process.core.has_ready():  # else a step that shows nothing would be counted
            self.count(f"{process.id} ticks")
            self.invariants.stepped(process)
            self._drive_soon(process)

    def _drive_soon(self, process: Process) -> None:
        if process.drive_due:
            return
        if self.weather.batching and self.random.random() < self.weather.batching:
            process.drive_due = True
            self.schedule(self.random.random(), partial(self._drive_late, process, process.life))
        else:
            self.drive(process)

    def _drive_late(self, process: Process, life: int) -> None:
        if process.life != life or not process.running:
            return
        if process.paused:
            process.backlog.append(lambda: None)  # the pause's end drives
        else:
            self.drive(process)

    def drive(self, process: Process) -> None:
        """What a driver does at the end of its turn: carry out Readies until there are no more."""
        process.drive_due = False
        node = process.core
        for _ in range(MAX_READIES):
            if not node.has_ready():
                return
            ready = node.ready()
            self.invariants.handed_out(process, ready)
            for state in ready.read_states:
                self.invariants.answered(process, state)
                self.clients.reads_open.discard(state.context)
            self._send(process, ready.messages)
            process.take(ready)
            self._write_soon(process, ready)
            if ready.committed:
                delay = self.random.random() * self.weather.apply_delay
                self.schedule(delay, partial(self._apply, process, process.life))
        raise Violation("Liveness", f"{process.id} has handed out {MAX_READIES} Readies and has yet another")

    # --- its disk and its state machine -----------------------------------------------------------------------

    def _write_soon(self, process: Process, ready: Ready) -> None:
        disk = process.disk
        if disk.busy:
            return
        if not ready.must_persist:
            self._written(process, 1)  # nothing to wait for: the queue held only this
            return
        self._begin_write(process)

    def _begin_write(self, process: Process) -> None:
        disk = process.disk
        disk.busy = True
        delay = max(self.random.random() * self.weather.disk_delay, disk.stalled_until - self.now)
        self.schedule(delay, partial(self._disk_completes, process, process.life))

    def _disk_completes(self, process: Process, life: int) -> None:
        """A group of writes is done.  What is on the disk now stays there, even if the process is paused."""
        if process.life != life or not process.running:
            return
        if process.disk.failing:
            self._faults.crash(
                process, "stops, as its fsync failed", self._some_time(self.weather.fault_length)
            )
            return
        group = self.random.randint(1, len(process.disk.queue))
        last = process.disk.queue[group - 1].number
        self.at(
            process,
            f"hears that its disk holds all up to Ready {last}",
            partial(self._written, process, group),
        )

    def _written(self, process: Process, group: int) -> None:
        disk, node = process.disk, process.core
        done = disk.complete(group)
        disk.busy = bool(disk.queue)
        if disk.busy:
            self._begin_write(process)
        for write in done:
            self._send(process, write.messages)
        node.on_persisted(done[-1].number)
        self.invariants.stepped(process)
        self.snapshots.restore_soon(process)

    def _apply(self, process: Process, life: int) -> None:
        if process.to_apply:
            self.at_life(process, life, "applies what is committed", partial(self._apply_all, process))

    def _apply_all(self, process: Process) -> None:
        if process.restore_from is not None:
            return  # what there was to apply is in a snapshot that has come meanwhile
        while process.to_apply:
            index, entry = process.apply_next()
            self.invariants.applied(process, index, entry)
        process.core.on_applied(process.applied)
        self.snapshots.applied(process)

    # --- the network ------------------------------------------------------------------------------------------

    def _send(self, process: Process, messages: Sequence[Message]) -> None:
        for message in messages:
            self.invariants.said(process, message)
            if isinstance(message, InstallSnapshot):
                self.note(message)
                self.snapshots.carry(process, message)
                continue
            if self.remembers:
                self.network.remember(message)
            arrivals = self.network.arrivals(message.sender, message.to, self.now)
            for arrival in arrivals:
                self._schedule_at(arrival, partial(self.deliver, message))
            if not arrivals:
                self.note(message, "  (lost)")

    @property
    def remembers(self) -> bool:
        """Whether old messages may be replayed."""
        return Fault.REPLAY in self.weather.faults

    def deliver(self, message: Message, remark: str = "") -> None:
        receiver = self.by_id[message.to]
        if isinstance(message, InstallSnapshot):
            place = message.snapshot.index, message.snapshot.term
            if place not in receiver.disk.files:
                return  # a replay, and the driver has no such file any more
        self.at(receiver, message, lambda: receiver.core.step(message), remark)

    # --- words ------------------------------------------------------------------------------------------------

    def count(self, what: str | Message, remark: str = "") -> None:
        """Notes a step."""
        self.step += 1
        self.note(what, remark)

    def note(self, what: str | Message, remark: str = "") -> None:
        self.trace.add(self.step, self.now, what, remark)

    @staticmethod
    def describe(process: Process) -> str:
        if process.node is None:
            return "down for good" if process.over else "down"
        state = describe_node(process.node)
        paused = " (paused)" if process.paused else ""
        return f"{state}{paused} disk={process.disk.last_index} configuration={process.node.configuration}"
