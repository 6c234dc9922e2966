"""What each command does, as pure functions: from the nodes that were read to the nodes to write, and a result.

Nothing here reads or writes a store, asks for the time or knows who waits, so that replicas agree whatever store they
are on.  The rules are those of etcd 3.5, ``server/etcdserver/api/v2store/store.go`` and ``apply_v2.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

from msgspec import Struct

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
)
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.node import Event, Node, ancestors_of, parent_of, to_bytes

#: Nodes that a command would have expire before the year 2000 are made to stay: ``minExpireTime`` in store.go.
FIRST_EXPIRATION = 946_684_800 * 10**9


class Expired(Struct, frozen=True, gc=False):
    """The result of an `Expire`: an event for each node that had expired, but not for those inside of it."""

    events: list[Event]


Result = Event | EtcdError | Expired


class NeedsTree(Exception):
    """`run_flat` was given a command that is not about a single file, or none, right below the root."""


class View:
    """The nodes that a batch may touch, as its commands have left them so far.

    ``nodes`` begins as the read set: for each key of a command, and each directory above it, what is there.  Below
    what is removed with all that is in it, all of it is known; below a directory that is removed if it is empty, as
    much as the batch could remove, and one.  ``changed`` is the write set: for each key written its node, or None if
    it is gone.

    ``removed``: for the events, by their index, that removed a directory, the keys of what was in it.
    ``expires``: the first expiration that was written.
    ``assumed``: keys that are not in the read set, since only the decision named them; they were taken to be free.
    They are None if there are none.
    """

    # Most views come to have none of these, and most have few commands: that is why there are no slots.
    removed: dict[int, list[str]] | None = None
    expires: int | None = None
    assumed: set[str] | None = None
    _removes = False  # whether a node was removed, though it may have been made again
    # Both are made when they are first needed, and kept up to date from then on.
    _below: dict[str, dict[str, None]] | None = None  # of each parent, the keys right below it
    _due: list[tuple[int, bytes, str]] | None = None  # a heap; nodes that have changed since are in it too

    def __init__(self, nodes: dict[str, Node | None], index: int) -> None:
        self.nodes = nodes
        self.changed: dict[str, Node | None] = {}
        self.index = self.base = index

    def run(self, commands: Sequence[Command]) -> list[Result]:
        """Carry the commands out in order; one result each."""
        return [_DECISIONS[type(command)](self, command) for command in commands]

    def write_set(self) -> tuple[Iterable[Node], Iterable[str]]:
        """The nodes to put and the keys to remove."""
        changed = self.changed
        if not self._removes:
            return changed.values(), ()  # type: ignore[return-value]  # nothing but nodes
        upserts = [node for node in changed.values() if node is not None]
        return upserts, [key for key, node in changed.items() if node is None]

    # --- what is there ----------------------------------------------------------------------------------------

    def missing(self, key: str) -> tuple[Code, str]:
        """Why there is no node at ``key``, and which path is the cause (store.go, internalGet)."""
        for above in ancestors_of(key):
            node = self.nodes[above]
            if node is None:
                return Code.KEY_NOT_FOUND, above
            if not node.dir:
                return Code.NOT_DIR, above
        return Code.KEY_NOT_FOUND, key

    def refuse(self, code: Code, cause: str) -> EtcdError:
        return EtcdError(code, cause, self.index)

    def has_children(self, key: str) -> bool:
        return bool(self._children().get(key))

    def descendants(self, key: str) -> list[str]:
        """All keys below ``key``, the nearer ones first."""
        children = self._children()
        found: list[str] = list(children.get(key, ()))
        for each in found:  # which grows meanwhile
            found += children.get(each, ())
        return found

    def _children(self) -> dict[str, dict[str, None]]:
        if self._below is None:
            self._below = {}
            for key, node in self.nodes.items():
                if node is not None:
                    self._below.setdefault(parent_of(key), {})[key] = None
        return self._below

    def next_due(self, now: int) -> Node | None:
        """The node that expires first, if that is not later than ``now``; it is to be removed."""
        if self._due is None:
            self._due = [
                (node.expiration, to_bytes(node.key), node.key)
                for node in self.nodes.values()
                if node is not None and node.expiration is not None
            ]
            heapify(self._due)
        while self._due and self._due[0][0] <= now:
            expiration, _, key = heappop(self._due)
            node = self.nodes[key]
            if node is not None and node.expiration == expiration:
                return node
        return None

    # --- changes ----------------------------------------------------------------------------------------------

    def put(self, node: Node) -> None:
        key, expiration = node.key, node.expiration
        self.nodes[key] = self.changed[key] = node
        if self._below is not None:
            self._below.setdefault(parent_of(key), {})[key] = None
        if expiration is not None:
            if self.expires is None or expiration < self.expires:
                self.expires = expiration
            if self._due is not None:
                heappush(self._due, (expiration, to_bytes(key), key))

    def assume(self, key: str) -> None:
        if self.assumed is None:
            self.assumed = set()
        self.assumed.add(key)

    def make_parents(self, key: str, index: int) -> None:
        """The directories above a key that is about to be made with this index."""
        for above in ancestors_of(key):
            if self.nodes[above] is None:
                self.put(Node(above, None, index, index, dir=True))

    def remove(self, keys: Iterable[str]) -> None:
        self._removes = True
        for key in keys:
            self.nodes[key] = self.changed[key] = None
            if self._below is not None:
                self._below.get(parent_of(key), {}).pop(key, None)


class Flat(NamedTuple):
    """What `run_flat` gives: of each batch its results; the write set, as in `View`; and the etcd index.

    ``view`` is None if all commands were a `Set` that succeeded.
    """

    results: list[list[Result]]
    changed: dict[str, Node | None]
    etcd_index: int
    view: View | None


def run_flat(batches: Sequence[Sequence[Command]], nodes: dict[str, Node | None], index: int) -> Flat:
    """Carries out batches of commands whose keys are all right below the root: nothing else is above them.

    ``nodes`` are those at the keys, which are changed.  Raises NeedsTree if somebody asks what is below.
    Nearly all commands are a `Set` of such a key, and so this is where the time goes.
    """
    changed: dict[str, Node | None] = {}
    view = None
    all_results: list[list[Result]] = []
    for commands in batches:
        results: list[Result] = []
        append = results.append
        for command in commands:
            if type(command) is Set:
                key = command.key
                previous = nodes[key]
                if previous is None or not previous.dir:
                    if previous is not None:
                        key = previous.key  # the same text, which a store in memory has already
                    index += 1
                    nodes[key] = changed[key] = node = Node(key, command.value, index, index)
                    append(Event("set", node, previous, index))
                    continue
            if view is None:
                view = View(nodes, index)
                view.changed = changed
            view.index = index
            append(_FLAT_DECISIONS[type(command)](view, command))
            index = view.index
        all_results.append(results)
    return Flat(all_results, changed, index, view)


# --- making nodes -------------------------------------------------------------------------------------------------


def _set(view: View, command: Set) -> Result:
    return _make(view, "set", command.key, command.value, None, is_dir=False, replace=True)


def _put(view: View, command: Put) -> Result:
    key, value = command.key, command.value
    if command.refresh:
        previous = view.nodes[key]
        if previous is None:
            return view.refuse(*view.missing(key))
        value = previous.value or ""
    return _make(
        view,
        "set",
        key,
        value,
        command.expiration,
        is_dir=command.dir,
        replace=True,
        refresh=command.refresh,
    )


def _create(view: View, command: Create) -> Result:
    return _make(view, "create", command.key, command.value, command.expiration, is_dir=command.dir)


def _create_in_order(view: View, command: CreateInOrder) -> Result:
    key = f"{command.key.rstrip('/')}/{view.index + 1:020d}"
    if key not in view.nodes:
        view.nodes[key] = None
        parent = view.nodes[command.key]
        if parent is not None and parent.dir and parent.created_index <= view.base:
            view.assume(key)  # else there is nothing in it but what this batch has made
    return _make(view, "create", key, command.value, command.expiration, is_dir=command.dir)


def _make(
    view: View,
    action: str,
    key: str,
    value: str,
    expiration: int | None,
    *,
    is_dir: bool,
    replace: bool = False,
    refresh: bool = False,
) -> Result:
    """store.go, internalCreate: with the directories that are missing above it."""
    if key == "/":
        return view.refuse(Code.ROOT_READ_ONLY, "/")
    previous = view.nodes[key]
    if previous is None:
        code, cause = view.missing(key)
        if code is Code.NOT_DIR:
            return view.refuse(code, cause)
    elif not replace:
        return view.refuse(Code.NODE_EXISTS, key)
    elif previous.dir:
        return view.refuse(Code.NOT_FILE, key)
    else:
        key = previous.key  # the same text, which a store in memory has already
    if expiration is not None and expiration < FIRST_EXPIRATION:
        expiration = None
    view.index = index = view.index + 1
    if previous is None:
        view.make_parents(key, index)
    node = Node(key, None if is_dir else value, index, index, is_dir, expiration)
    view.put(node)
    return Event(action, node, previous, index, refresh=refresh)


# --- changing files -----------------------------------------------------------------------------------------------


def _update(view: View, command: Update) -> Result:
    key = command.key
    previous = _found(view, key)
    if isinstance(previous, EtcdError):
        return previous
    if previous.dir:
        if command.value:
            return view.refuse(Code.NOT_FILE, key)
        # etcd's own words, with its name for the root of the keys: it means to change the ttl, and cannot.
        return EtcdError(Code.RAFT_INTERNAL, f"nodePath /1{key} : Not a file ()")
    return _change(view, "update", previous, command)


def _compare_and_swap(view: View, command: CompareAndSwap) -> Result:
    previous = _compared(view, command)
    if isinstance(previous, EtcdError):
        return previous
    return _change(view, "compareAndSwap", previous, command)


def _change(view: View, action: str, previous: Node, command: Update | CompareAndSwap) -> Result:
    """A file gets another value, or keeps it, and another expiration, or none."""
    value = previous.value if command.refresh else command.value
    view.index = index = view.index + 1
    node = Node(previous.key, value, index, previous.created_index, expiration=command.expiration)
    view.put(node)
    return Event(action, node, previous, index, refresh=command.refresh)


def _found(view: View, key: str) -> Node | EtcdError:
    """The node that is to be changed or removed; the root is none."""
    if key == "/":
        return view.refuse(Code.ROOT_READ_ONLY, "/")
    node = view.nodes[key]
    return view.refuse(*view.missing(key)) if node is None else node


def _compared(view: View, command: CompareAndSwap | CompareAndDelete) -> Node | EtcdError:
    """The file that is to be changed or removed, if it is as it should be."""
    node = _found(view, command.key)
    if isinstance(node, EtcdError):
        return node
    if node.dir:
        return view.refuse(Code.NOT_FILE, command.key)
    cause = _differs(node, command)
    return view.refuse(Code.TEST_FAILED, cause) if cause else node


def _differs(node: Node, command: CompareAndSwap | CompareAndDelete) -> str:
    """What is not as it should be (store.go, getCompareFailCause); empty if all is."""
    failing = []
    if command.prev_value not in ("", node.value):
        failing.append(f"[{command.prev_value} != {node.value}]")
    if command.prev_index not in (0, node.modified_index):
        failing.append(f"[{command.prev_index} != {node.modified_index}]")
    return " ".join(failing)


# --- removing nodes -----------------------------------------------------------------------------------------------


def _delete(view: View, command: Delete) -> Result:
    key = command.key
    previous = _found(view, key)
    if isinstance(previous, EtcdError):
        return previous
    if previous.dir and not command.recursive:
        if not command.dir:
            return view.refuse(Code.NOT_FILE, key)
        if view.has_children(key):
            return view.refuse(Code.DIR_NOT_EMPTY, key)
    return _remove(view, "delete", previous)


def _flat_delete(view: View, command: Delete) -> Result:
    previous = view.nodes[command.key]
    if previous is not None and previous.dir:
        raise NeedsTree
    return _delete(view, command)


def _compare_and_delete(view: View, command: CompareAndDelete) -> Result:
    if command.key == "/":
        return view.refuse(Code.NOT_FILE, "")  # etcd cuts its own name for the root off, which is all of it
    previous = _compared(view, command)
    if isinstance(previous, EtcdError):
        return previous
    return _remove(view, "compareAndDelete", previous)


def _expire(view: View, command: Expire) -> Result:
    events = []
    while (node := view.next_due(command.now)) is not None:
        events.append(_remove(view, "expire", node))
    return Expired(events)


def _remove(view: View, action: str, previous: Node) -> Event:
    view.index = index = view.index + 1
    key = previous.key
    if previous.dir:
        below = view.descendants(key)
        view.remove(below)
        if view.removed is None:
            view.removed = {}
        view.removed[index] = below
    view.remove((key,))
    gone = Node(key, None, index, previous.created_index, previous.dir)
    return Event(action, gone, previous, index)


def _needs_tree(_view: View, _command: Command) -> Result:
    raise NeedsTree


_Decision = Callable[[Any, Any], Result]

_DECISIONS: dict[type[Command], _Decision] = {
    Set: _set,
    Put: _put,
    Create: _create,
    CreateInOrder: _create_in_order,
    Update: _update,
    CompareAndSwap: _compare_and_swap,
    Delete: _delete,
    CompareAndDelete: _compare_and_delete,
    Expire: _expire,
}
_FLAT_DECISIONS: dict[type[Command], _Decision] = {
    **_DECISIONS,
    Delete: _flat_delete,
    CreateInOrder: _needs_tree,
    Expire: _needs_tree,
}
