"""etcd v2's keyspace as a replicated state machine, over any store.

A committed batch is one cycle: read what it may touch, decide (``decide.py``), write what it changed.  The order of
commands is the log's; that all replicas apply the same batches in the same order is for whoever calls to see to.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from common_raft.keyspace.commands import Command, decode, encode
from common_raft.keyspace.decide import Result, View
from common_raft.keyspace.errors import Code, EtcdError
from common_raft.keyspace.node import Event, Node
from common_raft.keyspace.store import AsyncStore, Marks, Store, StoreUnavailable

Answers = list[Sequence[Result] | None]


class Doubtful(NamedTuple):
    """Batches whose write ended without word whether it was made, and what they gave if it was."""

    batches: Sequence[tuple[bytes, bool]]
    applied: int
    answers: Answers


class Batches:
    """Committed batches, decoded: what they may touch, and what they do to it.

    Each comes with whether somebody waits for its results.  Raises msgspec.DecodeError if one is not what
    ``encode`` gave.
    """

    __slots__ = ("_decoded", "keys")

    def __init__(self, batches: Sequence[tuple[bytes, bool]]) -> None:
        self._decoded = [(decode(data), wanted) for data, wanted in batches]
        self.keys = {command.key for commands, _ in self._decoded for command in commands}

    def decide(self, view: View) -> Answers:
        """Carry all commands out on ``view``; for each batch its results, or None if nobody waits for them."""
        answers: Answers = []
        for commands, wanted in self._decoded:
            results = view.run(commands)
            answers.append(results if wanted else None)
        return answers


class _Marked:
    """What keyspaces over blocking and over asynchronous stores share."""

    __slots__ = ("_doubtful", "_marks")

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._doubtful: Doubtful | None = None

    @property
    def index(self) -> int:
        """The etcd index: how many changes this keyspace has seen; a command that fails is none."""
        return self._marks.index

    @property
    def applied(self) -> int:
        """The Raft index of the last entry whose changes the store holds."""
        return self._marks.applied

    def encode(self, commands: Sequence[Command]) -> bytes:
        """A batch of commands as the bytes for one log entry."""
        return encode(commands)

    def _seen(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers | None:
        """What to answer for batches that the store has seen already; None for new ones."""
        doubtful, self._doubtful = self._doubtful, None
        if applied > self._marks.applied:
            return None
        if doubtful is not None and doubtful.applied == applied and doubtful.batches == batches:
            return doubtful.answers
        return [None] * len(batches)

    def _found(self, key: str, node: Node | None) -> Result:
        index = self._marks.index
        if node is None:
            return EtcdError(Code.KEY_NOT_FOUND, key, index)
        # A read beside a write may see its node a moment before the marks have moved.
        return Event("get", node, None, max(index, node.modified_index))


class Keyspace(_Marked):
    """The state machine of a node, over a blocking store.

    One ``apply`` at a time; reads may come from other threads, as far as the store bears it.
    """

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """Carry out committed batches, in log order; ``applied`` is the Raft index of the last of them.

        What the store has seen already is not done again, and has no results any more; except that of a write which
        ended in StoreUnavailable and turns out to have been made.
        Raises msgspec.DecodeError, with nothing applied, if a batch is not what ``encode`` gave, and
        StoreUnavailable.
        """
        store = self._store
        self.settle()
        seen = self._seen(batches, applied)
        if seen is not None:
            return seen
        decoded = Batches(batches)
        view = View(store.get_many(decoded.keys), store.index)
        answers = decoded.decide(view)
        if view.changed:
            upserts, deletes = view.write_set()
            try:
                store.write(upserts, deletes, view.index, applied)
            except StoreUnavailable:
                self._doubtful = Doubtful(batches, applied, answers)
                raise
        return answers

    def settle(self) -> None:
        """Finds out whether a write that ended in StoreUnavailable was made.  Raises StoreUnavailable."""
        if self._doubtful is not None:
            self._store.settle()

    def get(self, key: str) -> Result:
        """Read one key as this replica has it now.  Raises StoreUnavailable."""
        return self._found(key, self._store.get(key))

    def get_many(self, keys: Sequence[str]) -> list[Result]:
        """Read several keys with one request to the store.  Raises StoreUnavailable."""
        nodes = self._store.get_many(keys)
        return [self._found(key, nodes[key]) for key in keys]

    def read(self, key: str, done: Callable[[Result | StoreUnavailable], None]) -> None:
        """``get`` for the web layer: ``done`` is called before this returns."""
        try:
            node = self._store.get(key)
        except StoreUnavailable as error:
            done(error)
        else:
            done(self._found(key, node))


class AsyncKeyspace(_Marked):
    """The state machine of a node, over an asynchronous store.  One ``apply`` at a time."""

    __slots__ = ("_store",)

    def __init__(self, store: AsyncStore) -> None:
        super().__init__(store)
        self._store = store

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """See `Keyspace.apply`."""
        store = self._store
        await self.settle()
        seen = self._seen(batches, applied)
        if seen is not None:
            return seen
        decoded = Batches(batches)
        view = View(await store.get_many(decoded.keys), store.index)
        answers = decoded.decide(view)
        if view.changed:
            upserts, deletes = view.write_set()
            try:
                await store.write(upserts, deletes, view.index, applied)
            except StoreUnavailable:
                self._doubtful = Doubtful(batches, applied, answers)
                raise
        return answers

    async def settle(self) -> None:
        """See `Keyspace.settle`."""
        if self._doubtful is not None:
            await self._store.settle()

    async def get_many(self, keys: Sequence[str]) -> list[Result]:
        """Read several keys with one request to the store.  Raises StoreUnavailable."""
        nodes = await self._store.get_many(keys)
        return [self._found(key, nodes[key]) for key in keys]
