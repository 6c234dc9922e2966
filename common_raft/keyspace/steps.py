"""What a store is asked to carry out a batch, or to answer reads: once for stores that block and that are awaited.

A procedure is a generator: it yields calls of the store, as functions of it, and is sent what they gave.  `run` and
`run_awaited` see to the calls.  What a store raises ends the procedure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from common_raft.keyspace.commands import Command, Delete, Expire
from common_raft.keyspace.decide import Expired, Flat, NeedsTree, Result, View, run_flat
from common_raft.keyspace.errors import EtcdError
from common_raft.keyspace.node import ROOT, Event, Node, Query, Tree, ancestors_of, parent_of

T = TypeVar("T")
#: A call of a store, of which it is not known here whether it blocks or has to be awaited.
Call: TypeAlias = Callable[[Any], Any]
Steps: TypeAlias = Generator[Call, Any, T]


def run(steps: Steps[T], store: object) -> T:
    """Carries a procedure out on a blocking store."""
    try:
        call = next(steps)
        while True:
            call = steps.send(call(store))
    except StopIteration as end:
        result: T = end.value
        return result


async def run_awaited(steps: Steps[T], store: object) -> T:
    """`run` for a store that is awaited."""
    try:
        call = next(steps)
        while True:
            call = steps.send(await call(store))
    except StopIteration as end:
        result: T = end.value
        return result


# --- batches ------------------------------------------------------------------------------------------------------


def flat_keys(
    batches: Sequence[tuple[bytes, bool]], commands: Sequence[Sequence[Command]]
) -> Collection[str] | None:
    """The keys of all commands, if they are right below the root, so that `run_flat` may be tried; else None."""
    keys = {command.key for each in commands for command in each}
    # Each key begins with a slash.  Most values have none; if there is one, the keys themselves are looked at.
    slashes = 0
    for data, _ in batches:
        slashes += data.count(b"/")
    for each in commands:
        slashes -= len(each)
    if (slashes and "".join(keys).count("/") != len(keys)) or "/" in keys:
        return None
    return keys


class Batches:
    """Committed batches that were decoded, and are decided on, written, and told to watchers.

    Once decided: ``view`` says what is to be written, and ``results`` has those of each batch.  ``looked``: whether
    it was found out when the first node expires of those that were there before and are not due yet; then that is
    ``expires_next``, or None if there is none.
    """

    __slots__ = ("_batches", "commands", "expires_next", "looked", "results", "view")

    view: View
    results: list[list[Result]]

    def __init__(self, batches: Sequence[tuple[bytes, bool]], commands: list[list[Command]]) -> None:
        """``commands`` are those of the batches, each of which comes with whether somebody waits for its results."""
        self._batches = batches
        self.commands = commands
        self.looked = False
        self.expires_next: int | None = None

    @classmethod
    def decided(
        cls, batches: Sequence[tuple[bytes, bool]], commands: list[list[Command]], flat: Flat, base: int
    ) -> Batches:
        """``base`` is the etcd index before them."""
        self = cls(batches, commands)
        self._take(flat, base)
        return self

    def _take(self, flat: Flat, base: int) -> None:
        self.results = flat.results
        if flat.view is not None:
            self.view = flat.view
        else:
            self.view = View({}, base)
            self.view.changed = flat.changed
        self.view.index = flat.etcd_index

    @property
    def answers(self) -> list[Sequence[Result] | None]:
        """For each batch its results, or None if nobody waits for them."""
        return [
            results if wanted else None
            for results, (_, wanted) in zip(self.results, self._batches, strict=True)
        ]

    @property
    def events(self) -> list[Event]:
        """What was changed, in its order."""
        events: list[Event] = []
        for results in self.results:
            for result in results:
                if isinstance(result, Event):
                    events.append(result)
                elif isinstance(result, Expired):
                    events += result.events
        return events

    def decide(self, index: int) -> Steps[None]:
        """Reads what the commands may touch, and carries them out on that; ``index`` is the etcd index."""
        keys = flat_keys(self._batches, self.commands)
        if keys is not None:
            nodes = yield _get_many(keys)
            try:
                self._take(run_flat(self.commands, nodes, index), index)
            except NeedsTree:
                pass
            else:
                return
        yield from self._decide_in_tree(index)

    def _decide_in_tree(self, index: int) -> Steps[None]:
        nodes = yield from self._path_nodes()
        latest = max((command.now for command in self._all(Expire)), default=None)
        due: list[Node] = []
        if latest is not None:
            due = yield lambda store: store.expired(latest)
            self.expires_next = yield lambda store: store.next_expiration(latest)
            self.looked = True
            nodes |= {node.key: node for node in due}
        yield from self._read_below(nodes, due)
        while True:
            self.view = view = View(dict(nodes), index)
            self.results = [view.run(commands) for commands in self.commands]
            found = (yield _get_many(view.assumed)) if view.assumed else {}
            if not any(node is not None for node in found.values()):
                return
            nodes |= found  # not free after all: now that this is known, once more from the beginning

    def _path_nodes(self) -> Steps[dict[str, Node | None]]:
        """What is at the commands' keys, and at the directories above."""
        own = {command.key for commands in self.commands for command in commands}
        keys = own.union(*map(ancestors_of, own))
        keys.discard("/")
        nodes: dict[str, Node | None] = yield _get_many(keys)
        nodes["/"] = ROOT
        return nodes

    def _read_below(self, nodes: dict[str, Node | None], due: Sequence[Node]) -> Steps[None]:
        """Adds what is in directories that may be removed: see `View`."""
        removals = [
            command for command in self._all(Delete) if command.key != "/" and _is_dir(nodes[command.key])
        ]
        whole = {command.key for command in removals if command.recursive}
        whole |= {node.key for node in due if node.dir}
        for key in whole:
            if whole.isdisjoint(ancestors_of(key)):
                below = yield _descendants(key)
                nodes |= {node.key: node for node in below}
        enough = (
            sum(map(len, self.commands)) + len(due) + 1
        )  # each removes one of a directory's children at most
        for key in {command.key for command in removals if command.dir} - whole:
            children = yield _children(key, enough)
            nodes |= {node.key: node for node in children}

    def _all(self, kind: type[T]) -> Iterable[T]:
        return (command for commands in self.commands for command in commands if isinstance(command, kind))


