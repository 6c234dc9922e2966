"""Raft without I/O: feed it ticks, messages and confirmed writes, and do what each Ready says.

Start with `node.RawNode`; the protocol itself begins at `raft.Raft`, which names its parts.
"""

from common_raft.core.config import Config, Rng, Stored
from common_raft.core.configuration import (
    ConfChange,
    ConfChangeKind,
    ConfChanges,
    Configuration,
    Transition,
    decode_changes,
)
from common_raft.core.errors import (
    Compacted,
    InvalidConfChange,
    LogDamaged,
    NoLeader,
    NotLeader,
    ProposalDropped,
    RaftError,
)
from common_raft.core.log import RaftLog
from common_raft.core.messages import (
    NOBODY,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Message,
    SnapshotMeta,
)
from common_raft.core.node import RawNode, Ready, SoftState
from common_raft.core.progress import Progress, ProgressState
from common_raft.core.reads import ReadState
from common_raft.core.role import Role

__all__ = [
    "NOBODY",
    "Compacted",
    "ConfChange",
    "ConfChangeKind",
    "ConfChanges",
    "Config",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "InstallSnapshot",
    "InvalidConfChange",
    "LogDamaged",
    "Message",
    "NoLeader",
    "NotLeader",
    "Progress",
    "ProgressState",
    "ProposalDropped",
    "RaftError",
    "RaftLog",
    "RawNode",
    "ReadState",
    "Ready",
    "Rng",
    "Role",
    "SnapshotMeta",
    "SoftState",
    "Stored",
    "Transition",
    "decode_changes",
]
