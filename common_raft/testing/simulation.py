"""A cluster of cores on a simulated network, with simulated disks, clocks and faults, all decided by one seed.

Time is virtual and counted in nominal ticks.  Everything that happens is an event in one queue, ordered by time;
a *step* is one event that reached a process, or one fault.  After every step all invariants are checked.  A run
has two phases: in the first whatever the seed's `Weather` holds may happen; in the second all faults end, and
the cluster must elect a leader, commit a fresh proposal at every node and answer reads within a bounded time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from random import Random
from typing import TypeVar

from common_raft.core import NOBODY, Message, NoLeader, NotLeader, ProposalDropped, RawNode, Ready, Role
from common_raft.testing.invariants import RULES, Invariants, Rule, Violation
from common_raft.testing.machine import Accumulator, Workload, numbered_commands
from common_raft.testing.network import CALM, Network
from common_raft.testing.process import MakeMachine, MakeNode, Process
from common_raft.testing.trace import Trace, describe_node
from common_raft.testing.weather import Fault, Request, Weather, draw

_T = TypeVar("_T")

#: The cluster must have recovered so many election timeouts after the last fault.  A healthy core needs a few:
#: stale messages, split votes and clock drift may each cost one or two.
RECOVERY_TIMEOUTS = 40

#: Events at one instant beyond which the cores are talking in circles.
MAX_STEPS_PER_TICK = 5_000
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
        self.processes = [Process(node) for node in range(1, self.weather.nodes + 1)]
        self.invariants = Invariants({process.id: process for process in self.processes}, rules)
        self._make_node = make_node
        self._make_machine = make_machine
        self._workload = workload
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._contexts = count(1)
        self._proposals = count(1)
        self._stormy = True
        self._reads_open: set[int] = set()

    # --- running ----------------------------------------------------------------------------------------------

    def run(self, steps: int = 500) -> None:
        """Both phases: ``steps`` steps of faults, then recovery.  Raises `SimulationFailed`."""
        self.steps = steps
        try:
            self._start_all()
            while self.step < steps:
                self._next_event()
            self._end_faults()
            self._await_recovery()
        except BrokenPipeError:
            raise  # whoever reads the trace has seen enough
        except Exception as error:
            raise SimulationFailed(self, error) from error

    def _start_all(self) -> None:
        for process in self.processes:
            self._start(process)
        if self.random.random() < 0.7:  # else a timeout has to come first, which costs many steps
            self._at(self.processes[0], "campaigns", lambda: self.processes[0].core.campaign())
        if self.weather.faults:
            self._schedule(self._some_time(self.weather.fault_interval), self._fault)
        self._schedule(self._some_time(self.weather.request_interval), self._request)

    def _schedule(self, delay: float, event: Callable[[], None]) -> None:
        self._schedule_at(self.now + delay, event)

    def _schedule_at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._sequence), event))

    def _next_event(self) -> None:
        self.now, _, event = heapq.heappop(self._events)
        event()

    def _some_time(self, mean: float) -> float:
        return self.random.expovariate(1.0 / mean)

    def _step(self, what: str | Message, remark: str = "") -> None:
        self.step += 1
        self.trace.add(self.step, self.now, what, remark)

    def _note(self, what: str | Message, remark: str = "") -> None:
        self.trace.add(self.step, self.now, what, remark)

    # --- one process ------------------------------------------------------------------------------------------

    def _start(self, process: Process) -> None:
        drift = self.weather.clock_drift
        process.tick_length = self.random.uniform(1.0 - drift, 1.0 + drift)
        rng = Random(self.random.getrandbits(64))
        process.start(self.weather.config(process.id), rng, self._make_node, self._make_machine)
        self._step(f"{process.id} starts: ", describe_node(process.core))
        self.invariants.started(process)
        self._schedule(self.random.random() * process.tick_length, partial(self._tick, process, process.life))

    def _at(self, process: Process, what: str | Message, act: Callable[[], None], remark: str = "") -> None:
        """Input for a process: handled now, kept for later while it is paused, and lost on a dead one."""
        if process.paused:
            process.backlog.append(partial(self._handle, process, what, act))
        elif process.running:
            self._handle(process, what, act, remark)
            self._drive_soon(process)
        elif not isinstance(what, str):
            self._note(what, "  (nobody is there)")

    def _at_life(self, process: Process, life: int, what: str, act: Callable[[], None]) -> None:
        if process.life == life:
            self._at(process, what, act)

    def _handle(
        self, process: Process, what: str | Message, act: Callable[[], None], remark: str = ""
    ) -> None:
        self._step(what if not isinstance(what, str) else f"{process.id} {what}", remark)
        act()
        self.invariants.stepped(process)

    def _tick(self, process: Process, life: int) -> None:
        if process.life != life or not process.running:
            return
        self._schedule(process.tick_length, partial(self._tick, process, life))
        if process.paused:
            return  # a process that was stopped does not catch up on its timers
        process.core.tick()
        if process.core.has_ready():  # else a step that shows nothing would be counted
            self._step(f"{process.id} ticks")
            self.invariants.stepped(process)
            self._drive_soon(process)

    def _drive_soon(self, process: Process) -> None:
        if process.drive_due:
            return
        if self.weather.batching and self.random.random() < self.weather.batching:
            process.drive_due = True
            self._schedule(self.random.random(), partial(self._drive_late, process, process.life))
        else:
            self._drive(process)

    def _drive_late(self, process: Process, life: int) -> None:
        if process.life != life or not process.running:
            return
        if process.paused:
            process.backlog.append(lambda: None)  # the pause's end drives
        else:
            self._drive(process)

    def _drive(self, process: Process) -> None:
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
                self._reads_open.discard(state.context)
            self._send(process, ready.messages)
            process.take(ready)
            self._write_soon(process, ready)
            if ready.committed:
                delay = self.random.random() * self.weather.apply_delay
                self._schedule(delay, partial(self._apply, process, process.life))
        raise Violation("Liveness", f"{process.id} has handed out {MAX_READIES} Readies and has yet another")

    def _write_soon(self, process: Process, ready: Ready) -> None:
        disk = process.disk
        if disk.busy:
            return
        if not ready.must_persist:
            self._written(process, 1)  # nothing to wait for: the queue held only this
            return
        disk.busy = True
        delay = self.random.random() * self.weather.disk_delay
        self._schedule(delay, partial(self._disk_completes, process, process.life))

    def _disk_completes(self, process: Process, life: int) -> None:
        """A group of writes is done.  What is on the disk now stays there, even if the process is paused."""
        if process.life != life or not process.running:
            return
        group = self.random.randint(1, len(process.disk.queue))
        last = process.disk.queue[group - 1].number
        self._at(
            process,
            f"hears that its disk holds all up to Ready {last}",
            partial(self._written, process, group),
        )

    def _written(self, process: Process, group: int) -> None:
        disk, node = process.disk, process.core
        done = disk.complete(group)
        disk.busy = bool(disk.queue)
        if disk.busy:
            delay = self.random.random() * self.weather.disk_delay
            self._schedule(delay, partial(self._disk_completes, process, process.life))
        for write in done:
            self._send(process, write.messages)
        node.on_persisted(done[-1].number)
        self.invariants.stepped(process)

    def _apply(self, process: Process, life: int) -> None:
        if process.to_apply:
            self._at_life(process, life, "applies what is committed", partial(self._apply_all, process))

    def _apply_all(self, process: Process) -> None:
        while process.to_apply:
            index, entry = process.apply_next()
            self.invariants.applied(process, index, entry)
        process.core.on_applied(process.applied)

    # --- the network ------------------------------------------------------------------------------------------

    def _send(self, process: Process, messages: Sequence[Message]) -> None:
        for message in messages:
            self.invariants.said(process, message)
            arrivals = self.network.arrivals(message.sender, message.to, self.now)
            for arrival in arrivals:
                self._schedule_at(arrival, partial(self._deliver, message))
            if not arrivals:
                self._note(message, "  (lost)")

    def _deliver(self, message: Message) -> None:
        receiver = self.processes[message.to - 1]
        self._at(receiver, message, lambda: receiver.core.step(message))

    # --- clients ----------------------------------------------------------------------------------------------

    def _pick(self, weights: dict[_T, float]) -> _T:
        return self.random.choices(list(weights), list(weights.values()))[0]

    def _request(self) -> None:
        if not self._stormy:
            return
        self._schedule(self._some_time(self.weather.request_interval), self._request)
        request = self._pick(dict(self.weather.requests))
        process = self._somebody(prefer_leader=0.9)
        if process.node is None or (process.node.leader == NOBODY and self.random.random() < 0.8):
            return  # clients try the others first, and most steps shall do something
        if request is Request.PROPOSE:
            self._propose(process)
        elif request is Request.READ:
            self._read(process)
        else:
            target = self.random.choice(self.processes).id
            act = partial(self._or_refuse, lambda: process.core.transfer_leadership(target))
            self._at(process, f"is asked to hand over to {target}", act)

    def _propose(self, process: Process) -> list[bytes]:
        burst = self.random.choice((1, 1, 3))
        payloads = [self._workload(self.random, next(self._proposals)) for _ in range(burst)]
        act = partial(self._or_refuse, lambda: process.core.propose(payloads))
        self._at(process, f"gets {burst} proposals", act)
        return payloads

    def _read(self, process: Process) -> int:
        context = next(self._contexts)
        # The client asks now, even if the process is paused and hears it later.
        self.invariants.asked(process, context)
        self._reads_open.add(context)
        act = partial(self._or_refuse, lambda: process.core.read_index(context))
        self._at(process, f"gets read {context}", act)
        return context

    def _or_refuse(self, act: Callable[[], None]) -> None:
        """Does it; a refusal is an answer like another."""
        try:
            act()
        except (ProposalDropped, NoLeader, NotLeader) as refusal:
            self._note(f"  (refused: {refusal})")

    def _leaders(self) -> list[Process]:
        return [p for p in self.processes if p.node is not None and p.node.role is Role.LEADER]

    def _somebody(self, prefer_leader: float) -> Process:
        leaders = self._leaders()
        if leaders and self.random.random() < prefer_leader:
            return self.random.choice(leaders)
        return self.random.choice(self.processes)

    # --- faults -----------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if not self._stormy:
            return
        self._schedule(self._some_time(self.weather.fault_interval), self._fault)
        fault = self._pick(dict(self.weather.faults))
        if len(self.processes) == 1 and fault in (Fault.SPLIT, Fault.ONE_WAY):
            return  # there are no links
        victim = self._somebody(prefer_leader=0.5)
        length = self._some_time(self.weather.fault_length)
        match fault:
            case Fault.CRASH:
                self._crash(victim, length)
            case Fault.PAUSE:
                self._pause(victim, length)
            case Fault.SPLIT:
                self._split(victim, length)
            case Fault.ONE_WAY:
                self._cut_one_way(victim, length)
            case Fault.CAMPAIGN:
                self._at(victim, "campaigns early", lambda: victim.core.campaign())
            case Fault.UNREACHABLE:
                peer = self.random.choice(self.processes).id
                self._at(
                    victim, f"hears that {peer} is unreachable", lambda: victim.core.report_unreachable(peer)
                )

    def _crash(self, process: Process, length: float) -> None:
        if not process.running:
            return
        survivors = self.random.randint(0, len(process.disk.queue))
        self._step(f"{process.id} crashes; {survivors} of {len(process.disk.queue)} writes survive")
        process.crash(survivors)
        self._schedule(length, partial(self._restart, process, process.life))

    def _restart(self, process: Process, life: int) -> None:
        if process.life == life and not process.running:
            self._start(process)

    def _pause(self, process: Process, length: float) -> None:
        if process.running and not process.paused:
            self._step(f"{process.id} pauses")
            process.paused = True
            self._schedule(length, partial(self._resume, process, process.life))

    def _resume(self, process: Process, life: int) -> None:
        if process.life != life or not process.running or not process.paused:
            return
        self._step(f"{process.id} goes on")
        process.paused = False
        backlog, process.backlog = process.backlog, []
        for handle in backlog:
            handle()
        self._drive(process)

    def _split(self, victim: Process, length: float) -> None:
        others = [p.id for p in self.processes if p is not victim]
        side = [victim.id, *self.random.sample(others, self.random.randint(0, len(others) // 2))]
        self._step(f"{side} are split from the others")
        self.network.split(side, [p.id for p in self.processes])
        if self.random.random() < 0.5:  # so that the old leader and a new one soon write different entries
            other = self.random.choice([p for p in self.processes if p.id not in side])
            self._at(other, "campaigns early", lambda: other.core.campaign())
        self._schedule(length, self._heal)

    def _cut_one_way(self, victim: Process, length: float) -> None:
        other = self.random.choice([p for p in self.processes if p is not victim])
        link = (victim.id, other.id) if self.random.random() < 0.5 else (other.id, victim.id)
        self._step(f"{link[0]} is not heard by {link[1]} any more")
        self.network.cut_one_way(*link)
        self._schedule(length, self._heal)

    def _heal(self) -> None:
        if self.network.cut:
            self._step("all links are whole")
            self.network.heal()

    # --- recovery ---------------------------------------------------------------------------------------------

    def _end_faults(self) -> None:
        self._note("--- all faults end ---")
        self._stormy = False
        self.weather = replace(self.weather, disk_delay=0.2, apply_delay=0.0, batching=0.0)
        self.network.conditions = CALM
        self._heal()
        for process in self.processes:
            if process.paused:
                self._resume(process, process.life)
            elif not process.running:
                self._start(process)

    def _await_recovery(self) -> None:
        """A fresh proposal must be applied everywhere, then a fresh read must be answered everywhere."""
        longest = max(process.core.last_index for process in self.processes)
        lag = longest - min(process.disk.last_index for process in self.processes)
        # Under the tightest limits a follower is sent one entry a round trip, which takes less than a tick.
        deadline = self.now + RECOVERY_TIMEOUTS * self.weather.election_tick + lag
        self._await(deadline, "commit a fresh proposal at all nodes", self._propose_afresh())
        for process in self.processes:
            self._await(deadline, f"answer a fresh read at {process.id}", self._read_afresh(process))

    def _propose_afresh(self) -> Callable[[], bool]:
        committed = self.invariants.history.committed
        fresh: set[bytes] = set()
        start, again = len(committed), self.now

        def done() -> bool:
            for index in range(start + 1, len(committed) + 1):
                if committed[index - 1].data in fresh:
                    return all(process.applied >= index for process in self.processes)
            nonlocal again
            if self.now >= again:  # not every tick: it would wait behind its own repetitions
                again = self.now + self.weather.election_tick
                for leader in self._leaders():
                    fresh.update(self._propose(leader))
            return False

        return done

    def _read_afresh(self, process: Process) -> Callable[[], bool]:
        asked: set[int] = set()

        def done() -> bool:
            if not asked <= self._reads_open:
                return True
            asked.add(self._read(process))
            return False

        return done

    def _await(self, deadline: float, goal: str, done: Callable[[], bool]) -> None:
        """Lets time pass until ``done``, which is asked once a tick."""
        while not done():
            if self.now > deadline:
                raise Violation(
                    "Liveness", f"the cluster did not {goal} within {RECOVERY_TIMEOUTS} election timeouts"
                )
            until, before = self.now + 1.0, self.step
            while self._events[0][0] < until:
                self._next_event()
                if self.step - before > MAX_STEPS_PER_TICK:
                    raise Violation("Liveness", f"{MAX_STEPS_PER_TICK} steps within a tick")
            self.now = until

    # --- words ------------------------------------------------------------------------------------------------

    @staticmethod
    def describe(process: Process) -> str:
        if process.node is None:
            return "down"
        state = describe_node(process.node)
        return f"{state}{' (paused)' if process.paused else ''} disk={process.disk.last_index}"
