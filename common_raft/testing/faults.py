"""Carries out what the weather has in store: faults of processes, links, clocks and disks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from common_raft.testing.process import Process
from common_raft.testing.weather import Fault

if TYPE_CHECKING:
    from common_raft.testing.simulation import Simulation


class Faults:
    """``befall`` lets one fault happen to one process; what it begins, it also ends."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self._network = simulation.network
        self._kinds: Mapping[Fault, Callable[[Process, float], None]] = {
            Fault.CRASH: self._crash,
            Fault.PAUSE: self._pause,
            Fault.SPLIT: self._split,
            Fault.ONE_WAY: self._cut_one_way,
            Fault.REPLAY: self._replay,
            Fault.CAMPAIGN: self._campaign,
            Fault.FORGET: self._forget,
            Fault.UNREACHABLE: self._report_unreachable,
            Fault.CLOCK: self._clock,
            Fault.SLOW_DISK: self._slow_disk,
            Fault.FAILING_DISK: self._failing_disk,
            Fault.DAMAGE: self._damage,
            Fault.ROT: self._rot,
            Fault.WIPE: self._wipe,
        }

    def befall(self, fault: Fault, victim: Process, length: float) -> None:
        self._kinds[fault](victim, length)

    # --- processes --------------------------------------------------------------------------------------------

    def _crash(self, process: Process, length: float) -> None:
        self.crash(process, "crashes", length)

    def crash(self, process: Process, how: str, length: float) -> None:
        """What waits for the disk survives up to some write, and perhaps a part of what was under way with it."""
        if not process.running:
            return
        queued = len(process.disk.queue)
        survivors = self._random.randint(0, queued)
        torn = self._random.randint(0, queued - survivors) if self._simulation.weather.torn_writes else 0
        tear = f", then {torn} are torn" if torn else ""
        self._simulation.count(f"{process.id} {how}; {survivors} of {queued} writes survive{tear}")
        process.crash(survivors, torn)
        self._simulation.schedule(length, partial(self._restart, process, process.life))

    def _restart(self, process: Process, life: int) -> None:
        if process.life == life and not process.running and not process.over:
            self._simulation.start(process)

    def _pause(self, process: Process, length: float) -> None:
        if process.running and not process.paused:
            self._simulation.count(f"{process.id} pauses")
            process.paused, process.paused_at = True, self._simulation.now
            self._simulation.schedule(length, partial(self.resume, process, process.life))

    def resume(self, process: Process, life: int) -> None:
        if process.life != life or not process.running or not process.paused:
            return
        self._simulation.count(f"{process.id} goes on")
        process.paused = False
        if process.lease_reads:
            # Before anything else a driver makes up for the ticks that it has missed: `core.reads.Lease`.
            for _ in range(int((self._simulation.now - process.paused_at) / process.tick_length) + 1):
                process.core.tick()
            self._simulation.invariants.stepped(process)
        backlog, process.backlog = process.backlog, []
        for handle in backlog:
            handle()
        self._simulation.drive(process)

    def _campaign(self, victim: Process, _length: float) -> None:
        self._simulation.at(victim, "campaigns early", lambda: victim.core.campaign())

    def _forget(self, victim: Process, _length: float) -> None:
        self._simulation.at(victim, "is told that its leader is gone", lambda: victim.core.forget_leader())

    # --- links ------------------------------------------------------------------------------------------------

    def _report_unreachable(self, victim: Process, _length: float) -> None:
        peer = self._random.choice(self._simulation.processes).id
        report = f"hears that {peer} is unreachable"
        self._simulation.at(victim, report, lambda: victim.core.report_unreachable(peer))

    def _split(self, victim: Process, length: float) -> None:
        processes = self._simulation.processes
        others = [process.id for process in processes if process is not victim]
        if not others:
            return
        side = [victim.id, *self._random.sample(others, self._random.randint(0, len(others) // 2))]
        self._simulation.count(f"{side} are split from the others")
        self._network.split(side, [process.id for process in processes])
        if self._random.random() < 0.5:  # so that the old leader and a new one soon write different entries
            self._campaign(self._random.choice([p for p in processes if p.id not in side]), length)
        self._simulation.schedule(length, self.heal)

    def _cut_one_way(self, victim: Process, length: float) -> None:
        others = [process for process in self._simulation.processes if process is not victim]
        if not others:
            return
        other = self._random.choice(others)
        link = (victim.id, other.id) if self._random.random() < 0.5 else (other.id, victim.id)
        self._simulation.count(f"{link[0]} is not heard by {link[1]} any more")
        self._network.cut_one_way(*link)
        self._simulation.schedule(length, self.heal)

    def _replay(self, victim: Process, length: float) -> None:
        """A network that duplicates may take its time; whatever says so by its term or round must be void."""
        messages = self._network.recall(victim.id, self._random.choice((5, 50)))
        self._simulation.count(f"{len(messages)} old messages will reach {victim.id} once more")
        for message in messages:
            self._simulation.schedule(
                self._random.random() * length, partial(self._simulation.deliver, message, "  (replayed)")
            )

    def heal(self) -> None:
        if self._network.cut:
            self._simulation.count("all links are whole")
            self._network.heal()

    # --- clocks -----------------------------------------------------------------------------------------------

    def _clock(self, victim: Process, _length: float) -> None:
        """Ticks come all at once, or not at all for a while, or faster or slower than before."""
        simulation = self._simulation
        if not victim.running:
            return
        ticks = self._random.randint(2, 2 * simulation.weather.election_tick)
        match self._random.choice(("forward", "back", "speed")):
            case "forward":
                simulation.at(victim, f"ticks {ticks} times at once", partial(self._jump, victim, ticks))
            case "back":
                simulation.count(f"{victim.id} will not notice {ticks} ticks")
                victim.silent_ticks = ticks
            case _:
                simulation.set_clock(victim)
                simulation.count(f"the ticks of {victim.id} are {victim.tick_length:.2f} long now")

    @staticmethod
    def _jump(victim: Process, ticks: int) -> None:
        for _ in range(ticks):
            victim.core.tick()

    # --- disks ------------------------------------------------------------------------------------------------

    def _slow_disk(self, victim: Process, length: float) -> None:
        self._simulation.count(f"the disk of {victim.id} stalls for {length:.1f}")
        victim.disk.stalled_until = self._simulation.now + length

    def _failing_disk(self, victim: Process, _length: float) -> None:
        """The node must not go on after a failed fsync, nor try it again (`storage.wal.Wal.append`)."""
        if victim.running:
            self._simulation.count(f"the next fsync of {victim.id} will fail")
            victim.disk.failing = True

    def _damage(self, victim: Process, length: float) -> None:
        """Once a node, and only where the others can do without it: it must not start again."""
        journal = victim.disk.journal
        if journal is None or victim.doomed or victim.over or not self._simulation.operators.can_lose(victim):
            return
        if self._random.random() < 0.3:
            journal.misdirect = True
            what: str | None = "its next write will go to the wrong place"
        else:
            what = journal.damage()
        if what is None:
            return
        victim.doomed = True
        self._simulation.count(f"the disk of {victim.id} is damaged: {what}")
        if not journal.misdirect and self._random.random() < 0.5:
            self.crash(victim, "crashes", length)

    def _rot(self, _victim: Process, length: float) -> None:
        """Befalls whoever has most snapshots, so that there may be one to fall back to.

        A node whose log reaches back to no other snapshot must not start again; so that is done rarely.
        """
        able = [p for p in self._simulation.processes if p.running and p.disk.stored.marks and not p.doomed]
        if not able:
            return
        victim = max(able, key=lambda process: (len(process.disk.stored.marks), self._random.random()))
        expendable = self._random.random() < 0.2 and self._simulation.operators.can_lose(victim)
        self.crash(victim, "crashes", length)
        fatal = not victim.disk.can_fall_back()
        what = victim.disk.damage_snapshot(self._random) if expendable or not fatal else None
        if what is not None:
            victim.doomed = fatal
            self._simulation.count(f"the disk of {victim.id} is damaged: {what}")

    def _wipe(self, victim: Process, _length: float) -> None:
        """A node without a log must not vote as if it had never voted: it is gone, and another may take its place."""
        if victim.over or victim.life == 0 or not self._simulation.operators.can_lose(victim):
            return
        self._simulation.count(f"the disk of {victim.id} is emptied: it will not start again")
        victim.crash(len(victim.disk.queue))
        victim.over = True
