"""A keyspace's snapshot: the same bytes from every store, into every store, while writes go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common_raft.keyspace import (
    AsyncKeyspace,
    AsyncStore,
    BadSnapshot,
    Command,
    Create,
    Delete,
    EtcdError,
    Event,
    Expire,
    HashMapStore,
    Keyspace,
    Node,
    Put,
    Set,
    StoreUnavailable,
    Update,
)
from common_raft.keyspace import snapshot as formats
from common_raft.keyspace.hashmap import MOVED_AT_ONCE
from common_raft.keyspace.snapshot import CHUNK_SIZE
from common_raft.keyspace.sorting import STEP, in_steps
from common_raft.keyspace.store import MAX_PLAIN, rank
from common_raft.stores import operations
from common_raft.stores.views import Before
from common_raft.testing.postgresql import PostgresServer, programs
from common_raft.tests.stores_under_test import KINDS, Kind, clock

Open = Callable[..., AbstractAsyncContextManager[AsyncStore]]

LONG = "/" + "k" * (MAX_PLAIN + 100)
NODES = [
    Node("/dir", None, 3, 3, True),
    Node("/dir/a", "v", 4, 2),
    Node("/dir/gone soon", "v", 5, 5, False, 2**60),
    Node("/dir/short lived", None, 6, 6, True, 1),
    Node("/dir-b", "", 7, 7),
    Node("/many", None, 7, 7, True),
    Node("/\u00e9\U0001f600", "\u00e9\U0001f600", 8, 8),
    Node("/not UTF-8: \udcff\udc80", "\udcfe\0", 9, 9),
    Node("/large", "x" * 1_000_000, 10, 10),
    Node("/large too", "y" * 300_000, 10, 10),
    *[Node(f"{LONG}{number}", "long", 11, 11) for number in range(5)],
    *[
        Node(f"/many/{number * 7919 % 3000}", f"value {number}" * 9, number + 20, number + 20)
        for number in range(3000)
    ],
]
INDEX, APPLIED = 4000, 77


def order(key: str) -> bytes:
    return rank(key.encode("utf-8", "surrogateescape"))


def reference(nodes: Iterable[Node] = NODES) -> list[bytes]:
    """What the format says, without any store."""
    encoder = formats.ChunkEncoder()
    ordered = sorted(nodes, key=lambda node: order(node.key))
    return [encoder.begin(INDEX, APPLIED), *encoder.add(ordered), *encoder.end()]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    kind: Kind = KINDS[request.param]
    url = kind.url
    if url is not None and url.startswith("sqlite"):
        url = url.format(file=tmp_path / "nodes.db") + "?timeout=0.2"
    elif url is not None:
        url = request.getfixturevalue("postgres").new_database().replace("postgresql", url)
    return partial(kind.open, url)


def run(opened: Open, test: Callable[[AsyncStore], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with opened() as store:
            await test(store)

    asyncio.run(inside())


async def sent(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def taken(keyspace: AsyncKeyspace, applied: int | None = None) -> list[bytes]:
    return [chunk async for chunk in await keyspace.snapshot(applied) if chunk]


async def fill(store: AsyncStore, nodes: list[Node] = NODES) -> None:
    shuffled = list(nodes)
    random.Random(3).shuffle(shuffled)
    await store.write(shuffled, [], INDEX, APPLIED)


class TestAllStores:
    def test_each_gives_the_same_bytes(self, opened: Open) -> None:
        async def test(store: AsyncStore) -> None:
            await fill(store)
            assert await taken(AsyncKeyspace(store)) == reference()

        run(opened, test)

    def test_each_takes_them_in_place_of_what_it_had(self, opened: Open) -> None:
        async def test(store: AsyncStore) -> None:
            keyspace = AsyncKeyspace(store)
            await store.write(
                [Node("/old", "v", 1, 1, expiration=5), NODES[1], Node(f"{LONG}/x", "v", 1, 1)], [], 1, 1
            )
            await keyspace.restore(sent(reference()))
            assert (keyspace.index, keyspace.applied) == (INDEX, APPLIED)
            assert await taken(keyspace) == reference()
            assert {node.key for node in await store.expired(2**62)} == {"/dir/gone soon", "/dir/short lived"}
            assert [node.key for node in await store.children("/dir")] == [
                "/dir/a", "/dir/gone soon", "/dir/short lived",
            ]  # fmt: skip
            assert await store.get_many(["/old", "/dir/a"]) == {"/old": None, "/dir/a": NODES[1]}
            batch = keyspace.encode([Set("/dir/a", "new"), Delete("/dir-b")])
            await keyspace.apply([(batch, False)], APPLIED + 1)
            assert (keyspace.index, keyspace.applied) == (INDEX + 2, APPLIED + 1)
            assert [node.key for node in await store.descendants("/dir-b")] == []

        run(opened, test)

    def test_what_has_a_ttl_and_what_watchers_could_ask_for_comes_along(self, opened: Open) -> None:
        soon = 2_000_000_000 * 10**9
        source = Keyspace(HashMapStore(), clock)
        commands: list[Command] = [
            Set("/d/x", "1"), Put("/d/t", "2", soon), Put("/t", "", soon + 1, True), Set("/t/a/b", "4"),
            Update("/d/x", "\udcff"), Delete("/d/t"), Put("/d/t", "", soon, refresh=False), Set("//own", "8"),
            Put("/d/x", "", soon + 2, refresh=True),
        ]  # fmt: skip
        source.apply([(source.encode(commands), False)], 5)
        chunks = list(filter(None, source.snapshot()))

        async def test(store: AsyncStore) -> None:
            keyspace = AsyncKeyspace(store, clock)
            await keyspace.restore(sent(chunks))
            assert await taken(keyspace) == chunks
            assert keyspace.watchers.history() == source.watchers.history()
            told: list[Event | None] = []
            keyspace.watchers.watch("/d/t", recursive=False, stream=False, since=3, notify=told.append)
            assert [each and (each.action, each.index, each.seen) for each in told] == [
                ("delete", 6, clock())
            ]
            expire = [(keyspace.encode([Expire(soon + 1)]), False)]
            assert keyspace.expires is not None
            await keyspace.apply(expire, 6)
            source.apply(expire, 6)
            assert [node.key for node in await store.descendants("/")] == ["//own", "/d", "/d/x"]
            assert keyspace.expires == source.expires == soon + 2
            assert await taken(keyspace) == list(filter(None, source.snapshot()))

        run(opened, test)

    def test_an_empty_keyspace_is_a_snapshot_too(self, opened: Open) -> None:
        async def test(store: AsyncStore) -> None:
            keyspace = AsyncKeyspace(store)
            empty = await taken(keyspace)
            assert [chunk[:1] for chunk in empty] == [b"H", b"E"]
            await fill(store, NODES[:5])
            await keyspace.restore(sent(empty))
            assert (store.index, store.applied, await store.descendants("/")) == (0, 0, [])

        run(opened, test)

    def test_what_is_written_meanwhile_is_not_in_it(self, opened: Open) -> None:
        """Keys changed, removed, made anew and made for the first time, before and behind the place of the view."""
        chance = random.Random(11)

        async def test(store: AsyncStore) -> None:
            await fill(store)
            keyspace = AsyncKeyspace(store)
            live = {node.key: node for node in NODES}
            for _ in range(2):
                expected = reference(live.values())[1:]
                snapshot = await keyspace.snapshot()
                chunks = []
                async for chunk in snapshot:
                    chunks += [chunk] if chunk else []
                    index = store.index + 1
                    keys = chance.sample(sorted(live.keys() - {"/dir", "/many"}, key=order), 8)
                    new = [Node(f"/many/{chance.randrange(9000)}", "new", index, index) for _ in range(4)]
                    upserts = [Node(key, "changed", index, 1) for key in keys[:3]] + new
                    deletes = [
                        key for key in [*keys[3:], "/never there"] if key not in {n.key for n in upserts}
                    ]
                    await store.write(upserts, deletes, index, store.applied + 1)
                    live |= {node.key: node for node in upserts}
                    for key in deletes:
                        live.pop(key, None)
                assert chunks[1:] == expected
                found = await store.descendants("/")
                assert {node.key: node for node in found} == live
                assert await store.get_many(list(live)) == live

        run(opened, test)

    def test_an_abandoned_one_leaves_no_trace_and_another_can_be_taken(self, opened: Open) -> None:
        async def test(store: AsyncStore) -> None:
            await fill(store, NODES[:5])
            keyspace = AsyncKeyspace(store)
            snapshot = await keyspace.snapshot()
            await anext(snapshot)
            with pytest.raises(RuntimeError, match="a view of this store is open"):
                await keyspace.snapshot()
            with pytest.raises(RuntimeError, match="a view of this store is open"):
                await keyspace.restore(sent(reference()))
            await store.write([Node("/new", "v", 1, 1)], ["/dir/a"], INDEX + 1, APPLIED + 1)
            snapshot.close()
            snapshot.close()
            async with await keyspace.snapshot() as snapshot:
                await store.write([Node("/newer", "v", 1, 1)], [], INDEX + 2, APPLIED + 2)
            assert len([chunk async for chunk in snapshot]) <= 1
            assert len(await store.descendants("/")) == 6
            await keyspace.restore(sent(reference()))
            assert await taken(keyspace) == reference()

        run(opened, test)

    @pytest.mark.parametrize("fault", ["cut", "damaged", "source", "nothing"])
    def test_one_that_cannot_be_restored_changes_nothing(self, opened: Open, fault: str) -> None:
        chunks = reference()

        async def source() -> AsyncIterator[bytes]:
            for chunk in chunks[:3]:
                yield chunk
            if fault == "source":
                raise ConnectionResetError("the sender is gone")
            if fault == "damaged":
                yield b"N\x93"

        async def test(store: AsyncStore) -> None:
            keyspace = AsyncKeyspace(store)
            await fill(store, NODES[:5])
            before = await taken(keyspace)
            with pytest.raises((BadSnapshot, ConnectionResetError)):
                await keyspace.restore(sent([]) if fault == "nothing" else source())
            assert (store.index, store.applied) == (INDEX, APPLIED)
            assert await taken(keyspace) == before
            await store.write([Node("/new", "v", 1, 1)], [], INDEX + 1, APPLIED + 1)
            assert len(await store.descendants("/")) == 6

        run(opened, test)


class TestFormat:
    def test_the_bytes_are_what_they_were(self) -> None:
        nodes = [Node("/a", "v", 300, 2, False, None), Node("/b\udcff", None, 3, 3, True, 2**40)]
        gone = Event("delete", Node("/a", None, 301, 2), nodes[0], 301, seen=7)
        odd = Event("set", Node("/b\udcff", "", 302, 302), None, 302, refresh=True, seen=8)
        encoder = formats.ChunkEncoder()
        assert [
            encoder.begin(5, 6),
            *encoder.add(nodes),
            *encoder.add_events([gone, odd]),
            *encoder.end(),
        ] == [
            b"H\x93\x02\x05\x06",
            b"R\x92\x96\xc4\x02/a\xc4\x01v\xcd\x01\x2c\x02\xc2\xc0\x96\xc4\x03/b\xff\xc0\x03\x03\xc3\xcf\0\0\1\0\0\0\0\0",
            b"W\x92\x95\xa6delete\x96\xc4\x02/a\xc0\xcd\x01\x2d\x02\xc2\xc0\x96\xc4\x02/a\xc4\x01v\xcd\x01\x2c\x02\xc2\xc0\xc2\x07"
            b"\x95\xa3set\x96\xc4\x03/b\xff\xc4\0\xcd\x01\x2e\xcd\x01\x2e\xc2\xc0\xc0\xc3\x08",
            b"E\x92\x02\x02",
        ]
        encoder = formats.ChunkEncoder()
        encoder.add(nodes[:1])
        assert [*encoder.add_events([gone]), *encoder.end()] == [
            b"N\x91\x96\xa2/a\xa1v\xcd\x01\x2c\x02\xc2\xc0",
            b"V\x91\x95\xa6delete\x96\xa2/a\xc0\xcd\x01\x2d\x02\xc2\xc0\x96\xa2/a\xa1v\xcd\x01\x2c\x02\xc2\xc0\xc2\x07",
            b"E\x92\x01\x01",
        ]

    def test_what_the_first_version_wrote_is_read(self) -> None:
        keyspace = Keyspace(HashMapStore())
        keyspace.restore(
            [
                b"H\x93\x01\x05\x06",
                b"N\x91\x96\xa2/a\xa1v\x03\x02\xc2\xc0",
                b"R\x91\x96\xc4\x03/b\xff\xc0\x03\x03\xc3\xcf\0\0\1\0\0\0\0\0",
                b"E\x91\x02",
            ]
        )
        assert (keyspace.index, keyspace.applied, keyspace.watchers.index) == (5, 6, 5)
        assert keyspace.get("/a") == Event("get", Node("/a", "v", 3, 2), None, 5)
        assert keyspace.get("/b\udcff") == Event(
            "get", Node("/b\udcff", None, 3, 3, True, 2**40), None, 5, []
        )
        with pytest.raises(EtcdError, match=r"\[6/5\]"):
            keyspace.watchers.watch("/a", recursive=False, stream=False, since=5, notify=print)

    def test_chunks_are_bounded_but_for_single_large_values(self) -> None:
        sizes = [len(chunk) for chunk in reference()]
        assert sorted(sizes)[-2] < 300_000 + CHUNK_SIZE
        assert all(size < CHUNK_SIZE * 1.1 for size in sorted(sizes)[:-2])

    @pytest.mark.parametrize(
        ("chunks", "problem"),
        [
            ([], "does not begin"),
            ([b"X"], "does not begin"),
            ([b"H\x93\x03\x00\x00"], "a snapshot of format 3, and this version reads formats 1 to 2"),
            ([b"H\x93\x02\x00\x00", b"E\x91\x00"], "the last chunk"),
            ([b"H\x93\x02\x00\x00", b"E\x92\x00\x01"], "should hold 1 events, and 0 came"),
            ([b"H\x93\x02\x00\x00", b"V\x91\x01"], "cannot be read"),
            ([b"H\x93\x02\x00\x00", b"W\x91\x95\xa3set\x00\x00\xc2\x07"], "cannot be read"),
            ([b"H\x92\x01\x00"], "the first chunk"),
            ([b"H\x93\x01\xff\x00"], "the first chunk"),
            ([b"H\x93\x01\x00\x00"], "ends after 0 nodes"),
            ([b"H\x93\x01\x00\x00", b"E\x91\x01"], "should hold 1 nodes, and 0 came"),
            ([b"H\x93\x01\x00\x00", b"E\x91\x00", b"E\x91\x00"], "goes on behind its end"),
            ([b"H\x93\x01\x00\x00", b"Z\x90"], "chunk of unknown kind b'Z'"),
            ([b"H\x93\x01\x00\x00", b"N\x91\x01"], "cannot be read"),
            ([b"H\x93\x01\x00\x00", b"E\x90"], "does not begin, or end"),
        ],
    )
    def test_what_is_no_snapshot_is_said(self, chunks: list[bytes], problem: str) -> None:
        keyspace = Keyspace(HashMapStore())
        with pytest.raises(BadSnapshot, match=problem) as caught:
            keyspace.restore(chunks)
        assert "\n" not in str(caught.value)


class TestBlockingKeyspace:
    def filled(self) -> Keyspace:
        keyspace = Keyspace(HashMapStore(), clock)
        commands: list[Command] = [Set(f"/k{number}", "v") for number in range(5000)]
        keyspace.apply([(keyspace.encode(commands), False)], 9)
        return keyspace

    def test_a_snapshot_goes_from_one_to_another(self) -> None:
        keyspace, other = self.filled(), Keyspace(HashMapStore())
        with keyspace.snapshot() as snapshot:
            assert (snapshot.index, snapshot.applied) == (5000, 9)
            other.restore(chunk for chunk in snapshot if chunk)
        assert (other.index, other.applied) == (5000, 9)
        assert other.get("/k4999") == keyspace.get("/k4999")
        with pytest.raises(StopIteration):
            next(snapshot)

    def test_it_may_stand_for_later_entries_that_changed_nothing(self) -> None:
        keyspace, other = self.filled(), Keyspace(HashMapStore())
        other.restore(list(filter(None, keyspace.snapshot(12))))
        assert (keyspace.applied, other.applied) == (9, 12)
        with pytest.raises(ValueError, match="a snapshot of entry 8 of a keyspace that is at 9 already"):
            keyspace.snapshot(8)
        keyspace.snapshot(9).close()

    def test_replicas_that_go_on_from_it_agree(self) -> None:
        keyspace, other = self.filled(), Keyspace(HashMapStore(), clock)
        snapshot = keyspace.snapshot()
        batch = keyspace.encode(
            [Set("/k1", "new"), Delete("/k2"), Create("/k2", "again"), Create("/k3", "no")]
        )
        after = keyspace.apply([(batch, True)], 10)
        other.restore(filter(None, snapshot))
        assert repr(other.apply([(batch, True)], 10)) == repr(after)
        assert list(filter(None, other.snapshot())) == list(filter(None, keyspace.snapshot()))

    def test_a_doubtful_write_is_settled_first(self) -> None:
        class Doubting(HashMapStore):
            settled = 0

            def write(self, *arguments: Any) -> None:
                super().write(*arguments)
                raise StoreUnavailable("gone")

            def settle(self) -> None:
                self.settled += 1

        store = Doubting()
        keyspace = Keyspace(store)
        with pytest.raises(StoreUnavailable):
            keyspace.apply([(keyspace.encode([Set("/a", "v")]), True)], 1)
        keyspace.snapshot().close()
        assert store.settled == 1
        keyspace.restore(list(filter(None, self.filled().snapshot())))
        assert keyspace.apply([(keyspace.encode([Set("/a", "v")]), True)], 1) == [None]
        assert store.settled == 1

    def test_a_node_that_was_never_changed_holds_its_index_once(self) -> None:
        other = Keyspace(HashMapStore())
        other.restore(list(filter(None, self.filled().snapshot())))
        node = other._store.get("/k4999")
        assert node is not None
        assert node.created_index == 5000
        assert node.created_index is node.modified_index

    def test_a_key_that_is_written_again_keeps_its_text(self) -> None:
        store = HashMapStore()
        keyspace = Keyspace(store)
        for command in (Set("/some key", "a"), Set("/some key", "b")):
            keyspace.apply([(keyspace.encode([command]), False)], store.applied + 1)
        (key,) = store._nodes
        assert store._nodes[key].key is key


class TestHashMap:
    def test_after_a_view_the_two_dicts_become_one_a_little_at_a_time(self) -> None:
        store = HashMapStore()
        store.write([Node(f"/k{number}", "v", 1, 1) for number in range(3000)], [], 1, 1)
        view = store.view()
        for turn in range(10):
            store.write(
                [Node(f"/k{turn * 100 + one}", "new", 2, 2) for one in range(100)], [f"/k{2000 + turn}"], 2, 2
            )
        assert len(store._nodes) == 3000
        assert store.get("/k2000") is None
        view.close()
        turns = 0
        while store._recent is not None:
            store.write([Node("/k5", f"at {turns}", 3, 3)], [f"/k{turns}"] if turns == 7 else [], 3, 3)
            assert store.get("/k5") == Node("/k5", f"at {turns}", 3, 3)
            assert (store.get("/k2000"), store.get("/k2001")) == (None, None)
            turns += 1
        assert 1010 // MOVED_AT_ONCE < turns < 1010 // MOVED_AT_ONCE + 3
        assert store.get == store._nodes.get
        assert len(store._nodes) == 2989
        assert sum(node.value == "new" for node in store._nodes.values()) == 998  # less /k5 and /k7

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "delete", "view", "close", "step"]),
                st.integers(0, 12),
            ),
            max_size=60,
        )
    )
    @settings(max_examples=150, deadline=None)
    def test_any_history_is_that_of_a_dict(self, steps: list[tuple[str, int]]) -> None:
        store, model = HashMapStore(), dict[str, Node]()
        view, frozen, pages = None, dict[str, Node](), list[Node]()
        for number, (step, key) in enumerate(steps):
            name = f"/k{key}"
            if step == "put":
                model[name] = Node(name, "v", number, number, expiration=number if number % 3 else None)
                store.write([model[name]], [], number, number)
            elif step == "delete":
                model.pop(name, None)
                store.write([], [name], number, number)
            elif step == "view" and view is None:
                view, frozen, pages = store.view(), dict(model), []
            elif step == "step" and view is not None and (page := next(view, None)) is not None:
                pages += page
            elif step == "close" and view is not None:
                for page in iter(partial(next, view, None), None):
                    pages += page
                assert pages == [frozen[key] for key in sorted(frozen)]
                view.close()
                view = None
            assert store.descendants("/") == store.children("/") == [model[key] for key in sorted(model)]
            assert {name: store.get(name)} == store.get_many([name]) == {name: model.get(name)}
            expiring = sorted((n.expiration, n.key) for n in model.values() if n.expiration is not None)
            assert [(node.expiration, node.key) for node in store.expired(99)] == expiring


class TestSorting:
    @pytest.mark.parametrize("strange", [None, "\udcff", "\ue000", "\U0001f600", LONG, LONG[:200]])
    @pytest.mark.parametrize("count", [0, 1, STEP, 30_000])
    def test_keys_come_in_order_and_in_small_pieces(self, strange: str | None, count: int) -> None:
        chance = random.Random(7)
        keys = dict.fromkeys(f"/{chance.choice('aZ~')}/{chance.randrange(10**9)}" for _ in range(count))
        if strange is not None:
            keys |= dict.fromkeys(
                [strange + key for key in list(keys)[:9]] + [key + strange for key in list(keys)[:9]]
            )
        pieces = list(in_steps(keys))
        assert [key for piece in pieces for key in piece] == sorted(keys, key=order)
        assert max(map(len, pieces)) <= 2 * STEP

    def test_keys_that_a_sample_deceives_about_are_sorted_in_small_pieces_too(self) -> None:
        keys = [f"/low/{number:06}" for number in range(20_000)]
        keys[:: STEP // 8] = [f"/high/{number:06}" for number in range(len(keys[:: STEP // 8]))]
        pieces = list(in_steps(dict.fromkeys(keys)))
        assert [key for piece in pieces for key in piece] == sorted(keys)
        assert max(map(len, pieces)) <= 2 * STEP


class TestPages:
    def test_a_page_of_a_database_is_bounded_by_bytes_and_by_nodes(self) -> None:
        async def test(store: AsyncStore) -> None:
            await fill(store)
            view = await store.view()
            sizes = []
            while (page := await view.next()) is not None:
                assert len(page) <= operations.CHUNK
                sizes.append((len(page), sum(len(node.value or "") for node in page)))
            view.close()
            assert sum(count for count, _ in sizes) == len(NODES)
            assert all(size <= operations.PAGE_SIZE or count == 1 for count, size in sizes)

        run(partial(KINDS["SQLite in memory"].open, None), test)

    def test_what_a_view_has_shown_is_not_kept(self) -> None:
        before = Before(operations.Marks(1, 1))
        assert before.missing(["/a", "/b", "/c"]) == ["/a", "/b", "/c"]
        before.keep({"/a": None, "/b": Node("/b", "old", 1, 1)})
        assert before.missing(["/a", "/b", "/c"]) == ["/c"]
        page = operations.Page([Node("/a", "new", 2, 2), Node("/aa", "v", 1, 1)], b"/b")
        assert before.merge(page) == [Node("/aa", "v", 1, 1), Node("/b", "old", 1, 1)]
        assert before.missing(["/a", "/b", "/c"]) == ["/c"]
        assert not before._nodes
        assert not before._order
        assert before.merge(operations.Page([], None)) == []
        assert before.missing(["/c"]) == []
