"""etcd v2's data model as a replicated state machine: it knows neither Raft nor HTTP."""

from common_raft.keyspace.commands import Command, Create, Delete, Set, Update
from common_raft.keyspace.decide import Result
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.hashmap import HashMapStore
from common_raft.keyspace.keyspace import AsyncKeyspace, Keyspace
from common_raft.keyspace.node import Event, Node
from common_raft.keyspace.shared_reads import SharedReads
from common_raft.keyspace.store import AsyncStore, Store, StoreError, StoreUnavailable

__all__ = [
    "AsyncKeyspace",
    "AsyncStore",
    "Code",
    "Command",
    "Create",
    "Delete",
    "EtcdError",
    "Event",
    "HashMapStore",
    "Keyspace",
    "Node",
    "Result",
    "Set",
    "SharedReads",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "Update",
]
