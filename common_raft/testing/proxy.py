"""What stands between real nodes, so that their links can be cut, each direction by itself.

Every node is told to dial the others at a port of this proxy.  A link carries what one node says to another, and its
hello tells whose it is (`transport.links`), so that what A says to B can be cut while what B says to A goes through:
no root and no network namespace is needed.

A link that is *held* passes nothing and stays open, as when packets vanish; what was said meanwhile arrives late,
once the link passes again.  One that is *broken* is closed, and nobody gets a new one.  A slow link passes everything
late.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from enum import Enum
from functools import partial
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common_raft.service.cluster import build_cluster, parse_initial_cluster, parse_urls
from common_raft.testing.processes import HOST, NodeProcess, ProcessCluster, free_ports
from common_raft.transport.codec import FrameError, FrameReader
from common_raft.transport.messages import Hello, Inquiry

#: What is passed on at a time; behind it a link's own buffers fill, and hold the sender back.
CHUNK_BYTES = 64 << 10


class State(Enum):
    PASSING = "passing"
    HELD = "held"
    BROKEN = "broken"


class _Link:
    """One direction between two nodes."""

    def __init__(self) -> None:
        self.state = State.PASSING
        self.delay = 0.0
        self.passing = asyncio.Event()
        self.passing.set()
        self.connections: set[asyncio.StreamWriter] = set()

    def become(self, state: State, delay: float) -> None:
        self.state, self.delay = state, delay
        if state is State.PASSING:
            self.passing.set()
        else:
            self.passing.clear()
        if state is State.BROKEN:
            for connection in self.connections:
                connection.transport.abort()

    async def pass_on(self, data: bytes, to: asyncio.StreamWriter) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self.passing.wait()
        to.write(data)
        await to.drain()


class Proxy:
    """All links between some nodes, served by a thread of its own.  Use it in a ``with``.

    :param dialled: the port at which each node is dialled, by name
    :param listening: the port on which it really listens
    :param names: the node of each member id, as it says it in its hello
    """

    def __init__(
        self, dialled: Mapping[str, int], listening: Mapping[str, int], names: Mapping[int, str]
    ) -> None:
        self._dialled = dict(dialled)
        self._listening = dict(listening)
        self._names = dict(names)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: dict[tuple[str, str], _Link] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def set(
        self, links: Sequence[tuple[str, str]], state: State = State.PASSING, *, delay: float = 0.0
    ) -> None:
        """Makes what the first of each pair says to the second pass, be held or be broken, from now on.

        ``delay``: seconds for each piece that passes.
        """
        self._run(self._set(links, state, delay))

    def add(self, name: str, member_id: int, dialled: int, listening: int) -> None:
        """Another node, see the parameters of this class."""
        self._run(self._add(name, member_id, dialled, listening))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, links: Sequence[tuple[str, str]], state: State, delay: float) -> None:
        for pair in links:
            self._links[pair].become(state, delay)

    async def _add(self, name: str, member_id: int, dialled: int, listening: int) -> None:
        for other in self._dialled:
            self._links[name, other], self._links[other, name] = _Link(), _Link()
        self._names[member_id], self._listening[name] = name, listening
        self._dialled[name] = dialled
        self._servers.append(await asyncio.start_server(partial(self._accepted, name), HOST, dialled))

    async def _open(self) -> None:
        self._links = {pair: _Link() for pair in permutations(self._dialled, 2)}
        for name, port in self._dialled.items():
            self._servers.append(await asyncio.start_server(partial(self._accepted, name), HOST, port))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accepted(
        self, receiver: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(receiver, reader, writer)
        except (OSError, FrameError):
            pass  # either end is gone, or speaks another language: both see the connection end
        except asyncio.CancelledError:
            pass  # the proxy is closed; asyncio's streams would report it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, receiver: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said, hello = await _hello(reader)
        if hello is None:
            await self._pass_inquiry(receiver, said, writer)
            return
        link = self._links[self._names[hello.sender], receiver]
        if link.state is State.BROKEN:
            return
        async with AsyncExitStack() as stack:
            link.connections.add(writer)
            stack.callback(link.connections.discard, writer)
            await link.passing.wait()
            from_receiver, to_receiver = await asyncio.open_connection(HOST, self._listening[receiver])
            stack.callback(to_receiver.transport.abort)
            await link.pass_on(said, to_receiver)
            # What comes back is a refusal at most, and the end.
            back = asyncio.ensure_future(_pump(from_receiver, writer))
            stack.callback(back.cancel)
            back.add_done_callback(lambda _: writer.transport.abort())
            while data := await reader.read(CHUNK_BYTES):
                await link.pass_on(data, to_receiver)

    async def _pass_inquiry(self, receiver: str, said: bytes, writer: asyncio.StreamWriter) -> None:
        """It is answered at once, whatever is cut: who asks is about to become a member."""
        from_receiver, to_receiver = await asyncio.open_connection(HOST, self._listening[receiver])
        try:
            to_receiver.write(said)
            await _pump(from_receiver, writer)
        finally:
            to_receiver.transport.abort()


async def _hello(reader: asyncio.StreamReader) -> tuple[bytes, Hello | None]:
    """The first frame of a connection, and all bytes that came with it; None for an inquiry, which is no member's."""
    frames = FrameReader()
    said = b""
    while data := await reader.read(CHUNK_BYTES):
        said += data
        for frame in frames.feed(data):
            if isinstance(frame, Hello | Inquiry):
                return said, frame if isinstance(frame, Hello) else None
            raise FrameError(f"{type(frame).__name__} before the hello")
    raise ConnectionResetError("ended before its hello")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the end, as good as any


class ProxiedCluster(ProcessCluster):
    """Members whose links can be cut: ``proxy`` has them, by the names of the nodes."""

    def __init__(
        self, command: Sequence[str], directory: Path, size: int = 3, flags: Sequence[str] = ()
    ) -> None:
        super().__init__(command, directory, size, flags, proxied=True)
        self._count = size
        self.proxy = Proxy(self.dialled_ports, self.peer_ports, self._names())

    def _names(self) -> dict[int, str]:
        members = parse_initial_cluster(self.members)
        return {
            build_cluster(name, parse_urls("initial-cluster", urls[0].text), members, self.token).own_id: name
            for name, urls in members.items()
        }

    def admit(
        self, member_id: int, command: Sequence[str], dialled: int, known: Sequence[Any]
    ) -> NodeProcess:
        """A member that was added with ``dialled`` as its port, to be started; its links can be cut as all others.

        :param known: the members, as ``/v2/members`` has them
        """
        self._count += 1
        name = f"n{self._count}"
        client_port, listening = free_ports(2)
        own = f"http://{HOST}:{dialled}"
        # Whoever has not started yet has no name.
        names = {url: each["name"] or each["id"] for each in known for url in each["peerURLs"]} | {own: name}
        members = ",".join(f"{each}={url}" for url, each in names.items())
        self.proxy.add(name, member_id, dialled, listening)
        node = self._node(name, command, client_port, listening, own, members, "existing")
        self.nodes.append(node)
        return node

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.proxy.__exit__(None, None, None)
