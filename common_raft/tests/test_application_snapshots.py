"""The API by which a node takes a service's state, and gives it another: piece by piece, each once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import Struct

from common_raft.keyspace import (
    AsyncKeyspace,
    Command,
    Delete,
    Event,
    HashMapStore,
    Keyspace,
    Node,
    Set,
    StoreUnavailable,
)
from common_raft.keyspace.commands import encode as batch
from common_raft.keyspace.hashmap import HashMapReplacement
from common_raft.stores import AsyncSqlStore, Database, PooledKeyspace, SqlStore
from common_raft.tests.stores_under_test import clock
from common_raft.web import application as module
from common_raft.web.application import AsyncApplication, BlockingApplication, application
from common_raft.web.application_wire import (
    APPLY,
    READ,
    RESTORE,
    SNAPSHOT,
    Applied,
    Apply,
    Found,
    Marks,
    Piece,
    PutPiece,
    Read,
    TakePiece,
    decode,
    encode,
)
from common_raft.web.response import Response

CLUSTER, NODE = 7, 1
LARGE = "x" * 200_000
Service = BlockingApplication | AsyncApplication


@asynccontextmanager
async def in_memory(_directory: Path) -> AsyncIterator[Any]:
    yield Keyspace(HashMapStore(), clock)


@asynccontextmanager
async def blocking(directory: Path) -> AsyncIterator[Any]:
    with closing(SqlStore(Database.parse(None, "blocking", durable=False), None)) as store:
        yield Keyspace(store, clock)


@asynccontextmanager
async def blocking_file(directory: Path) -> AsyncIterator[Any]:
    database = Database.parse(f"sqlite:///{directory / 'blocking.db'}", "blocking", durable=False)
    with closing(SqlStore(database, None)) as store:
        yield Keyspace(store, clock)


@asynccontextmanager
async def pooled(directory: Path) -> AsyncIterator[Any]:
    async with blocking(directory) as keyspace:
        yield PooledKeyspace(keyspace)


@asynccontextmanager
async def awaited(directory: Path) -> AsyncIterator[Any]:
    store = AsyncSqlStore(Database.parse(None, "async", durable=False))
    try:
        await store.open(None)
        yield AsyncKeyspace(store, clock)
    finally:
        await store.close()


@asynccontextmanager
async def awaited_file(directory: Path) -> AsyncIterator[Any]:
    store = AsyncSqlStore(Database.parse(f"sqlite:///{directory / 'awaited.db'}", "async", durable=False))
    try:
        await store.open(None)
        yield AsyncKeyspace(store, clock)
    finally:
        await store.close()


Open = Callable[[Path], AbstractAsyncContextManager[Any]]
KINDS = pytest.mark.parametrize(
    "kind",
    [in_memory, blocking, blocking_file, pooled, awaited, awaited_file],
    ids=lambda kind: kind.__name__,
)
#: One of each kind of application.
BOTH = pytest.mark.parametrize("kind", [blocking, awaited], ids=lambda kind: kind.__name__)


class Driver:
    """What a node knows of its service, and asks of it."""

    def __init__(self, api: Service, node: int = NODE) -> None:
        self.api, self.node = api, node
        self.instance, self.applied = "", 0

    async def send(self, path: str, message: Struct) -> Response:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Response] = loop.create_future()
        request = "POST", path.encode(), None, encode(message)
        async with asyncio.timeout(10):
            if isinstance(self.api, AsyncApplication):
                self.api.handle(*request, future.set_result)
            else:  # in a thread, as a servlet's
                put = lambda response: loop.call_soon_threadsafe(future.set_result, response)  # noqa: E731
                await asyncio.to_thread(self.api.handle, *request, put)
            return await future

    async def meet(self) -> None:
        marks = decode((await self.send(APPLY, Apply(CLUSTER, self.node, "", 0, 0, []))).body, Marks)
        self.instance, self.applied = marks.instance, marks.applied

    async def apply(self, *commands: Command, entries: int = 1) -> Response:
        after, self.applied = self.applied, self.applied + entries
        batches = [(batch(commands), True)] if commands else []
        request = Apply(CLUSTER, self.node, self.instance, after, self.applied, batches)
        response = await self.send(APPLY, request)
        assert response.status == 200, response
        assert decode(response.body, Applied).marks.applied == self.applied
        return response

    async def values(self, *keys: str) -> list[str | None]:
        response = await self.send(READ, Read(self.instance, list(keys)))
        assert response.status == 200, response
        found = decode(response.body, Found).outcomes
        return [each.node.value if isinstance(each, Event) else None for each in found]

    async def take(self, name: str, number: int) -> Response:
        return await self.send(
            SNAPSHOT, TakePiece(CLUSTER, self.node, self.instance, self.applied, name, number)
        )

    async def pieces(self, name: str, begin: int = 0) -> list[bytes]:
        """What is left of a snapshot, from piece ``begin`` on."""
        taken = []
        while True:
            response = await self.take(name, begin + len(taken))
            assert response.status == 200, response
            piece = decode(response.body, Piece)
            taken.append(piece.data)
            if piece.last:
                return [data for data in taken if data]

    async def put(self, name: str, number: int, data: bytes, *, applied: int, last: bool = False) -> Response:
        request = PutPiece(CLUSTER, self.node, self.instance, applied, name, number, data, last)
        return await self.send(RESTORE, request)

    async def put_all(self, name: str, chunks: list[bytes], applied: int) -> Marks:
        for number, chunk in enumerate(chunks):
            last = number == len(chunks) - 1
            response = await self.put(name, number, chunk, applied=applied, last=last)
            assert response.status == 200, response
        marks = decode(response.body, Marks)
        self.applied = marks.applied
        return marks


@asynccontextmanager
async def service(kind: Open, directory: Path) -> AsyncIterator[Driver]:
    async with kind(directory) as keyspace:
        api = application(keyspace)
        driver = Driver(api)
        await driver.meet()
        try:
            yield driver
        finally:
            await close(api)


async def close(api: Service) -> None:
    if isinstance(api, AsyncApplication):
        await api.close()
    else:
        api.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    uvloop.run(scenario())  # type: ignore[arg-type]


def commands(count: int = 1500) -> list[Command]:
    odd: list[Command] = [Set("/large", LARGE), Set("/not UTF-8 \udcff", "\udcfe"), Delete("/key-7")]
    return [*[Set(f"/key-{number}", f"value {number}" * 20) for number in range(count)], *odd]


def expected(applied: int) -> list[bytes]:
    """The snapshot of a keyspace with these ``commands``."""
    keyspace = Keyspace(HashMapStore(), clock)
    keyspace.apply([(batch(commands()), False)], 1)
    return [chunk for chunk in keyspace.snapshot(applied) if chunk]


@KINDS
def test_the_state_is_taken_as_the_bytes_of_an_embedded_keyspace_and_later_changes_do_not_show(
    tmp_path: Path, kind: Open
) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(*commands())
            await driver.apply(entries=3)
            first = decode((await driver.take("s", 0)).body, Piece)
            at, applied = driver.applied, driver.applied + 1
            await driver.apply(Set("/key-1", "later"), Delete("/key-2"), Set("/new", "later"))
            driver.applied = at  # what the snapshot stands for
            rest = await driver.pieces("s", begin=1)
            assert [first.data, *rest] == expected(at)
            driver.applied = applied
            assert await driver.values("/key-1", "/key-2", "/new") == ["later", None, "later"]

    run(scenario)


@KINDS
def test_a_snapshot_takes_the_place_of_all_that_is_there(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/old", "1"), Set("/key-1", "old"))
            marks = await driver.put_all("r", expected(40), 40)
            assert marks == Marks(
                driver.instance, 1503, 40, expires=0
            )  # which is for the next Expire to find out
            assert await driver.values("/old", "/key-1", "/key-7") == [None, "value 1" * 20, None]
            await driver.apply(Set("/key-1", "2"))
            assert await driver.values("/key-1", "/not UTF-8 \udcff") == ["2", "\udcfe"]
            assert len(await driver.pieces("s")) == len(expected(41))

    run(scenario)


@BOTH
def test_a_piece_asked_for_again_is_the_same_and_no_other_is_given(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(*commands())
            first = await driver.take("s", 0)
            assert await driver.take("s", 0) == first
            second = await driver.take("s", 1)
            assert await driver.take("s", 1) == second != first
            for name, number in (("s", 0), ("s", 3), ("another", 1), ("", 0)):
                refusal = await driver.take(name, number)
                assert refusal.status == 409
                assert decode(refusal.body, Marks) == Marks(driver.instance, 1503, 1)
            rest = await driver.pieces("s", begin=2)
            taken = [decode(each.body, Piece).data for each in (first, second)]
            assert [*filter(None, taken), *rest] == expected(1)

    run(scenario)


@BOTH
def test_the_end_of_a_snapshot_may_be_asked_for_again(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            number = 0
            while not decode((last := await driver.take("s", number)).body, Piece).last:
                number += 1
            assert await driver.take("s", number) == last
            assert (await driver.take("s", number + 1)).status == 409

    run(scenario)


@BOTH
def test_a_piece_that_is_sent_again_is_not_put_there_again(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            chunks = expected(40)
            for number, chunk in enumerate(chunks):
                last = number == len(chunks) - 1
                answer = await driver.put("r", number, chunk, applied=40, last=last)
                assert await driver.put("r", number, chunk, applied=40, last=last) == answer
                assert answer.status == 200
                for other in (number - 1, number + 2):
                    assert (await driver.put("r", other, chunk, applied=40)).status == 409
            driver.applied = 40
            assert await driver.pieces("s") == chunks

    run(scenario)


@BOTH
def test_a_state_that_does_not_stand_for_where_the_service_is_is_not_given(
    tmp_path: Path, kind: Open
) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/a", "1"), entries=5)
            for driver.applied in (0, 4, 6):
                assert (await driver.take(f"s{driver.applied}", 0)).status == 409
            driver.applied, driver.instance = 5, "of an earlier start"
            assert (await driver.take("s", 0)).status == 409

    run(scenario)


@BOTH
@pytest.mark.parametrize("applied", [3, 5])
def test_a_service_is_not_set_back_to_what_it_has_already(tmp_path: Path, kind: Open, applied: int) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/a", "1"), entries=5)
            refusal = await driver.put("r", 0, expected(applied)[0], applied=applied)
            assert (refusal.status, decode(refusal.body, Marks).applied) == (409, 5)
            assert await driver.values("/a") == ["1"]

    run(scenario)


@BOTH
def test_another_node_and_another_instance_neither_take_nor_put(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/a", "1"))
            other = Driver(driver.api, NODE + 1)
            other.instance, other.applied = driver.instance, driver.applied
            stale = Driver(driver.api)
            stale.instance, stale.applied = "of an earlier start", driver.applied
            for each, status in ((other, 403), (stale, 409)):
                assert (await each.take("s", 0)).status == status
                assert (await each.put("r", 0, expected(40)[0], applied=40)).status == status
            assert await driver.values("/a") == ["1"]

    run(scenario)


@KINDS
def test_nothing_is_read_while_a_snapshot_is_put_there_and_all_is_as_it_was_if_it_does_not_go_on(
    tmp_path: Path, kind: Open
) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/key-1", "old"))
            first, second, *_ = expected(40)
            await driver.put("r", 0, first, applied=40)
            await driver.put("r", 1, second, applied=40)
            refusal = await driver.send(READ, Read(driver.instance, ["/key-1"]))
            assert (refusal.status, refusal.body) == (503, b"a snapshot is being restored\n")
            await driver.apply(Set("/key-2", "new"))
            assert await driver.values("/key-1", "/key-2", "/key-3") == ["old", "new", None]
            assert (await driver.put("r", 2, second, applied=40)).status == 409

    run(scenario)


@KINDS
def test_a_restore_that_is_begun_anew_ends_the_one_before(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            first, second, *_ = expected(40)
            await driver.put("given up", 0, first, applied=40)
            await driver.put("given up", 1, second, applied=40)
            await driver.put_all("r", expected(41), 41)
            assert await driver.pieces("s") == expected(41)
            assert (await driver.put("given up", 2, second, applied=40)).status == 409

    run(scenario)


@KINDS
def test_a_restore_ends_a_snapshot_that_is_being_taken_and_so_does_another_one(
    tmp_path: Path, kind: Open
) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(*commands())
            for name in ("first", "second"):
                await driver.take(name, 0)
            assert (await driver.take("first", 1)).status == 409
            assert (await driver.take("second", 1)).status == 200
            await driver.put_all("r", expected(40), 40)
            assert (await driver.take("second", 2)).status == 409

    run(scenario)


@KINDS
def test_a_snapshot_that_the_node_does_not_go_on_taking_is_let_go_of(
    tmp_path: Path, kind: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(*commands())
            await driver.take("s", 0)
            await driver.apply(Set("/a", "1"))
            assert driver.api._view is not None
            monkeypatch.setattr(module, "LAPSE", 0)
            await driver.apply(Set("/a", "2"))
            assert driver.api._view is None
            assert (await driver.take("s", 1)).status == 409

    run(scenario)


@KINDS
def test_what_is_no_snapshot_is_said_and_changes_nothing(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/key-1", "old"))
            first, second, *_, last = expected(40)
            for bad in (
                [b"", last],
                [second, last],
                [first, b"N\xc1", last],
                [first, second, last],
                [first, second],
            ):
                *before, end = bad
                name = repr(bad)[-20:]
                answers = [
                    await driver.put(name, number, chunk, applied=40) for number, chunk in enumerate(before)
                ]
                answers.append(await driver.put(name, len(before), end, applied=40, last=True))
                refusal = next(each for each in answers if each.status != 200)
                assert refusal.status == 400
                assert re.fullmatch(rb"/application/restore: .*snapshot.*\n", refusal.body)
            assert await driver.values("/key-1") == ["old"]
            await driver.put_all("good", expected(40), 40)

    run(scenario)


@KINDS
def test_a_service_that_ends_lets_go_of_what_is_under_way(tmp_path: Path, kind: Open) -> None:
    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/key-1", "old"))
            await driver.take("s", 0)
            await close(driver.api)
            assert (await driver.take("s", 1)).status == 409
            first, second, *_ = expected(40)
            await driver.put("r", 0, first, applied=40)
            await driver.put("r", 1, second, applied=40)
            await close(driver.api)
            assert await driver.values("/key-1") == ["old"]

    run(scenario)


class Failing(HashMapStore):
    """Loses its database in a replacement's ``add``, or in its ``commit``, which was made, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: str | None = None

    def replace(self, index: int, applied: int) -> HashMapReplacement:
        return FailingReplacement(self, index, applied)

    def settle(self) -> None:
        """The marks are read anew."""
        if self.fails == "commit that was made":
            self.index, self.applied = self.made
        self.fails = None


