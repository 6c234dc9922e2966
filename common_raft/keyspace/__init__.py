"""etcd v2's data model as a replicated state machine: it knows neither Raft nor HTTP."""

from .commands import Command, Create, Delete, Set, Update
from .decide import Result
from .errors import Code, EtcdError
from .hashmap import HashMapStore
from .keyspace import Keyspace
from .node import Event, Node
from .store import Store

__all__ = [
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
    "Store",
    "Update",
]
