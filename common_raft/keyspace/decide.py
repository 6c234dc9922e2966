"""What each command does, as pure functions: from the nodes that were read to the nodes to write, and a result.

Nothing here reads or writes a store, asks for the time or knows who waits, so that replicas agree whatever store they
are on. The rules are those of etcd 3.5, ``server/etcdserver/api/v2store/store.go``.
"""

from collections.abc import Callable, Sequence
from typing import Any

from common_raft.keyspace.commands import Command, Create, Delete, Set, Update
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.node import Event, Node

Result = Event | EtcdError


class View:
    """The nodes that a batch may touch, as its commands have left them so far.

    ``nodes`` begins as the read set. ``changed`` is the write set: for each key written its node, or None if it is
    gone.
    """

    __slots__ = ("changed", "index", "nodes")

    def __init__(self, nodes: dict[str, Node | None], index: int) -> None:
        self.nodes = nodes
        self.changed: dict[str, Node | None] = {}
        self.index = index

    def run(self, commands: Sequence[Command]) -> list[Result]:
        """Carry the commands out in order; one result each."""
        return [_DECISIONS[type(command)](self, command) for command in commands]

    def write_set(self) -> tuple[list[Node], list[str]]:
        """The nodes to put and the keys to remove."""
        changed = self.changed
        upserts = [node for node in changed.values() if node is not None]
        if len(upserts) == len(changed):
            return upserts, []
        return upserts, [key for key, node in changed.items() if node is None]


def _set(view: View, command: Set) -> Result:
    key = command.key
    view.index = index = view.index + 1
    previous = view.nodes[key]
    view.nodes[key] = view.changed[key] = node = Node(key, command.value, index, index)
    return Event("set", node, previous, index)


def _create(view: View, command: Create) -> Result:
    key = command.key
    if view.nodes[key] is not None:
        return EtcdError(Code.NODE_EXISTS, key, view.index)
    view.index = index = view.index + 1
    view.nodes[key] = view.changed[key] = node = Node(key, command.value, index, index)
    return Event("create", node, None, index)


def _update(view: View, command: Update) -> Result:
    key = command.key
    previous = view.nodes[key]
    if previous is None:
        return EtcdError(Code.KEY_NOT_FOUND, key, view.index)
    view.index = index = view.index + 1
    view.nodes[key] = view.changed[key] = node = Node(key, command.value, index, previous.created_index)
    return Event("update", node, previous, index)


def _delete(view: View, command: Delete) -> Result:
    key = command.key
    previous = view.nodes[key]
    if previous is None:
        return EtcdError(Code.KEY_NOT_FOUND, key, view.index)
    view.index = index = view.index + 1
    view.nodes[key] = view.changed[key] = None
    return Event("delete", Node(key, None, index, previous.created_index), previous, index)


_DECISIONS: dict[type[Command], Callable[[View, Any], Result]] = {
    Set: _set,
    Delete: _delete,
    Create: _create,
    Update: _update,
}
