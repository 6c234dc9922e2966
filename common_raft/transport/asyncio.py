"""Links between nodes on an event loop: for each peer one connection out, for sending, and one in, for receiving.

Sending never waits and never fails loudly: Raft repeats what matters.  What cannot be sent is dropped, and the
peer is reported as unreachable, so that the leader starts over where the follower really is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from common_raft.transport.codec import FrameError, encode_frame
from common_raft.transport.links import (
    CONNECT_SECONDS,
    HELLO_SECONDS,
    MAX_BUFFERED_BYTES,
    MAX_STRANGERS,
    NO_HELLO,
    TOO_MANY_STRANGERS,
    Address,
    Dialling,
    Identity,
    Incoming,
    give_up_unconfirmed,
)
from common_raft.transport.messages import Hello, PeerMessage, Refusal

log = logging.getLogger(__name__)

OnMessages = Callable[[list[PeerMessage]], None]
OnUnreachable = Callable[[int], None]


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
        self.identity = Identity(node_id, cluster_id, frozenset(peers))
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

    def hears(self, peer: int) -> bool:
        """Whether there is a connection that the peer sends on."""
        return peer in self.inbound

    def send(self, message: PeerMessage) -> None:
        """Queues a message for its ``to``; `flush` sends what is queued, one write for each peer."""
        link = self._links.get(message.to)
        if link is not None:
            link.queue(message)

    def flush(self) -> None:
        for link in self._links.values():
            if link.queued:
                link.flush()

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
        self._dialling = Dialling(hello.to, address)
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
        while True:
            self._lost.clear()
            began = loop.time()
            try:
                # Not wait_for: Python 3.11's loses a cancellation that comes as the connection is made.
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: self, *self._address)
            except (OSError, TimeoutError) as error:
                self._dialling.failed(error)
            if self._transport is not None:  # also when it was made just as the time was up
                await self._lost.wait()
            await asyncio.sleep(self._dialling.pause(loop.time() - began))

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
        self._transport = cast(asyncio.WriteTransport, transport)
        give_up_unconfirmed(transport.get_extra_info("socket"))
        self._dialling.connected()
        self._transport.write(encode_frame(self._hello))

    def data_received(self, data: bytes) -> None:
        if not self._dialling.heard(data) and self._transport is not None:
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
        self._incoming = Incoming(owner.identity)
        self._sender: int | None = None  # once it was let in
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._name = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._name = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        if len(self._owner.strangers) >= MAX_STRANGERS:
            self._refuse(TOO_MANY_STRANGERS)
            return
        self._owner.strangers.add(self)
        self._deadline = asyncio.get_running_loop().call_later(HELLO_SECONDS, self._refuse, NO_HELLO)

    def data_received(self, data: bytes) -> None:
        messages: list[PeerMessage] = []
        try:
            self._incoming.feed(data, messages)
        except FrameError as error:
            self._refuse(str(error))
        else:
            if self._sender is None and self._incoming.sender is not None:
                self._let_in(self._incoming.sender)
        if messages:
            self._owner.on_messages(messages)

    def _let_in(self, sender: int) -> None:
        self._forget_stranger()
        self._sender = sender
        before = self._owner.inbound.get(sender)
        self._owner.inbound[sender] = self
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
