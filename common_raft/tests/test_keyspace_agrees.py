"""Random commands: every kind of store gives the same, however the commands are put into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common_raft.keyspace import (
    AsyncKeyspace,
    Command,
    CompareAndDelete,
    CompareAndSwap,
    Create,
    CreateInOrder,
    Delete,
    EtcdError,
    Event,
    Expire,
    Expired,
    HashMapStore,
    Keyspace,
    Put,
    Query,
    Result,
    Set,
    Update,
)
from common_raft.keyspace.commands import decode, encode
from common_raft.stores import AsyncSqlStore, Database, PooledKeyspace, SqlStore
from common_raft.tests.stores_under_test import clock

START = 2_000_000_000 * 10**9
NAMES = st.sampled_from(["a", "b", "_h", "\udcff"])
#: Also names as those of keys in order, which may be taken already.
KEYS = st.one_of(
    st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names)),
    st.integers(1, 9).map(lambda number: f"/a/{number:020d}"),
    st.sampled_from(["/", "//own/a", "//own"]),
)
VALUES = st.sampled_from(["", "1", "2", "\udcfe"])
TTLS = st.one_of(st.none(), st.none(), st.integers(START, START + 5))
INDEXES = st.integers(0, 6)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Set, KEYS, VALUES),
    st.builds(Put, KEYS, VALUES, TTLS, st.booleans(), st.booleans()),
    st.builds(Create, KEYS, VALUES, TTLS, st.booleans()),
    st.builds(Update, KEYS, VALUES, TTLS, st.booleans()),
    st.builds(CompareAndSwap, KEYS, VALUES, VALUES, INDEXES, TTLS, st.booleans()),
    st.builds(CompareAndDelete, KEYS, VALUES, INDEXES),
    st.builds(CreateInOrder, KEYS, VALUES, TTLS, st.booleans()),
    st.builds(Delete, KEYS, st.booleans(), st.booleans()),
    st.builds(Expire, st.integers(START - 1, START + 6)),
)
BATCHES = st.lists(st.lists(COMMANDS, min_size=1, max_size=8), min_size=1, max_size=8)
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Run:
    """All that a keyspace gave, and what it is in the end."""

    def __init__(self) -> None:
        self.results: list[object] = []
        self.told: list[Event | None] = []
        self.history: list[Event] = []
        self.listing: object = None
        self.stats: object = None
        self.snapshot: list[bytes] = []

    def add(self, answers: Sequence[Sequence[Result] | None]) -> None:
        for results in answers:
            assert results is not None
            self.results += [as_told(result) for result in results]

    def watch(self, keyspace: Any) -> None:
        for key in ("/", "/a", "/a/b", "//own"):
            keyspace.watchers.watch(key, recursive=True, stream=True, since=0, notify=self.told.append)

    def end(self, keyspace: Any, listings: Sequence[Result], chunks: list[bytes]) -> None:
        self.listing = [as_told(each) for each in listings]
        self.history = keyspace.watchers.history()
        self.stats = keyspace.stats
        self.snapshot = chunks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and vars(self) == vars(other)


def as_told(result: Result) -> object:
    if isinstance(result, EtcdError):
        return (result.code, result.cause, result.index)
    return result.events if isinstance(result, Expired) else result


LISTINGS = [Query("/"), Query("/", recursive=True), Query("/a", recursive=True), "/a/b", "//own", "/_h/a/b"]


def run(keyspace: Keyspace, calls: Sequence[Sequence[Sequence[Command]]]) -> Run:
    """Each of ``calls`` is the batches that are applied together."""
    done = Run()
    done.watch(keyspace)
    for number, batches in enumerate(calls):
        done.add(keyspace.apply([(encode(commands), True) for commands in batches], number + 1))
    done.end(keyspace, keyspace.get_many(LISTINGS), list(filter(None, keyspace.snapshot(1000))))
    return done


async def run_awaited(keyspace: Any, calls: Sequence[Sequence[Sequence[Command]]]) -> Run:
    done = Run()
    done.watch(keyspace)
    for number, batches in enumerate(calls):
        done.add(await keyspace.apply([(encode(commands), True) for commands in batches], number + 1))
    chunks = [chunk async for chunk in await keyspace.snapshot(1000) if chunk]
    done.end(keyspace, await keyspace.get_many(LISTINGS), chunks)
    return done


def in_memory() -> Keyspace:
    return Keyspace(HashMapStore(), clock)


def blocking_sql(calls: Sequence[Sequence[Sequence[Command]]]) -> Run:
    with closing(SqlStore(Database.parse(None, "blocking", durable=False), None)) as store:
        return run(Keyspace(store, clock), calls)


def pooled_sql(calls: Sequence[Sequence[Sequence[Command]]]) -> Run:
    with closing(SqlStore(Database.parse(None, "blocking", durable=False), None)) as store:
        return asyncio.run(run_awaited(PooledKeyspace(Keyspace(store, clock)), calls))


def awaited_sql(calls: Sequence[Sequence[Sequence[Command]]]) -> Run:
    async def whole() -> Run:
        store = AsyncSqlStore(Database.parse(None, "async", durable=False))
        try:
            await store.open(None)
            return await run_awaited(AsyncKeyspace(store, clock), calls)
        finally:
            await store.close()

    return asyncio.run(whole())


@pytest.mark.parametrize("elsewhere", [blocking_sql, pooled_sql, awaited_sql])
def test_a_database_gives_what_a_dict_gives(elsewhere: Any) -> None:
    @settings(MANY, max_examples=25)
    @given(BATCHES)
    def agree(batches: list[list[Command]]) -> None:
        calls = [[batch] for batch in batches]
        assert elsewhere(calls) == run(in_memory(), calls)

    agree()


@settings(MANY, max_examples=300)
@given(BATCHES)
def test_it_makes_no_difference_how_commands_are_batched(batches: list[list[Command]]) -> None:
    one_by_one = run(in_memory(), [[[command]] for batch in batches for command in batch])
    assert run(in_memory(), [[batch] for batch in batches]) == one_by_one
    assert run(in_memory(), [batches]) == one_by_one
    assert run(in_memory(), [[[command for batch in batches for command in batch]]]) == one_by_one


@settings(MANY, max_examples=200)
@given(BATCHES)
def test_what_is_above_a_node_is_there_and_is_a_directory(batches: list[list[Command]]) -> None:
    store = HashMapStore()
    run(Keyspace(store, clock), [batches])
    for node in store.descendants("/"):
        parent = node.key[: node.key.rindex("/")]
        if parent not in ("", "/"):
            above = store.get(parent)
            assert above is not None
            assert above.dir
        assert node.dir == (node.value is None)


@settings(MANY, max_examples=200)
@given(BATCHES)
def test_no_node_expires_before_the_keyspace_says_so(batches: list[list[Command]]) -> None:
    store = HashMapStore()
    keyspace = Keyspace(store, clock)
    run(keyspace, [[batch] for batch in batches])
    first = store.next_expiration(-(2**63))
    if first is not None:
        assert keyspace.expires is not None
        assert keyspace.expires <= first
    keyspace.apply([(encode([Expire(START + 6)]), False)], 1001)
    assert keyspace.expires is None


@settings(MANY, max_examples=300)
@given(BATCHES)
def test_a_batch_survives_encoding(batches: list[list[Command]]) -> None:
    for batch in batches:
        assert decode(encode(batch)) == batch
