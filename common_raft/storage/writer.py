"""The thread that writes the log, so that the driver goes on while the disk works.

The log is the thread's while something is queued, and the driver's while nothing is: see ``write_at_once``.

Everything that is submitted while one write is under way becomes the next one: the slower the disk, the larger the
groups, and nobody waits for more than two of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeAlias

from common_raft.core.messages import Entry, HardState
from common_raft.storage.errors import WriterOverloaded, WriterStopped
from common_raft.storage.records import Record, SnapshotMark
from common_raft.storage.wal import Wal

#: number of the Ready (None: none's), what it has to write, its size in bytes, what is to be done once it is durable
Item: TypeAlias = tuple[int | None, Record, int, Callable[[], None] | None]

#: What one entry counts beyond its data, in bytes: the object, and its share of the lists that hold it.
ENTRY_OVERHEAD = 64


class WalWriter:
    """Writes submitted Readies in order, in groups, on a thread of its own.

    ``on_durable(number)`` is called once for each group, on that thread, when all Readies up to ``number`` are
    durable.  ``on_failure(error)`` is called once, on that thread, when the log (or ``on_durable``) has failed;
    nothing is written after it.

    The queue is bounded, but a Ready that the core has handed out cannot be given back, and an event loop must not
    wait.  So the driver looks at ``has_room`` *before* it takes a Ready; once that was true, one ``submit`` is
    accepted whatever its size, since only the writer changes the queue in between.  ``submit`` without room raises.

    ``submit``, ``write_at_once``, ``mark_snapshot``, ``has_room``, ``backlog`` and ``close`` belong to one thread,
    the driver's.

    The thread needs the interpreter's lock for some 20 us a group, but three times: to take the group, and after
    each of the two system calls.  A loop that is always busy and lets go of the lock only for moments starves it:
    with slices of 0.5 ms a write took 150 ms (median) at the default switch interval of 5 ms, and 0.3 ms at 0.1 ms.
    A process that has such a loop should call ``sys.setswitchinterval(1e-4)`` when it starts; one with hundreds of
    threads should not: each switch costs more than the wait (ARCHITECTURE.md, "In threads").
    """

    #: Encoding and checksumming take about 1.5 ms per MiB: with this much queued the disk has been the bottleneck
    #: for long, and clients had better be told than kept.
    MAX_BYTES = 64 << 20
    #: Bounds a group where Readies are small; 4096 of them are encoded in about 3 ms.
    MAX_ITEMS = 4096

    #: What is written at once: a command or two.  With three clients a PUT costs 0.83 of the CPU then.  Twice as much
    #: had 24 clients, whose commands share entries, get 0.85 of the throughput.
    SMALL_BYTES = 128 + ENTRY_OVERHEAD
    #: A disk whose last write took longer is left to the thread, so that a loop never waits for it twice.
    QUICK_SECONDS = 0.001

    __slots__ = (
        "_failure",
        "_finished_bytes",
        "_finished_items",
        "_on_durable",
        "_on_failure",
        "_queue",
        "_stopping",
        "_submitted_bytes",
        "_submitted_items",
        "_thread",
        "_wal",
    )

    def __init__(
        self, wal: Wal, on_durable: Callable[[int], None], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._wal = wal
        self._on_durable = on_durable
        self._on_failure = on_failure
        # The cheapest hand-over measured, 11 us against 20 for a Condition or a Semaphore with a deque: it is in C
        # and wakes its reader by releasing one lock.
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        # Each counter has one thread that writes it, so that they need no lock; the difference is the backlog.
        self._submitted_items = 0
        self._submitted_bytes = 0
        self._finished_items = 0
        self._finished_bytes = 0
        self._failure: BaseException | None = None
        self._stopping = False
        # Not a daemon: the interpreter must not end in the middle of a write.  So ``close`` has to be called.
        self._thread = threading.Thread(target=self._run, name="wal-writer")

    def start(self) -> None:
        """Start the thread; what was submitted before is written now."""
        self._thread.start()

    @property
    def backlog(self) -> tuple[int, int]:
        """Items and bytes that were submitted and are not durable yet."""
        return self._submitted_items - self._finished_items, self._submitted_bytes - self._finished_bytes

    @property
    def has_room(self) -> bool:
        """Whether the next ``submit`` will be accepted."""
        items, size = self.backlog
        return items < self.MAX_ITEMS and size < self.MAX_BYTES

    def submit(
        self,
        number: int,
        hard_state: HardState | None,
        first_index: int,
        entries: Sequence[Entry],
        snapshot: SnapshotMark | None = None,
    ) -> None:
        """Queue a Ready's hard state and entries; returns at once.  ``entries`` must not change from here on.

        ``snapshot``: one that was received and whose file is there; the log is begun anew behind it, in the same
        write.  A Ready without any of these takes its turn like any other, but causes no write.

        :raises WriterOverloaded: the queue is full (see ``has_room``)
        :raises WriterStopped: after ``close`` or a failure, which is chained
        """
        if self._failure is None and not self._stopping and not self.has_room:
            raise WriterOverloaded(*self.backlog)
        size = sum([len(entry.data) + ENTRY_OVERHEAD for entry in entries])
        if snapshot is None:
            self._put((number, (hard_state, first_index, entries), size, None))
        else:
            self._put((number, (hard_state, first_index, entries, snapshot, True), size, None))

    def write_at_once(self, hard_state: HardState | None, first_index: int, entries: Sequence[Entry]) -> bool:
        """Write a Ready in the caller's thread, and return whether that was done: then it is durable.

        It is done where the way to the other thread and back costs more than the disk: nothing is queued, the write
        is small, and the last one was quick.  Otherwise, and after ``close`` or a failure, call ``submit``.

        :raises WriteFailed: see ``Wal.append``
        """
        if self._submitted_items != self._finished_items or self._wal.last_sync > self.QUICK_SECONDS:
            return False
        if sum([len(entry.data) + ENTRY_OVERHEAD for entry in entries]) > self.SMALL_BYTES:
            return False
        if self._failure is not None or self._stopping or self._thread.ident is None:
            return False
        try:
            self._wal.append(((hard_state, first_index, entries),))
        except BaseException as error:
            self._failure = error
            raise
        return True

    def mark_snapshot(self, mark: SnapshotMark, done: Callable[[], None]) -> None:
        """Queue the mark of a snapshot that was taken here and has its file; returns at once.

        Once the mark is durable, segments that the snapshot stands for are removed (``Wal.purge``); then ``done`` is
        called, on the writer's thread.  There are few of these, and the queue's limit is not asked for them.

        :raises WriterStopped: after ``close`` or a failure, which is chained
        """

        def purge() -> None:
            self._wal.purge(mark.index)
            done()

        self._put((None, (None, 1, (), mark, False), 0, purge))

    def _put(self, item: Item) -> None:
        if self._failure is not None or self._stopping:
            raise WriterStopped from self._failure
        self._submitted_items += 1
        self._submitted_bytes += item[2]
        self._pass_on(item)

    def _pass_on(self, item: Item) -> None:
        self._queue.put(item)

    def close(self) -> None:
        """Write what is queued, then end the thread.  The log stays open; closing it is its owner's business."""
        if not self._stopping:
            self._stopping = True
            self._queue.put(None)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._write_group(self._queue.get()):
                pass
        except BaseException as error:
            self._failure = error
            self._on_failure(error)

    def _write_group(self, first: Item | None) -> bool:
        """Write ``first`` and everything queued behind it; false when the writer has been closed."""
        if first is None:
            return False
        group = [first]
        closed = False
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            if item is None:
                closed = True
                break
            group.append(item)
        self._wal.append([item[1] for item in group])
        numbers = [item[0] for item in group if item[0] is not None]
        if numbers:
            self._on_durable(numbers[-1])
        for *_, then in group:
            if then is not None:
                then()
        # Not before: as long as something is unfinished the log is this thread's.
        self._finish(group)
        return not closed

    def _finish(self, group: Sequence[Item]) -> None:
        self._finished_bytes += sum([item[2] for item in group])
        self._finished_items += len(group)
