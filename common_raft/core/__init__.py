"""Raft without I/O: feed it ticks, messages and confirmed writes, and do what each Ready says.

Start with `node.RawNode`; the protocol itself is `raft.Raft`.
"""

from common_raft.core.errors import LogDamaged, NoLeader, NotLeader, ProposalDropped, RaftError
from common_raft.core.log import RaftLog
from common_raft.core.messages import NOBODY, Entry, EntryKind, HardState, Message
from common_raft.core.node import RawNode, Ready, SoftState
from common_raft.core.raft import Config, ReadState, Rng, Role, Stored

__all__ = [
    "NOBODY",
    "Config",
    "Entry",
    "EntryKind",
    "HardState",
    "LogDamaged",
    "Message",
    "NoLeader",
    "NotLeader",
    "ProposalDropped",
    "RaftError",
    "RaftLog",
    "RawNode",
    "ReadState",
    "Ready",
    "Rng",
    "Role",
    "SoftState",
    "Stored",
]
