"""What a node keeps: the durable log (``Wal``), the thread that writes it (``WalWriter``), a log in memory.

Hard state and entries are on disk before the answers that promise them go out.  A write that a crash interrupted is
cut off and reported; any other damage is refused with the file and the offset.  Every ``StorageError`` is one line
for the operator.
"""

from .errors import (
    CorruptLog,
    DirectoryInUse,
    ForeignDirectory,
    OutOfSpace,
    StorageError,
    UnreadableLog,
    UnsupportedVersion,
    WriteFailed,
    WriterOverloaded,
    WriterStopped,
)
from .memory import MemoryStorage
from .records import Record
from .recovery import Recovered, TornTail
from .wal import Wal
from .writer import WalWriter

__all__ = [
    "CorruptLog",
    "DirectoryInUse",
    "ForeignDirectory",
    "MemoryStorage",
    "OutOfSpace",
    "Record",
    "Recovered",
    "StorageError",
    "TornTail",
    "UnreadableLog",
    "UnsupportedVersion",
    "Wal",
    "WalWriter",
    "WriteFailed",
    "WriterOverloaded",
    "WriterStopped",
]
