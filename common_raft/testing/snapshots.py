"""What a driver does about snapshots, in simulated time: writes them, drops the log behind them, carries them over.

None of it is done at once: a machine's state is written while the machine goes on, a file travels in pieces, each of
which may be lost and is sent again, and either side may crash meanwhile.  A file has its name, and a core hears of
it, only when it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from common_raft.core import SnapshotMeta
from common_raft.core.messages import InstallSnapshot
from common_raft.testing.process import Process

if TYPE_CHECKING:
    from common_raft.testing.simulation import Simulation

#: Pieces that a file is carried in, at most.
MAX_PIECES = 4


@dataclass(slots=True)
class _Transfer:
    """A snapshot on its way: ``state`` is the open file, which lasts even if its name goes."""

    sender: Process
    life: int
    message: InstallSnapshot
    state: Any
    pieces: int


class Snapshots:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self._writing: dict[int, int] = {}  # process id -> the life in which it writes one
        self._due: dict[int, int] = {}  # process id -> the index at which it begins the next one

    # --- taking them ------------------------------------------------------------------------------------------

    def applied(self, process: Process) -> None:
        """``process`` has applied something: perhaps it is time to begin a snapshot."""
        every = self._simulation.weather.snapshot_every
        if not every or self._writing.get(process.id) == process.life:
            return
        due = self._due.setdefault(process.id, self._random.randint(1, every))
        if process.applied < due or process.core.log.restoring or process.machine is None:
            return
        self._due[process.id] = process.applied + self._random.randint(1, 2 * every)
        meta = process.core.snapshot_meta()
        self._writing[process.id] = process.life
        self._simulation.note(f"{process.id} begins to write a snapshot up to {meta.index}")
        delay = self._random.random() * self._simulation.weather.snapshot_delay
        finish = partial(self._written, process, process.life, meta, process.machine.snapshot())
        self._simulation.schedule(delay, finish)

    def _written(self, process: Process, life: int, meta: SnapshotMeta, state: Any) -> None:
        if process.life != life or not process.running:
            return  # the crash has left a temporary file, which nobody looks at
        del self._writing[process.id]
        known = process.disk.stored.snapshot
        if known is not None and known.index >= meta.index:
            return  # the leader's has come first
        process.disk.files[meta.index, meta.term] = state
        process.disk.mark_snapshot(meta)
        act = partial(self._compact, process, meta)
        self._simulation.at_life(process, life, f"has a snapshot up to {meta.index}", act)

    def _compact(self, process: Process, meta: SnapshotMeta) -> None:
        """Keeps a tail of the log, on the disk a longer one than in memory, or the other way round."""
        process.core.snapshot_available(meta)
        keep = self._simulation.weather.catch_up_entries
        memory = meta.index - self._random.randint(0, keep)
        if memory > 0:
            process.core.compact(memory)
        # Often the log goes on to reach back to the snapshot before, so that a start may fall back to that.
        reached = self._random.choice(process.disk.stored.marks[-2:]).index
        disk = min(reached, meta.index) - self._random.randint(0, keep)
        if disk > 0 and self._random.random() < 0.6:
            process.disk.purge(disk)

    # --- carrying them ----------------------------------------------------------------------------------------

    def carry(self, sender: Process, message: InstallSnapshot) -> None:
        """Begins to carry what a core wants to be installed; at times the newest instead, as drivers may.

        They must, where a newer one has replaced it between the core's decision and the Ready that tells of it.
        """
        newest, place = sender.disk.stored.snapshot, (message.snapshot.index, message.snapshot.term)
        if newest is not None and (place not in sender.disk.files or self._random.random() < 0.3):
            message = msgspec.structs.replace(message, snapshot=newest)
        meta = message.snapshot
        state = sender.disk.files[meta.index, meta.term]
        pieces = self._random.randint(1, MAX_PIECES)
        transfer = _Transfer(sender, sender.life, message, state, pieces)
        self._simulation.schedule(0.0, partial(self._piece, transfer))  # when the driver's turn is over

    def _piece(self, transfer: _Transfer) -> None:
        """Sends the next piece, or a lost one again, unless there is nobody to send it any more."""
        sender, message = transfer.sender, transfer.message
        if sender.life != transfer.life or not sender.running:
            return
        receiver = self._simulation.by_id.get(message.to)
        simulation = self._simulation
        arrivals = simulation.network.arrivals(message.sender, message.to, simulation.now)
        if not arrivals or receiver is None or not receiver.running:
            if self._random.random() < 0.5:
                self._report(transfer, ok=False)
            else:
                simulation.schedule(1.0 + self._random.random(), partial(self._piece, transfer))
            return
        simulation.schedule(arrivals[0] - simulation.now, partial(self._arrived, transfer, receiver))

    def _arrived(self, transfer: _Transfer, receiver: Process) -> None:
        if not receiver.running:
            self._piece(transfer)  # which finds out; what has arrived before is kept
            return
        transfer.pieces -= 1
        if transfer.pieces:
            self._piece(transfer)
            return
        meta = transfer.message.snapshot
        receiver.disk.files[meta.index, meta.term] = transfer.state
        self._simulation.deliver(transfer.message)
        if self._simulation.remembers:
            self._simulation.network.remember(transfer.message)
        # Its answer may be lost, and the sender then takes it for failed.
        arrivals = self._simulation.network.arrivals(
            transfer.message.to, transfer.message.sender, self._simulation.now
        )
        delay = arrivals[0] - self._simulation.now if arrivals else 5.0
        self._simulation.schedule(delay, partial(self._report, transfer, ok=bool(arrivals)))

    def _report(self, transfer: _Transfer, *, ok: bool) -> None:
        peer = transfer.message.to
        self._simulation.at_life(
            transfer.sender,
            transfer.life,
            f"hears that its snapshot for {peer} {'has arrived' if ok else 'was not taken'}",
            lambda: transfer.sender.core.report_snapshot(peer, ok),
        )

    # --- installing them --------------------------------------------------------------------------------------

    def restore_soon(self, process: Process) -> None:
        """When the disk says so, the machine is restored from what the leader sent."""
        if process.can_restore():
            delay = self._random.random() * self._simulation.weather.apply_delay
            self._simulation.schedule(delay, partial(self._restore, process, process.life))

    def _restore(self, process: Process, life: int) -> None:
        if process.life == life and process.can_restore():
            self._simulation.at(
                process, "restores its machine from a snapshot", partial(self._restore_now, process)
            )

    def _restore_now(self, process: Process) -> None:
        if not process.can_restore():
            return  # it was paused, and a second event has done it meanwhile
        meta = process.restore_next()
        self._simulation.invariants.restored(process, meta)
        process.core.on_applied(process.applied)
