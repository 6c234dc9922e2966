"""The thread that writes the log, so that the driver goes on while the disk works.

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
from common_raft.storage.records import Record
from common_raft.storage.wal import Wal

#: number of the Ready, what it has to write, its size in bytes
_Item: TypeAlias = tuple[int, Record, int]

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

    ``submit``, ``has_room``, ``backlog`` and ``close`` belong to one thread, the driver's.

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
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
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
        self, number: int, hard_state: HardState | None, first_index: int, entries: Sequence[Entry]
    ) -> None:
        """Queue a Ready's hard state and entries; returns at once.  ``entries`` must not change from here on.

        A Ready without either takes its turn like any other, but causes no write.

        :raises WriterOverloaded: the queue is full (see ``has_room``)
        :raises WriterStopped: after ``close`` or a failure, which is chained
        """
        if self._failure is not None or self._stopping:
            raise WriterStopped from self._failure
        if not self.has_room:
            raise WriterOverloaded(*self.backlog)
        size = sum([len(entry.data) + ENTRY_OVERHEAD for entry in entries])
        self._submitted_items += 1
        self._submitted_bytes += size
        self._queue.put((number, (hard_state, first_index, entries), size))

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

    def _write_group(self, first: _Item | None) -> bool:
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
        self._wal.append([record for _, record, _ in group])
        self._finished_bytes += sum([size for _, _, size in group])
        self._finished_items += len(group)
        self._on_durable(group[-1][0])
        return not closed