class FailingReplacement(HashMapReplacement):
    def add(self, nodes: Iterable[Node]) -> None:
        self.fail("add")
        super().add(list(nodes))

    def commit(self) -> None:
        store = self._store
        assert isinstance(store, Failing)
        before = store.index, store.applied
        self.fail("commit that was not made")
        super().commit()
        store.made = store.index, store.applied
        if store.fails:
            store.index, store.applied = before
            self.fail("commit that was made")

    def fail(self, where: str) -> None:
        assert isinstance(self._store, Failing)
        if self._store.fails == where:
            raise StoreUnavailable("the connection broke")


@pytest.mark.parametrize("in_pool", [False, True])
@pytest.mark.parametrize("where", ["add", "commit that was not made", "commit that was made"])
def test_a_store_that_goes_away_during_a_restore_has_all_or_nothing_and_that_is_found_out(
    tmp_path: Path, where: str, in_pool: bool
) -> None:
    @asynccontextmanager
    async def kind(_: Path) -> AsyncIterator[Any]:
        yield PooledKeyspace(Keyspace(store, clock)) if in_pool else Keyspace(store, clock)

    store = Failing()

    async def scenario() -> None:
        async with service(kind, tmp_path) as driver:
            await driver.apply(Set("/old", "1"))
            chunks = expected(40)
            store.fails = where
            answers = [
                await driver.put("r", number, chunk, applied=40, last=number == len(chunks) - 1)
                for number, chunk in enumerate(chunks)
            ]
            failed = next(each for each in answers if each.status != 200)
            assert (failed.status, b"the connection broke" in failed.body) == (503, True)
            marks = decode((await driver.put("r", 1, chunks[1], applied=40)).body, Marks)
            if where == "commit that was made":
                assert marks.applied == 40
                driver.applied = 40
            else:
                assert marks.applied == 1
                store.fails = None
                await driver.put_all("again", chunks, 40)
            assert await driver.pieces("s") == chunks

    run(scenario)
