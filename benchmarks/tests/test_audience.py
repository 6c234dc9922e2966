import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import audience as audience_module
from benchmarks.audience import STREAM, WAIT, Audience
from benchmarks.errors import BenchmarkError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'{"action":"set"}\n'
KINDS = pytest.mark.parametrize("kind", [WAIT, STREAM])


class Node:
    """Speaks as much of HTTP as watchers and a writer need; ``pieces``: byte by byte; ``late``: answers end later."""

    def __init__(self) -> None:
        self.pieces = self.late = self.deaf = False
        self.refuses = b""
        self.waiting: list[tuple[asyncio.StreamWriter, bool]] = []
        self.watched: set[asyncio.StreamWriter] = set()
        self.writes = 0
        self.others: list[Node] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if self.refuses:
                writer.write(self.refuses)
            elif head.startswith(b"GET /v2/keys/watched?wait=true"):
                self.watched.add(writer)
                if self.late:
                    await asyncio.sleep(0.06)  # answers keep their order
                self.waiting.append((writer, b"stream=true" in head))
                await self.send(writer, HEAD)
            else:
                assert head.startswith(b"PUT /v2/keys/watched HTTP/1.1\r\n")
                assert (await reader.readexactly(7)).startswith(b"value=")
                self.writes += 1
                for node in (self, *self.others):
                    await node.tell()
                writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 17\r\n\r\n" + EVENT)

    async def tell(self) -> None:
        told, self.waiting = self.waiting, [each for each in self.waiting if each[1]]
        for writer, stream in [] if self.deaf else told:
            await self.send(writer, b"11\r\n" + EVENT)
            await self.send(writer, b"\r\n" if stream else b"\r\n0\r\n\r\n", late=self.late)

    async def send(self, writer: asyncio.StreamWriter, data: bytes, *, late: bool = False) -> None:
        if late:
            asyncio.get_running_loop().call_later(0.03, writer.write, data)
        elif self.pieces:
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.0005)
        else:
            writer.write(data)


@asynccontextmanager
async def nodes(number: int = 1) -> AsyncIterator[list[Node]]:
    found = [Node() for _ in range(number)]
    servers = [await asyncio.start_server(node.serve, "127.0.0.1", 0) for node in found]
    for node, server in zip(found, servers, strict=True):
        node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    for server in servers:
        server.close()


async def heard(found: list[Node], kind: str, size: int, events: int) -> list[list[float]]:
    took = []
    async with Audience([node.url for node in found], size, kind) as audience:
        for _ in range(events):
            took.append(await audience.tell())
            await audience.ready()
    return took


@KINDS
@pytest.mark.parametrize("how", ["at once", "pieces", "late"])
def test_each_watcher_hears_of_each_write(kind: str, how: str):
    async def test() -> None:
        async with nodes() as [node]:
            node.pieces, node.late = how == "pieces", how == "late"
            took = await heard([node], kind, 4, 3)
            assert [len(each) for each in took] == [4, 4, 4]
            assert all(0 < each < 10 for event in took for each in event)
            assert (len(node.watched), node.writes) == (4, 3)

    asyncio.run(test())


@KINDS
def test_watchers_are_spread_over_the_nodes_and_writes_go_through_each_in_turn(kind: str):
    async def test() -> None:
        async with nodes(2) as [one, other]:
            one.others, other.others = [other], [one]
            await heard([one, other], kind, 6, 4)
            assert len(one.watched) == len(other.watched) == 3
            assert one.writes == other.writes == 2

    asyncio.run(test())


def failing(prepare, within: float, monkeypatch: pytest.MonkeyPatch, match: str) -> None:
    monkeypatch.setattr(audience_module, "PATIENCE", within)

    async def test() -> None:
        async with nodes() as [node], Audience([node.url], 3, WAIT) as audience:
            prepare(node)
            await audience.tell()

    with pytest.raises(BenchmarkError, match=match):
        asyncio.run(test())


def test_a_watcher_that_hears_nothing_is_told(monkeypatch: pytest.MonkeyPatch):
    def prepare(node: Node) -> None:
        node.deaf = True

    failing(prepare, 0.2, monkeypatch, r"http://127\.0\.0\.1:\d+: 3 of 3 watchers got nothing within 0\.2 s")


def test_a_write_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch):
    def prepare(node: Node) -> None:
        node.refuses = b'HTTP/1.1 500 Oh\r\nContent-Length: 17\r\n\r\n{"message":"no"}\n'

    failing(prepare, 20, monkeypatch, r'(?s)a node answers HTTP/1\.1 500 Oh.*"message":"no"')


def test_a_watcher_whose_node_goes_is_told(monkeypatch: pytest.MonkeyPatch):
    def prepare(node: Node) -> None:
        node.waiting[1][0].close()

    failing(prepare, 20, monkeypatch, "a connection is lost: the node has closed it")


def test_a_node_that_lets_nobody_watch_is_told():
    async def test() -> None:
        async with nodes() as [node]:
            node.refuses = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
            async with Audience([node.url], 3, WAIT):
                pass

    with pytest.raises(BenchmarkError, match=r"a node answers HTTP/1\.1 503 Service Unavailable"):
        asyncio.run(test())


def test_where_nobody_listens_there_is_no_audience():
    async def test() -> None:
        async with Audience(["http://127.0.0.1:1"], 3, WAIT):
            pass

    with pytest.raises(BenchmarkError, match=r"no connection to http://127\.0\.0\.1:1"):
        asyncio.run(test())
