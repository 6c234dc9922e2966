"""What goes with a snapshot besides the state machine's own bytes: who took part then."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from common_raft.core import Configuration, SnapshotMeta
from common_raft.storage import Recovered, SnapshotMark


class _Meta(Struct, frozen=True, array_like=True):
    """The ``meta`` of a `SnapshotMark`.  ``members`` is the driver's table of them, encoded."""

    configuration: Configuration
    members: bytes = b""


def mark_of(meta: SnapshotMeta, members: bytes) -> SnapshotMark:
    """The mark that the storage keeps for a snapshot which the core describes so."""
    return SnapshotMark(meta.index, meta.term, msgspec.msgpack.encode(_Meta(meta.configuration, members)))


def meta_of(mark: SnapshotMark) -> SnapshotMeta:
    """What the core is told of a snapshot.  Raises msgspec.MsgspecError."""
    return SnapshotMeta(mark.index, mark.term, _decode(mark).configuration)


def members_of(mark: SnapshotMark) -> bytes:
    """The table of members as it was then.  Raises msgspec.MsgspecError."""
    return _decode(mark).members


def _decode(mark: SnapshotMark) -> _Meta:
    return msgspec.msgpack.decode(mark.meta, type=_Meta)


class StoredLog:
    """What a log held when it was opened, as the core reads it.  Raises UnusableSnapshot."""

    def __init__(self, recovered: Recovered) -> None:
        self.hard_state = recovered.hard_state
        self.first_index = recovered.first_index
        self.entries = recovered.entries
        self.snapshot = None if recovered.snapshot is None else meta_of(recovered.snapshot)
