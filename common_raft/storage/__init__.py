"""What a node keeps: the durable log (``Wal``), the thread that writes it (``WalWriter``), snapshots (``Snapshots``).

Hard state and entries are on disk before the answers that promise them go out.  A write that a crash interrupted is
cut off and reported; any other damage is refused with the file and the offset.  Every ``StorageError`` is one line
for the operator.
"""

from common_raft.storage.errors import (
    CorruptLog,
    DirectoryInUse,
    ForeignDirectory,
    OutOfSpace,
    SnapshotNotWritten,
    StorageError,
    UnreadableLog,
    UnsupportedVersion,
    UnusableSnapshot,
    WriteFailed,
    WriterOverloaded,
    WriterStopped,
)
from common_raft.storage.memory import MemoryStorage
from common_raft.storage.records import Record, SnapshotMark
from common_raft.storage.recovery import Recovered, TornTail
from common_raft.storage.snapshots import SnapshotFile, SnapshotReader, Snapshots, SnapshotSink
from common_raft.storage.wal import Wal
from common_raft.storage.writer import WalWriter

__all__ = [
    "CorruptLog",
    "DirectoryInUse",
    "ForeignDirectory",
    "MemoryStorage",
    "OutOfSpace",
    "Record",
    "Recovered",
    "SnapshotFile",
    "SnapshotMark",
    "SnapshotNotWritten",
    "SnapshotReader",
    "SnapshotSink",
    "Snapshots",
    "StorageError",
    "TornTail",
    "UnreadableLog",
    "UnsupportedVersion",
    "UnusableSnapshot",
    "Wal",
    "WalWriter",
    "WriteFailed",
    "WriterOverloaded",
    "WriterStopped",
]
