"""etcd v2's keyspace as a replicated state machine, over any store.

A committed batch is one cycle: read what it may touch, decide (``decide.py``), write what it changed.  The order of
commands is the log's; that all replicas apply the same batches in the same order is for whoever calls to see to.
"""

import time
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from common_raft.keyspace.commands import Command, decode, encode
from common_raft.keyspace.decide import NeedsTree, Result, run_flat
from common_raft.keyspace.node import Event, Query
from common_raft.keyspace.snapshot import AsyncSnapshot, ChunkDecoder, Snapshot
from common_raft.keyspace.stats import StoreStats
from common_raft.keyspace.steps import Batches, find, flat_keys, found_file, run, run_awaited
from common_raft.keyspace.store import (
    AsyncReplacement,
    AsyncStore,
    Marks,
    Replacement,
    Store,
    StoreUnavailable,
)
from common_raft.keyspace.watchers import Watchers

Answers = list[Sequence[Result] | None]


class Carried(NamedTuple):
    """What was carried out: the answers, and what watchers are yet to be told.

    ``replaced``: by what the state was replaced before that, without word until now.
    """

    answers: Answers
    done: Sequence[Batches] = ()
    replaced: "Replaced | None" = None


class Doubtful(NamedTuple):
    """A write that ended without word whether it was made."""

    batches: Sequence[tuple[bytes, bool]]
    applied: int
    decided: Batches


class Replaced(NamedTuple):
    """A snapshot: where it stands, and the events that are in it."""

    etcd_index: int
    applied: int
    history: Sequence[Event]


class _Marked:
    """What keyspaces over blocking and over asynchronous stores share."""

    __slots__ = ("_doubtful", "_marks", "_stats", "expires", "watchers")

    def __init__(self, marks: Marks, clock: Callable[[], int]) -> None:
        self._marks = marks
        self._doubtful: Doubtful | Replaced | None = None  # which was made, or not
        self._stats = StoreStats()
        self.watchers = Watchers(marks.index, clock)
        #: No node expires before this, in nanoseconds since 1970; None: none has a ttl.
        self.expires: int | None = 0 if marks.index else None  # 0: that was not looked up yet

    @property
    def index(self) -> int:
        """The etcd index: how many changes this keyspace has seen; a command that fails is none."""
        return self._marks.index

    @property
    def applied(self) -> int:
        """The Raft index of the last entry whose changes the store holds."""
        return self._marks.applied

    @property
    def expiring(self) -> bool:
        """Whether a node may have a ttl."""
        return self.expires is not None

    @property
    def stats(self) -> StoreStats:
        """Counters, as they are now."""
        self._stats.watchers = self.watchers.count
        return self._stats

    def encode(self, commands: Sequence[Command]) -> bytes:
        """A batch of commands as the bytes for one log entry."""
        return encode(commands)

    def publish(self, carried: Carried) -> None:
        """Tells watchers, once the store has it."""
        if carried.replaced is not None:
            self.watchers.reset(carried.replaced.etcd_index, carried.replaced.history)
        for batches in carried.done:
            self.watchers.publish(batches.events, batches.view.removed)

    def _settled(self, batches: Sequence[tuple[bytes, bool]]) -> Carried:
        """What has turned out to be made without word, now that the marks are known; it is accounted for here.

        The answers are for ``batches``, in case the store has seen those already.
        """
        doubtful, self._doubtful = self._doubtful, None
        unknown: Answers = [None] * len(batches)
        if isinstance(doubtful, Replaced) and self._is_at(doubtful):
            self.expires = 0
            return Carried(unknown, (), doubtful)
        if not isinstance(doubtful, Doubtful) or self._marks.applied < doubtful.applied:
            return Carried(unknown)
        self._account(doubtful.decided)
        answers = doubtful.decided.answers if doubtful.batches == batches else unknown
        return Carried(answers, (doubtful.decided,))

    def _is_at(self, replaced: "Replaced") -> bool:
        return (replaced.etcd_index, replaced.applied) == (self._marks.index, self._marks.applied)

    def _history(self) -> Sequence[Event]:
        """The events up to now, for a snapshot, once the marks are known; without those of a write still in doubt."""
        doubtful = self._doubtful
        if isinstance(doubtful, Replaced) and self._is_at(doubtful):
            return doubtful.history
        return self.watchers.history()

    def _carried(self, before: Carried | None, batches: Batches) -> Carried:
        """They are in the store."""
        self._account(batches)
        if before is None:
            return Carried(batches.answers, (batches,))
        return Carried(batches.answers, (*before.done, batches), before.replaced)

    def _account(self, batches: Batches) -> None:
        for commands, results in zip(batches.commands, batches.results, strict=True):
            self._stats.count(commands, results)
        if batches.looked:
            self.expires = batches.expires_next
        written = batches.view.expires
        if written is not None and (self.expires is None or written < self.expires):
            self.expires = written

    def _starts_anew(self, replaced: Replaced) -> None:
        """A snapshot has come in the place of what there was."""
        self._doubtful = None
        self.expires = 0 if replaced.etcd_index else None
        self.watchers.reset(replaced.etcd_index, replaced.history)


