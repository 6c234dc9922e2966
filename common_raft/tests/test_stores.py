"""One contract, all stores: what is written is read, in order, all or nothing, and still there after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common_raft.keyspace import AsyncStore, HashMapStore, Node, StoreError, StoreUnavailable
from common_raft.keyspace.node import parent_of
from common_raft.keyspace.store import MAX_PLAIN
from common_raft.stores import Database, Owner
from common_raft.testing.postgresql import PostgresServer, programs
from common_raft.tests.stores_under_test import KINDS, Kind

Open = Callable[..., AbstractAsyncContextManager[AsyncStore]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def opened(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> Open:
    """Opens the store that is tested; again and again the same one, if it outlives its closing."""
    return partial(kind.open, url_of(kind, tmp_path, request))


def url_of(kind: Kind, tmp_path: Path, request: pytest.FixtureRequest) -> str | None:
    if kind.url is None:
        return None
    if kind.url.startswith("sqlite"):
        return kind.url.format(file=tmp_path / "nodes.db") + "?timeout=0.2"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database().replace("postgresql", kind.url)


def run(opened: Open, test: Callable[[AsyncStore], Awaitable[None]], **options: bool) -> None:
    async def inside() -> None:
        async with opened(**options) as store:
            await test(store)

    asyncio.run(inside())


def node(key: str, value: str | None = "v", index: int = 1, **more: object) -> Node:
    return Node(key, value, index, index, **more)  # type: ignore[arg-type]


def bytes_of(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


STRANGE = [
    node("/nul\0in it", "nul\0in it"),
    node("/not UTF-8: \udcff\udc80", "\udcfe"),
    node("/unicode: \u00e9\U0001f600", "\u00e9\U0001f600"),
    node("/empty", ""),
    node("/no value", None, dir=True),
    node("/large", "x" * 3_000_000),
    node("/large numbers", "v", 2**62, expiration=2**62),
    node("/" + "k" * 20_000),
    node("/" + "k" * 20_000 + "/child"),
    node("/" + "k" * 20_001),
]


def test_an_empty_store_is_at_zero(opened: Open) -> None:
    async def test(store: AsyncStore) -> None:
        assert (store.index, store.applied) == (0, 0)
        assert await store.get_many(["/a", "/b"]) == {"/a": None, "/b": None}
        assert await store.get_many([]) == {}
        assert await store.children("/") == await store.descendants("/") == await store.expired(2**62) == []

    run(opened, test)


@pytest.mark.parametrize(
    "strange", STRANGE, ids=lambda strange: strange.key[:12].encode("unicode_escape").decode()
)
def test_whatever_bytes_a_node_has_it_is_read_as_it_was_written(opened: Open, strange: Node) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([strange], [], 1, 1)
        assert await store.get_many([strange.key, "/k"]) == {strange.key: strange, "/k": None}
        assert await store.descendants(parent_of(strange.key)) == [strange]

    run(opened, test)


def test_keys_that_differ_only_at_their_far_end_are_different_keys(opened: Open) -> None:
    near = "/" + "k" * (MAX_PLAIN - 1)
    nodes = [node(near), node(near + "a"), node(near + "b"), node(near + "/a"), node(near + "/a/a")]

    async def test(store: AsyncStore) -> None:
        await store.write(nodes, [], 1, 1)
        assert await store.get_many([each.key for each in nodes]) == {each.key: each for each in nodes}
        assert await store.children(near) == [nodes[3]]
        assert await store.descendants(near) == nodes[3:]
        assert await store.children(near + "/a") == await store.descendants(near + "/a") == [nodes[4]]
        await store.write([], [near + "a"], 2, 2)
        assert await store.descendants("/") == [nodes[0], *nodes[3:], nodes[2]]

    run(opened, test)


def test_a_write_replaces_all_that_a_node_has(opened: Open) -> None:
    async def test(store: AsyncStore) -> None:
        for written in (
            node("/a", "x", 1),
            node("/a", None, 2, dir=True, expiration=7),
            Node("/a", "z", 9, 3),
        ):
            await store.write([written], [], 1, store.applied + 1)
            assert await store.get_many(["/a"]) == {"/a": written}

    run(opened, test)


def test_a_write_puts_and_removes_and_moves_the_marks(opened: Open) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([node("/a"), node("/b")], [], 2, 5)
        assert (store.index, store.applied) == (2, 5)
        await store.write([node("/c")], ["/a", "/never there"], 4, 9)
        assert (store.index, store.applied) == (4, 9)
        assert await store.get_many(["/a", "/b", "/c"]) == {"/a": None, "/b": node("/b"), "/c": node("/c")}
        await store.settle()
        assert (store.index, store.applied) == (4, 9)

    run(opened, test)


def test_more_keys_than_a_statement_takes_are_read_and_written(opened: Open) -> None:
    keys = [f"/k{number}" for number in range(2_600)]

    async def test(store: AsyncStore) -> None:
        await store.write(map(node, keys), [], 1, 1)
        assert await store.get_many([*keys, "/absent"]) == {key: node(key) for key in keys} | {
            "/absent": None
        }
        await store.write([], keys[1:], 2, 2)
        assert await store.children("/") == [node("/k0")]

    run(opened, test)


def test_children_and_descendants_come_in_the_order_of_their_bytes(opened: Open) -> None:
    keys = [
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/\u00e9",
        "/a/\udcff",
        "/a/B",
        "/a-b",
        "/a-b/c",
        "/a0",
        "/aa",
        "/\U0001f600",
    ]
    nodes = [node(key, dir=key in ("/a", "/a/b", "/a-b")) for key in keys]

    async def test(store: AsyncStore) -> None:
        await store.write(nodes, [], 1, 1)
        in_order = sorted(keys, key=bytes_of)
        assert [each.key for each in await store.descendants("/")] == in_order
        assert [each.key for each in await store.children("/")] == [k for k in in_order if k.count("/") == 1]
        assert [each.key for each in await store.descendants("/a")] == [
            k for k in in_order if k.startswith("/a/")
        ]
        assert [each.key for each in await store.children("/a/b")] == ["/a/b/c"]

    run(opened, test)


def test_no_more_children_come_than_are_asked_for(opened: Open) -> None:
    nodes = [node("/d", None, dir=True), *[node(f"/d/{number}") for number in range(5)], node("/d/1/x")]

    async def test(store: AsyncStore) -> None:
        await store.write(nodes, [], 1, 1)
        children = await store.children("/d")
        assert len(children) == 5
        for limit in (0, 1, 4, 5, 9):
            some = await store.children("/d", limit)
            assert len(some) == min(limit, 5)
            assert set(children).issuperset(some)

    run(opened, test)


def test_a_listing_is_the_node_and_what_is_in_it(opened: Open) -> None:
    long = "/d/" + "k" * MAX_PLAIN
    keys = ["/d", "/d.x", "/d/a", "/d/a/b", "/da", long, long + "/x", "//own", "//own/x"]
    nodes = {key: node(key) for key in keys}

    async def test(store: AsyncStore) -> None:
        await store.write(nodes.values(), [], 1, 1)

        async def keys_of(key: str, recursive: bool) -> list[str]:
            listing = await store.listing(key, recursive)
            assert all(each == nodes[each.key] for each in listing)
            return [each.key for each in listing]

        assert await keys_of("/d", False) == ["/d", "/d/a", long]
        assert await keys_of("/d", True) == ["/d", "/d/a", "/d/a/b", long, long + "/x"]
        assert await keys_of(long, False) == await keys_of(long, True) == [long, long + "/x"]
        assert await keys_of("/", False) == ["//own", "/d", "/d.x", "/da"]
        assert await keys_of("/", True) == sorted(keys)
        assert await keys_of("//own", True) == ["//own", "//own/x"]
        assert await keys_of("/no", True) == await keys_of("/no", False) == []

    run(opened, test)


def test_what_has_expired_comes_in_the_order_of_its_time(opened: Open) -> None:
    times = {"/e": 30, "/d": 10, "/c": 20, "/b": 20, "/never": None}

    async def test(store: AsyncStore) -> None:
        await store.write([node(key, expiration=time) for key, time in times.items()], [], 1, 1)
        assert [each.key for each in await store.expired(9)] == []
        assert [each.key for each in await store.expired(20)] == ["/d", "/b", "/c"]
        await store.write([node("/b")], ["/c"], 2, 2)
        assert [each.key for each in await store.expired(2**62)] == ["/d", "/e"]
        assert [await store.next_expiration(time) for time in (0, 10, 29, 30)] == [10, 30, 30, None]

    run(opened, test)


PATHS = st.lists(st.sampled_from(["a", "b", "a-", "\udcff"]), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)
NODES = st.builds(
    Node,
    PATHS,
    st.none() | st.binary(max_size=4).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.integers(1, 9),
)
WRITES = st.lists(st.tuples(st.lists(NODES, max_size=6), st.lists(PATHS, max_size=3)), max_size=5)


def consistent(model: HashMapStore, upserts: list[Node], deletes: list[str]) -> tuple[list[Node], list[str]]:
    """As the keyspace writes: each key once, no node without its parents, no parent without its nodes."""
    gone = {below.key for key in deletes for below in model.descendants(key)} | set(deletes)
    kept: dict[str, Node] = {}
    for each in upserts:
        ancestors = ["/".join(each.key.split("/")[:n]) for n in range(2, each.key.count("/") + 1)]
        if not gone & {each.key, *ancestors}:
            kept |= {
                key: node(key, None, dir=True) for key in ancestors if key not in kept and not model.get(key)
            }
            kept[each.key] = each
    return list(kept.values()), sorted(gone)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WRITES)
def test_every_store_agrees_with_the_hash_map(
    opened: Open, writes: list[tuple[list[Node], list[str]]]
) -> None:
    async def test(store: AsyncStore) -> None:
        model = HashMapStore()
        await store.write([], [each.key for each in await store.descendants("/")], 0, store.applied + 1)
        for upserts, deletes in writes:
            kept, gone = consistent(model, upserts, deletes)
            model.write(kept, gone, 1, 1)
            await store.write(kept, gone, 1, store.applied + 1)
        assert await store.descendants("/") == model.descendants("/")
        for key in ("/", "/a", "/a-", "/\udcff", "/a/b"):
            assert await store.children(key) == model.children(key)
            assert await store.descendants(key) == model.descendants(key)
            for recursive in (False, True):
                assert await store.listing(key, recursive) == model.listing(key, recursive)
        for time in (0, 5, 9):
            assert await store.expired(time) == model.expired(time)
            assert await store.next_expiration(time) == model.next_expiration(time)

    run(opened, test)


def test_readers_beside_a_writer_never_see_half_a_write_and_are_never_refused(
    opened: Open, kind: Kind
) -> None:
    keys = [f"/k{number}" for number in range(20)]

    async def test(store: AsyncStore) -> None:
        done = asyncio.Event()
        seen = 0

        async def read() -> None:
            nonlocal seen
            while not done.is_set():
                found = await store.get_many(keys)
                assert len({each and each.value for each in found.values()}) == 1
                listed = await store.children("/")
                assert len({each.value for each in listed}) <= 1
                seen += 1
                await asyncio.sleep(0)

        readers = [asyncio.create_task(read()) for _ in range(6)]
        for number in range(60):
            await store.write([node(key, str(number)) for key in keys], [], number, number + 1)
            await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*readers)
        assert seen >= 6

    run(opened, test)


def test_a_listing_beside_a_writer_is_of_one_moment(opened: Open) -> None:
    keys = ["/d", *[f"/d/{number}" for number in range(9)], *[f"/d/1/{number}" for number in range(9)]]

    async def test(store: AsyncStore) -> None:
        await store.write([node(key) for key in keys], [], 0, 1)
        done = asyncio.Event()

        async def read() -> None:
            while not done.is_set():
                for recursive in (False, True):
                    listing = await store.listing("/d", recursive)
                    assert len({each.value for each in listing}) == 1
                    assert len(listing) in ((11, 19) if recursive else (10, 10))
                await asyncio.sleep(0)

        readers = [asyncio.create_task(read()) for _ in range(4)]
        for number in range(40):
            gone = keys[-8:] if number % 2 else []
            written = [node(key, str(number)) for key in keys if key not in gone]
            await store.write(written, gone, number, number + 2)
            await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*readers)

    run(opened, test)


def test_threads_that_list_what_is_in_a_dict_see_no_half_of_a_write() -> None:
    """Whole directories come and go while they are looked through."""
    store = HashMapStore()
    keys = ["/d", *[f"/d/{number}" for number in range(300)]]
    store.write([node(key) for key in keys], [], 0, 0)
    sizes = set()
    done = threading.Event()

    def write() -> None:
        for number in range(1, 150):
            gone, made = (keys, []) if number % 2 else ([], keys)
            store.write([node(key, str(number)) for key in made], gone, number, number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        for recursive in (False, True):
            listing = store.listing("/d", recursive)
            assert len({each.value for each in listing}) <= 1
            sizes.add(len(listing))
        sizes.add(len(store.children("/d")) and len(keys))
    writer.join()
    assert sizes <= {0, len(keys)}


# --- what only a database can do ----------------------------------------------------------------------------------


@pytest.fixture
def database(kind: Kind, opened: Open) -> Open:
    if not kind.sql:
        pytest.skip("not a database")
    return opened


@pytest.fixture
def lasting(kind: Kind, opened: Open) -> Open:
    if kind.url is None:
        pytest.skip("it ends with the process")
    return opened


def test_after_a_restart_nodes_and_marks_are_as_they_were(lasting: Open) -> None:
    async def before(store: AsyncStore) -> None:
        await store.write(STRANGE, [], 7, 12)

    async def after(store: AsyncStore) -> None:
        assert (store.index, store.applied) == (7, 12)
        assert await store.get_many([each.key for each in STRANGE]) == {each.key: each for each in STRANGE}

    run(lasting, before)
    run(lasting, after)


@pytest.mark.parametrize("other", [Owner("c2", "m1"), Owner("c1", "m2")])
def test_another_members_database_is_refused_and_left_alone(lasting: Open, other: Owner) -> None:
    async def write(store: AsyncStore) -> None:
        await store.write([node("/a")], [], 1, 1)

    async def read(store: AsyncStore) -> None:
        assert (store.index, store.applied) == (1, 1)

    run(lasting, write)
    with pytest.raises(
        StoreError,
        match=f"belongs to member m1 of cluster c1, and this is member {other.member} of cluster {other.cluster}",
    ):
        run(partial(lasting, owner=other), read)
    run(lasting, read)


def test_a_database_without_an_owner_is_its_who_claims_it_first_and_stays_so(lasting: Open) -> None:
    unowned = partial(lasting, owner=None)

    async def claim(store: AsyncStore) -> None:
        await store.write([node("/a")], [], 1, 1)
        await store.claim("c1", "m1")
        await store.claim("c1", "m1")

    async def claim_again(store: AsyncStore) -> None:
        await store.claim("c1", "m1")
        with pytest.raises(StoreError, match="belongs to member m1 of cluster c1, and this is member m2 of"):
            await store.claim("c1", "m2")
        assert (store.index, store.applied) == (1, 1)
        assert await store.get_many(["/a"]) == {"/a": node("/a")}

    run(unowned, claim)
    run(unowned, claim_again)
    run(lasting, claim_again)
    with pytest.raises(StoreError, match="belongs to member m1"):
        run(partial(lasting, owner=Owner("c2", "m1")), claim)


def test_a_write_that_breaks_a_rule_is_a_bug_and_changes_nothing(database: Open) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([node("/a", "x")], [], 1, 1)
        broken = Node("/b", "y", None, 1)  # type: ignore[arg-type]
        with pytest.raises(Exception, match=r"(?i)null") as raised:
            await store.write([node("/a", "z"), broken], [], 2, 2)
        assert not isinstance(raised.value, ConnectionError)
        assert (store.index, store.applied) == (1, 1)
        assert await store.get_many(["/a", "/b"]) == {"/a": node("/a", "x"), "/b": None}
        await store.settle()
        assert (store.index, store.applied) == (1, 1)

    run(database, test)


def test_a_database_that_somebody_else_writes_to_is_noticed(lasting: Open) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([node("/a")], [], 1, 1)
        async with lasting() as other:
            await other.write([node("/b")], [], 2, 2)
            with pytest.raises(StoreError, match="not as this node left it, at entry 1"):
                await store.write([node("/c")], [], 2, 2)
            assert await store.children("/") == [node("/a"), node("/b")]

    run(lasting, test)


def test_writes_that_nothing_keeps_apart_may_come_in_any_order(database: Open) -> None:
    async def test(store: AsyncStore) -> None:
        await asyncio.gather(*(store.write([node(f"/k{n}")], [], 1, 9 - n) for n in range(8)))
        assert len(await store.children("/")) == 8

    run(database, test, one_at_a_time=False)


def test_a_database_that_went_back_in_time_ends_the_node(lasting: Open) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([node("/a")], [], 1, 8)
        async with lasting(one_at_a_time=False) as other:
            await other.write([], [], 1, 3)
        with pytest.raises(StoreError, match="back at entry 3, and was at 8"):
            await store.settle()

    run(lasting, test)


def test_marks_are_read_anew_when_a_write_is_in_doubt(lasting: Open) -> None:
    async def test(store: AsyncStore) -> None:
        async with lasting() as made_it:
            await made_it.write([node("/a")], [], 1, 8)
        await store.settle()
        assert (store.index, store.applied) == (1, 8)

    run(lasting, test)


# --- databases that are away --------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(kind: Kind, opened: Open) -> Open:
    if not (kind.url or "").startswith("postgresql"):
        pytest.skip("not PostgreSQL")
    return opened


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_server_that_is_away_is_said_to_be_and_is_used_again_when_it_is_back(
    on_postgres: Open, postgres: PostgresServer, ending: str
) -> None:
    async def test(store: AsyncStore) -> None:
        await store.write([node("/a")], [], 1, 1)
        await store.get_many(["/a"])
        getattr(postgres, ending)()
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.get_many(["/a"])
                with pytest.raises(StoreUnavailable):
                    await store.write([node("/b")], [], 2, 2)
                with pytest.raises(StoreUnavailable):
                    await store.settle()
        finally:
            postgres.start()
        await store.settle()
        assert (store.index, store.applied) == (1, 1)
        await store.write([node("/b")], [], 2, 2)
        assert await store.children("/") == [node("/a"), node("/b")]

    run(on_postgres, test)


def test_a_server_that_is_away_at_the_start(on_postgres: Open, postgres: PostgresServer) -> None:
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable, match="the database is away"):
            run(on_postgres, lambda store: asyncio.sleep(0))
    finally:
        postgres.start()


def test_a_file_that_somebody_else_holds_is_away_until_he_lets_go(
    kind: Kind, opened: Open, tmp_path: Path
) -> None:
    if not (kind.url or "").startswith("sqlite"):
        pytest.skip("not a file")

    async def test(store: AsyncStore) -> None:
        other = sqlite3.connect(tmp_path / "nodes.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.write([node("/a")], [], 1, 1)
        assert await store.get_many(["/a"]) == {"/a": None}
        other.rollback()
        other.close()
        await store.settle()
        await store.write([node("/a")], [], 1, 1)
        assert await store.get_many(["/a"]) == {"/a": node("/a")}

    run(opened, test)


# --- which database -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url", "no URL"),
        ("mysql://localhost/x", "mysql is not served, only sqlite and postgresql"),
        ("sqlite+aiosqlite:///x", r"not a driver for this service; write sqlite\+pysqlite://"),
        ("postgresql+asyncpg://me:secret@h/x", r"me:\*\*\*@h/x: asyncpg is not a driver"),
    ],
)
def test_a_url_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        Database.parse(url, "blocking", durable=False)


@pytest.mark.parametrize(
    "url", [None, "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_sqlite_in_memory_is_this_stores_own(url: str | None) -> None:
    async def test() -> None:
        async with KINDS["SQLite in memory"].open(url) as one, KINDS["SQLite in memory"].open(url) as two:
            await one.write([node("/a")], [], 1, 1)
            assert await two.children("/") == []

    asyncio.run(test())


def test_a_file_of_a_service_without_a_log_is_written_through_to_the_disk(tmp_path: Path) -> None:
    for durable, expected in ((True, 2), (False, 1)):
        writer, readers = Database.parse(f"sqlite:///{tmp_path}/d", "blocking", durable=durable).engines()
        with writer.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == expected
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        writer.dispose()
        readers.dispose()