def _is_dir(node: Node | None) -> bool:
    return node is not None and node.dir


def _get_many(keys: Collection[str]) -> Call:
    return lambda store: store.get_many(keys)


def _descendants(key: str) -> Call:
    return lambda store: store.descendants(key)


def _children(key: str, limit: int) -> Call:
    return lambda store: store.children(key, limit)


def _listing(key: str, recursive: bool) -> Call:
    return lambda store: store.listing(key, recursive)


# --- reads --------------------------------------------------------------------------------------------------------


def find(queries: Sequence[Query | str], index: int) -> Steps[list[Result]]:
    """Answers reads; a key by itself is a `Query` of no more than that.

    ``index`` is the etcd index before anything was read: who goes on from there with a watch misses nothing.
    """
    asked = [Query(query) if isinstance(query, str) else query for query in queries]
    nodes = yield _get_many([key for key in dict.fromkeys(query.key for query in asked) if key != "/"])
    nodes["/"] = ROOT
    listings: dict[tuple[str, bool], list[Node]] = {}
    for query in asked:
        if _is_dir(nodes[query.key]) and (query.key, query.recursive) not in listings:
            found = yield _listing(query.key, query.recursive)
            listings[query.key, query.recursive] = found
    missing = {query.key for query in asked if nodes[query.key] is None}
    missing |= {
        key for (key, _), found in listings.items() if key != "/" and not (found and found[0].key == key)
    }
    above = set().union(*map(ancestors_of, missing))
    paths: dict[str, Node | None] = (yield _get_many(above)) if above else {}
    results: list[Result] = []
    for query in asked:
        key = query.key
        node = nodes[key]
        if key in missing:
            results.append(_not_found(key, paths, index))
        elif node.dir:
            results.append(_listed(listings[key, query.recursive], query, index))
        else:
            results.append(found_file(node, index))
    return results


def found_file(node: Node, index: int) -> Event:
    # A read beside a write may see its node a moment before the marks have moved.
    modified = node.modified_index
    return Event("get", node, None, modified if modified > index else index)


def _not_found(key: str, nodes: dict[str, Node | None], index: int) -> EtcdError:
    view = View(nodes, index)
    return view.refuse(*view.missing(key))


def _listed(found: Sequence[Node], query: Query, index: int) -> Event:
    node = ROOT if query.key == "/" else found[0]
    below = found if query.key == "/" else found[1:]
    index = max([index, *(each.modified_index for each in found)])
    if not node.dir:  # it has become a file meanwhile
        return found_file(node, index)
    return Event("get", node, None, index, _trees(query, below))


def _trees(query: Query, below: Iterable[Node]) -> list[Tree]:
    """Nodes that come in the order of their keys, as trees, without those that are hidden and what is in them."""
    top: list[Tree] = []
    lists = {query.key: top}
    for node in below:
        key = node.key
        parent = parent_of(key)
        siblings = lists.get(parent)
        if siblings is None or key[len(parent) if parent == "/" else len(parent) + 1] in "_/":
            continue
        nodes: list[Tree] | None = None
        if node.dir and query.recursive:
            nodes = lists[key] = []
        siblings.append(Tree(node, nodes))
    return top
