"""The log's writer for an event loop whose kernel has io_uring: most groups need no thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from time import perf_counter

from common_raft.core.messages import Entry, HardState
from common_raft.storage.ring import SyncRing
from common_raft.storage.wal import Wal
from common_raft.storage.writer import Item, WalWriter


class LoopWriter(WalWriter):
    """A `WalWriter` that writes small groups in the loop and has the kernel sync them meanwhile.

    A group that goes to the thread and back costs 70 us of CPU and waits for the interpreter's lock three times: with
    a loop that is busy, for two of its turns.  This way it costs 45 us, and is durable one turn later.

    What comes while a group is being synced is the next one.  The thread gets groups that are large, begin a segment
    or mark a snapshot, and all that comes before it has done those; and everything while the disk is so slow that
    even a write to the system's cache may wait.

    ``durable(number)`` and ``failed(error)`` are called in the loop, ``on_durable`` and ``on_failure`` as by
    `WalWriter`.
    """

    #: Encoding, checksumming and writing this much takes the loop about 0.3 ms.
    MOST_BYTES = 128 << 10
    #: A disk whose last sync took longer is the thread's.
    SLOW_SECONDS = 0.1

    __slots__ = ("_began", "_durable", "_failed", "_gathered", "_group", "_idle", "_loop", "_ring")

    def __init__(
        self,
        wal: Wal,
        ring: SyncRing,
        on_durable: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
        *,
        durable: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(wal, on_durable, on_failure)
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._durable = durable
        self._failed = failed
        self._group: list[Item] = []  # being synced
        self._began = 0.0
        self._gathered: list[Item] = []  # since then
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        super().start()
        self._loop.add_reader(self._ring.descriptor, self._on_readable)

    async def leave_loop(self) -> None:
        """Waits for what is being synced, and for what follows; to be called before ``close``."""
        await self._idle.wait()
        self._loop.remove_reader(self._ring.descriptor)

    def write_at_once(
        self, _hard_state: HardState | None, _first_index: int, _entries: Sequence[Entry]
    ) -> bool:
        """False: the loop need not wait for the disk."""
        return False

    def _pass_on(self, item: Item) -> None:
        if self._group:
            self._gathered.append(item)
        elif self.backlog[0] > 1 or not self._begin([item]):  # the thread has something, or must have this
            super()._pass_on(item)

    def _begin(self, group: list[Item]) -> bool:
        """Write a group and have it synced, if it is the loop's to write; nothing else is under way."""
        size = sum([item[2] for item in group])
        if size >= self.MOST_BYTES or self._wal.last_sync > self.SLOW_SECONDS or self._thread.ident is None:
            return False
        if any(then is not None for *_, then in group):
            return False
        try:
            descriptor = self._wal.write([item[1] for item in group])
            if descriptor is None:
                return False
            self._ring.begin(descriptor)
        except BaseException as error:
            self._failure = error
            raise
        self._group, self._began = group, perf_counter()
        self._idle.clear()
        return True

    def _on_readable(self) -> None:
        result = self._ring.take()
        if result is None:
            return
        group, self._group = self._group, []
        try:
            self._end_sync(result)
            self._finish(group)
            self._go_on()
        except BaseException as error:
            self._failure = error
            self._failed(error)
            return
        finally:
            if not self._group:
                self._idle.set()
        self._durable(max(number or 0 for number, *_ in group))

    def _end_sync(self, result: int) -> None:
        if result < 0:
            raise self._wal.failed(OSError(-result, os.strerror(-result)))
        self._wal.synced(perf_counter() - self._began)

    def _go_on(self) -> None:
        """The disk first: what is durable now may take a while to apply."""
        gathered, self._gathered = self._gathered, []
        if gathered and not self._begin(gathered):
            for item in gathered:
                super()._pass_on(item)
