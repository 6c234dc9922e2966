"""Nodes with a fault built in, for tests that must find it, or with a limit that a test can reach.

``python -m common_raft.tests.faults.broken_node FAULT VARIANT FLAG ...``
"""

from __future__ import annotations

import errno
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence

from common_raft.drivers import proposals
from common_raft.storage.records import Record
from common_raft.storage.ring import SyncRing
from common_raft.storage.wal import Wal

#: How long what was called durable stays in memory.
FORGETFUL_SECONDS = 5.0
#: Commands that wait at a node with little room.
LITTLE_ROOM = 64
#: Writes that succeed before the disk fails.
GOOD_SYNCS = 60


def acknowledge_early() -> None:
    """The log says that it is durable at once, and is written later: what a crash then takes was promised."""
    write = Wal.append
    held: list[Record] = []
    last_write = time.monotonic()

    def append(self: Wal, batch: Sequence[Record]) -> None:
        nonlocal last_write
        held.extend(batch)
        if time.monotonic() - last_write > FORGETFUL_SECONDS:
            write(self, held)
            held.clear()
            last_write = time.monotonic()

    Wal.append = append  # type: ignore[method-assign]
    Wal.write = lambda _, __: None  # type: ignore[method-assign]  # so that all is appended


def fail_fsync() -> None:
    """From some moment on the disk cannot say that it has written, whoever asks it."""
    sync, take = os.fdatasync, SyncRing.take
    left = GOOD_SYNCS

    def fails() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def fdatasync(descriptor: int) -> None:
        if fails():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    def take_failure(self: SyncRing) -> int | None:
        result = take(self)
        return -errno.EIO if result is not None and fails() else result

    os.fdatasync = fdatasync
    SyncRing.take = take_failure  # type: ignore[method-assign]


def little_room() -> None:
    """Few commands may wait, so that a few hundred clients are too many."""
    proposals.MAX_COMMANDS = LITTLE_ROOM


FAULTS: dict[str, Callable[[], None]] = {
    "acknowledge-early": acknowledge_early,
    "fail-fsync": fail_fsync,
    "little-room": little_room,
}

if __name__ == "__main__":
    fault, variant = sys.argv[1:3]
    del sys.argv[1:3]
    FAULTS[fault]()
    runpy.run_module(variant, run_name="__main__", alter_sys=True)
