"""Links between nodes on an event loop: for each peer one connection out, for sending, and one in, for receiving.

Sending never waits and never fails loudly: Raft repeats what matters.  What cannot be sent is dropped, and the
peer is reported as unreachable, so that the leader starts over where the follower really is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from random import uniform
from typing import cast

from common_raft.transport.codec import FrameError, FrameReader, encode_frame
from common_raft.transport.messages import Hello, PeerMessage, Refusal

log = logging.getLogger(__name__)

Address = tuple[str, int]
OnMessages = Callable[[list[PeerMessage]], None]
OnUnreachable = Callable[[int], None]

#: What a peer that does not read may leave in our memory: above a leader's in-flight limit, so that flow control
#: acts first, and dropping is for peers that hang.
MAX_BUFFERED_BYTES = 96 << 20
HELLO_SECONDS = 5.0
CONNECT_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0
#: Connections that have not said yet who they are; a mesh needs one for each peer.
MAX_STRANGERS = 64


class AsyncioTransport:
    """All links of one node.  ``peers`` maps node ids to addresses; everything runs in the current loop."""

    def __init__(
        self,
        node_id: int,
        cluster_id: int,
        listen: Iterable[Address],
        peers: Mapping[int, Address],
        on_messages: OnMessages,
        on_unreachable: OnUnreachable,
    ) -> None:
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.on_messages = on_messages
        self._listen = list(listen)
        self._links = {
            peer: _Link(Hello(peer, node_id, cluster_id), address, on_unreachable)
            for peer, address in peers.items()
        }
        self._servers: list[asyncio.Server] = []
        self.inbound: dict[int, _Inbound] = {}
        self.strangers: set[_Inbound] = set()

    async def start(self) -> None:
        """Listens and begins to dial.  Raises OSError when an address cannot be had."""
        loop = asyncio.get_running_loop()
        for host, port in self._listen:
            self._servers.append(await loop.create_server(lambda: _Inbound(self), host, port))
        for link in self._links.values():
            link.start()

    def is_connected(self, peer: int) -> bool:
        return self._links[peer].connected

    def send(self, message: PeerMessage) -> None:
        """Queues a message for its ``to``; `flush` sends what is queued, one write for each peer."""
        link = self._links.get(message.to)
        if link is not None:
            link.queue(message)

    def flush(self) -> None:
        for link in self._links.values():
            if link.queued:
                link.flush()

    def knows(self, peer: int) -> bool:
        return peer in self._links

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for link in self._links.values():
            await link.close()
        for inbound in [*self.inbound.values(), *self.strangers]:
            inbound.close()


class _Link(asyncio.Protocol):
    """The connection to one peer that this node sends on: dialled again whenever it ends."""

    def __init__(self, hello: Hello, address: Address, on_unreachable: OnUnreachable) -> None:
        self._hello = hello
        self._address = address
        self._on_unreachable = on_unreachable
        self._transport: asyncio.WriteTransport | None = None
        self._lost: asyncio.Event = asyncio.Event()
        self._reader = FrameReader()
        self._task: asyncio.Task[None] | None = None
        self.queued: list[bytes] = []

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_dialling())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()

    async def _keep_dialling(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = FIRST_BACKOFF_SECONDS
        said: str | None = None
        while True:
            self._lost.clear()
            began = loop.time()
            try:
                await asyncio.wait_for(loop.create_connection(lambda: self, *self._address), CONNECT_SECONDS)
            except (OSError, TimeoutError) as error:
                problem = str(error) or type(error).__name__
                if problem != said:  # once, not with every attempt
                    log.warning("cannot reach peer %x at %s:%d: %s", self._hello.to, *self._address, problem)
                    said = problem
            if self._transport is not None:  # also when it was made just as the time was up
                log.info("connected to peer %x at %s:%d", self._hello.to, *self._address)
                said = None
                await self._lost.wait()
            # A link that held for a while is dialled again at once, one that breaks at once backs off.
            lasted = loop.time() - began > LAST_BACKOFF_SECONDS and said is None
            backoff = FIRST_BACKOFF_SECONDS if lasted else min(backoff * 2, LAST_BACKOFF_SECONDS)
            await asyncio.sleep(uniform(backoff / 2, backoff))  # spread out: all peers dial a restarted node

    def queue(self, message: PeerMessage) -> None:
        if not self.connected:
            self._on_unreachable(message.to)
            return
        try:
            self.queued.append(encode_frame(message))
        except FrameError:
            log.exception("message to peer %x dropped", message.to)

    def flush(self) -> None:
        frames, self.queued = self.queued, []
        transport = self._transport
        if transport is None or transport.is_closing():  # writing to a closed transport raises in uvloop
            self._on_unreachable(self._hello.to)
        elif transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            log.warning("peer %x does not read: dropped %d messages", self._hello.to, len(frames))
            self._on_unreachable(self._hello.to)
        else:
            transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reader = FrameReader()
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(encode_frame(self._hello))

    def data_received(self, data: bytes) -> None:
        """Nothing comes this way but the reason why the peer will not listen."""
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, Refusal):
                    log.error("peer %x refused this node: %s", self._hello.to, frame.reason)
        except FrameError as error:
            log.error("peer %x at %s:%d: %s", self._hello.to, *self._address, error)  # noqa: TRY400
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self.queued = []
        self._lost.set()
        self._on_unreachable(self._hello.to)


class _Inbound(asyncio.Protocol):
    """A connection that a peer sends on.  It says who it is first; until then it is a stranger."""

    def __init__(self, owner: AsyncioTransport) -> None:
        self._owner = owner
        self._reader = FrameReader()
        self._sender: int | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._name = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._name = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        if len(self._owner.strangers) >= MAX_STRANGERS:
            self._refuse(f"{MAX_STRANGERS} connections have not said yet who they are")
            return
        self._owner.strangers.add(self)
        self._deadline = asyncio.get_running_loop().call_later(
            HELLO_SECONDS, self._refuse, f"no hello within {HELLO_SECONDS:g} seconds"
        )

    def data_received(self, data: bytes) -> None:
        messages: list[PeerMessage] = []
        try:
            for frame in self._reader.feed(data):
                if self._sender is None:
                    self._greet(frame)
                elif isinstance(frame, Hello | Refusal):
                    raise FrameError(f"{type(frame).__name__} in the middle of a connection")
                elif frame.sender != self._sender or frame.to != self._owner.node_id:
                    raise FrameError(
                        f"message from {frame.sender:x} to {frame.to:x} on {self._sender:x}'s link"
                    )
                else:
                    messages.append(frame)
        except FrameError as error:
            self._refuse(str(error))
        if messages:
            self._owner.on_messages(messages)

    def _greet(self, frame: object) -> None:
        owner = self._owner
        if not isinstance(frame, Hello):
            raise FrameError(f"{type(frame).__name__} before the hello")
        if frame.cluster_id != owner.cluster_id:
            raise FrameError(
                f"cluster id mismatch: got {frame.cluster_id:x}, this node's is {owner.cluster_id:x}; "
                "compare --initial-cluster and --initial-cluster-token"
            )
        if not owner.knows(frame.sender):
            raise FrameError(f"{frame.sender:x} is not a member of this cluster")
        if frame.to != owner.node_id:
            raise FrameError(f"hello for {frame.to:x}, but this is {owner.node_id:x}")
        self._forget_stranger()
        self._sender = frame.sender
        before = owner.inbound.get(frame.sender)
        owner.inbound[frame.sender] = self
        if before is not None:
            before.close()  # the peer dialled anew: the old connection is dead, even where TCP has not noticed

    def _forget_stranger(self) -> None:
        self._owner.strangers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def _refuse(self, reason: str) -> None:
        log.warning("refused the connection from %s: %s", self._name, reason)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(Refusal(reason)))
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._forget_stranger()
        if self._sender is not None and self._owner.inbound.get(self._sender) is self:
            del self._owner.inbound[self._sender]