class Keyspace(_Marked):
    """The state machine of a node, over a blocking store.

    One ``apply`` at a time; reads may come from other threads, as far as the store bears it.
    """

    __slots__ = ("_store",)

    def __init__(self, store: Store, clock: Callable[[], int] = time.time_ns) -> None:
        """``clock``: for the history, when this node applied something, in nanoseconds since 1970."""
        super().__init__(store, clock)
        self._store = store

    def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """Carry out committed batches, in log order; ``applied`` is the Raft index of the last of them.

        What the store has seen already is not done again, and has no results any more; except that of a write which
        ended in StoreUnavailable and turns out to have been made.  Watchers are told before this returns.
        Raises msgspec.DecodeError, with nothing applied, if a batch is not what ``encode`` gave, and
        StoreUnavailable.
        """
        if self._doubtful is None and applied > self._store.applied:
            answers = self._apply_flat(batches, applied)
            if answers is not None:
                return answers
        carried = self.carry_out(batches, applied)
        self.publish(carried)
        return carried.answers

    def _apply_flat(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers | None:
        """A short cut for what most batches are: nothing but `Set` right below the root.

        None, with nothing done, if this is not the way.
        """
        store = self._store
        commands = [decode(data) for data, _ in batches]
        keys = flat_keys(batches, commands)
        if keys is None:
            return None
        index = store.index
        try:
            flat = run_flat(commands, store.get_many(keys), index)
        except NeedsTree:
            return None
        if flat.view is not None:
            carried = self._write(batches, applied, Batches.decided(batches, commands, flat, index), None)
            self.publish(carried)
            return carried.answers
        try:
            store.write(flat.changed.values(), (), flat.etcd_index, applied)  # type: ignore[arg-type]  # no None
        except StoreUnavailable:
            self._doubtful = Doubtful(batches, applied, Batches.decided(batches, commands, flat, index))
            raise
        self._stats.sets_success += flat.etcd_index - index
        events = list(chain.from_iterable(flat.results))
        self.watchers.publish(events, plain=True)  # type: ignore[arg-type]  # nothing but events
        waited = zip(flat.results, batches, strict=True)
        return [results if awaited else None for results, (_, awaited) in waited]

    def carry_out(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Carried:
        """`apply` without telling watchers: `publish` does that, and nothing is carried out before it has."""
        store = self._store
        before = None
        if self._doubtful is not None:
            store.settle()
            before = self._settled(batches)
        if applied <= store.applied:
            return before or Carried([None] * len(batches))
        decided = Batches(batches, [decode(data) for data, _ in batches])
        run(decided.decide(store.index), store)
        return self._write(batches, applied, decided, before)

    def _write(
        self, batches: Sequence[tuple[bytes, bool]], applied: int, decided: Batches, before: Carried | None
    ) -> Carried:
        view = decided.view
        if view.changed:
            upserts, deletes = view.write_set()
            try:
                self._store.write(upserts, deletes, view.index, applied)
            except StoreUnavailable:
                self._doubtful = Doubtful(batches, applied, decided)
                raise
        return self._carried(before, decided)

    def settle(self) -> None:
        """Finds out whether a write that ended in StoreUnavailable was made.  Raises StoreUnavailable."""
        if self._doubtful is not None:
            self._store.settle()

    def snapshot(self, applied: int | None = None) -> Snapshot:
        """All that is here now, in chunks to be taken one after another, while batches go on being applied.

        ``applied``: the Raft index that it stands for, if entries that change nothing came after the last that did.
        Called where ``apply`` is, and one at a time.  Raises StoreUnavailable.
        """
        self.settle()
        return Snapshot(self._store.view(), applied, self._history())

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Put a snapshot in the place of all that is here, in one go.

        Called where ``apply`` is, while no snapshot is taken.  Raises BadSnapshot, StoreUnavailable and whatever
        ``chunks`` raises; all is as it was then, unless it was the very end that failed.
        """
        rest = iter(chunks)
        restoring = self.begin_restoring(next(rest, b""))
        try:
            for chunk in rest:
                restoring.add(chunk)
            restoring.commit()
        except BaseException:
            restoring.abort()
            raise

    def begin_restoring(self, first: bytes) -> "Restoring":
        """`restore` for chunks that come one by one; nothing is applied before it has ended."""
        decoder = ChunkDecoder()
        marks = decoder.begin(first)
        return Restoring(self, decoder, Replaced(*marks, decoder.history), self._store.replace(*marks))

    def claim(self, cluster: str, member: str) -> None:
        """See `Store.claim`."""
        self._store.claim(cluster, member)

    def get(self, key: str) -> Result:
        """Read one key as this replica has it now.  Raises StoreUnavailable."""
        return self.get_many([key])[0]

    def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        """Answer several reads together; a key stands for a `Query` of it.  Raises StoreUnavailable."""
        results = run(find(queries, self._marks.index), self._store)
        self._stats.count_reads(results)
        return results

    def read(self, query: Query | str, done: Callable[[Result | StoreUnavailable], None]) -> None:
        """``get_many`` for the web layer: ``done`` is called before this returns.  A key is read most quickly."""
        index = self._marks.index
        result: Result | StoreUnavailable
        try:
            node = self._store.get(query) if isinstance(query, str) else None
            if node is not None and not node.dir:
                self._stats.gets_success += 1
                result = found_file(node, index)
            else:
                (result,) = self.get_many((query,))
        except StoreUnavailable as error:
            result = error
        done(result)


class AsyncKeyspace(_Marked):
    """The state machine of a node, over an asynchronous store.  One ``apply`` at a time."""

    __slots__ = ("_store",)

    def __init__(self, store: AsyncStore, clock: Callable[[], int] = time.time_ns) -> None:
        """``clock``: see `Keyspace`."""
        super().__init__(store, clock)
        self._store = store

    async def apply(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Answers:
        """See `Keyspace.apply`."""
        carried = await self.carry_out(batches, applied)
        self.publish(carried)
        return carried.answers

    async def carry_out(self, batches: Sequence[tuple[bytes, bool]], applied: int) -> Carried:
        """See `Keyspace.carry_out`."""
        store = self._store
        before = None
        if self._doubtful is not None:
            await store.settle()
            before = self._settled(batches)
        if applied <= store.applied:
            return before or Carried([None] * len(batches))
        decided = Batches(batches, [decode(data) for data, _ in batches])
        await run_awaited(decided.decide(store.index), store)
        view = decided.view
        if view.changed:
            upserts, deletes = view.write_set()
            try:
                await store.write(upserts, deletes, view.index, applied)
            except StoreUnavailable:
                self._doubtful = Doubtful(batches, applied, decided)
                raise
        return self._carried(before, decided)

    async def settle(self) -> None:
        """See `Keyspace.settle`."""
        if self._doubtful is not None:
            await self._store.settle()

    async def snapshot(self, applied: int | None = None) -> AsyncSnapshot:
        """See `Keyspace.snapshot`; not during an ``apply``."""
        await self.settle()
        return AsyncSnapshot(await self._store.view(), applied, self._history())

    async def restore(self, chunks: AsyncIterable[bytes]) -> None:
        """See `Keyspace.restore`; not during an ``apply``."""
        await restore_from(self, chunks)

    async def begin_restoring(self, first: bytes) -> "AsyncRestoring":
        """See `Keyspace.begin_restoring`; not during an ``apply``."""
        decoder = ChunkDecoder()
        marks = decoder.begin(first)
        replacement = await self._store.replace(*marks)
        return AsyncRestoring(self, decoder, Replaced(*marks, decoder.history), replacement)

    async def claim(self, cluster: str, member: str) -> None:
        """See `Store.claim`."""
        await self._store.claim(cluster, member)

    async def get_many(self, queries: Sequence[Query | str]) -> list[Result]:
        """See `Keyspace.get_many`."""
        results = await run_awaited(find(queries, self._marks.index), self._store)
        self._stats.count_reads(results)
        return results


class Restoring:
    """A snapshot on its way into a keyspace.  ``commit`` or ``abort`` ends it; see `Keyspace.restore` for errors."""

    __slots__ = ("_becomes", "_decoder", "_keyspace", "_replacement")

    def __init__(
        self, keyspace: Keyspace, decoder: ChunkDecoder, becomes: Replaced, replacement: Replacement
    ) -> None:
        self._keyspace = keyspace
        self._decoder = decoder
        self._becomes = becomes
        self._replacement = replacement

    def add(self, chunk: bytes) -> None:
        self._replacement.add(self._decoder.nodes(chunk))

    def commit(self) -> None:
        """All chunks were added: the keyspace is what they say."""
        self._decoder.end()
        try:
            self._replacement.commit()
        except StoreUnavailable:
            self._keyspace._doubtful = self._becomes
            raise
        self._keyspace._starts_anew(self._becomes)

    def abort(self) -> None:
        """The keyspace is as it was.  After an end it does nothing."""
        self._replacement.abort()


class AsyncRestoring:
    """`Restoring` of an asynchronous keyspace."""

    __slots__ = ("_becomes", "_decoder", "_keyspace", "_replacement")

    def __init__(
        self, keyspace: AsyncKeyspace, decoder: ChunkDecoder, becomes: Replaced, replacement: AsyncReplacement
    ) -> None:
        self._keyspace = keyspace
        self._decoder = decoder
        self._becomes = becomes
        self._replacement = replacement

    async def add(self, chunk: bytes) -> None:
        await self._replacement.add(self._decoder.nodes(chunk))

    async def commit(self) -> None:
        self._decoder.end()
        try:
            await self._replacement.commit()
        except StoreUnavailable:
            self._keyspace._doubtful = self._becomes
            raise
        self._keyspace._starts_anew(self._becomes)

    async def abort(self) -> None:
        await self._replacement.abort()


class AwaitedRestoring(Protocol):
    """An `AsyncRestoring`, or what stands for one."""

    async def add(self, chunk: bytes, /) -> None: ...
    async def commit(self) -> None: ...
    async def abort(self) -> None: ...


class _Restorable(Protocol):
    async def begin_restoring(self, first: bytes, /) -> AwaitedRestoring: ...


async def restore_from(keyspace: _Restorable, chunks: AsyncIterable[bytes]) -> None:
    """Puts all chunks into the keyspace, or none."""
    rest = aiter(chunks)
    restoring = await keyspace.begin_restoring(await anext(rest, b""))
    try:
        async for chunk in rest:
            await restoring.add(chunk)
        await restoring.commit()
    except BaseException:
        await restoring.abort()
        raise
