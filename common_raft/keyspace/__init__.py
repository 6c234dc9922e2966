"""etcd v2's data model as a replicated state machine: it knows neither Raft nor HTTP."""

from common_raft.keyspace.commands import (
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    Expire,
    Put,
    Set,
    Update,
    put,
)
from common_raft.keyspace.decide import Expired, Result
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.keyspace.keyspace import AsyncKeyspace, Keyspace
from common_raft.keyspace.node import Event, Node, Query, Tree
from common_raft.keyspace.shared_reads import SharedReads, ThreadsSharedReads
from common_raft.keyspace.snapshot import AsyncSnapshot, BadSnapshot, Snapshot
from common_raft.keyspace.stats import StoreStats
from common_raft.keyspace.store import AsyncStore, Store, StoreError, StoreUnavailable
from common_raft.keyspace.watchers import Watch, Watchers

__all__ = [
    "AsyncKeyspace",
    "AsyncSnapshot",
    "AsyncStore",
    "BadSnapshot",
    "Code",
    "Command",
    "CompareAndDelete",
    "CompareAndSwap",
    "Create",
    "CreateInOrder",
    "Delete",
    "EtcdError",
    "Event",
    "Expire",
    "Expired",
    "HashMapStore",
    "Keyspace",
    "Node",
    "Put",
    "Query",
    "Result",
    "Set",
    "SharedReads",
    "Snapshot",
    "Store",
    "StoreError",
    "StoreStats",
    "StoreUnavailable",
    "ThreadsSharedReads",
    "Tree",
    "Update",
    "Watch",
    "Watchers",
    "put",
]
