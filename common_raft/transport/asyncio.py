"""Links between nodes on an event loop: for each peer one connection out, for sending, and one in, for receiving.

Sending never waits and never fails loudly: Raft repeats what matters.  What cannot be sent is dropped, and the
peer is reported as unreachable, so that the leader starts over where the follower really is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import cast

from common_raft.measures import Traffic
from common_raft.transport.codec import FrameError, encode_frame
from common_raft.transport.links import (
    CONNECT_SECONDS,
    HELLO_SECONDS,
    MAX_BUFFERED_BYTES,
    MAX_STRANGERS,
    MAX_UNKNOWN,
    NO_HELLO,
    TOO_MANY_STRANGERS,
    Address,
    Dialling,
    Incoming,
    Roster,
    address_of,
    give_up_unconfirmed,
    refusal,
    removed_error,
)
from common_raft.transport.messages import PeerMessage, Refusal

log = logging.getLogger(__name__)

OnMessages = Callable[[list[PeerMessage]], None]
OnUnreachable = Callable[[int], None]


class AsyncioTransport:
    """All links of one node.  ``peers`` maps node ids to addresses; everything runs in the current loop.

    ``on_removed`` is called when a peer says that this node is no member any more.
    """

    def __init__(
        self,
        node_id: int,
        cluster_id: int,
        listen: Iterable[Address],
        peers: Mapping[int, Address],
        on_messages: OnMessages,
        on_unreachable: OnUnreachable,
        on_removed: Callable[[], None] = lambda: None,
    ) -> None:
        self.roster = Roster(node_id, cluster_id, dict(peers))
        self.on_messages, self.on_unreachable, self.on_removed = on_messages, on_unreachable, on_removed
        self.traffic: dict[int, Traffic] = {}
        self._listen = list(listen)
        self._started = False
        self._links = {peer: _Link(self, peer, address) for peer, address in peers.items()}
        self._ending: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.inbound: dict[int, _Inbound] = {}
        self.strangers: set[_Inbound] = set()

    async def start(self) -> None:
        """Listens and begins to dial.  Raises OSError when an address cannot be had."""
        loop = asyncio.get_running_loop()
        for host, port in self._listen:
            self._servers.append(await loop.create_server(lambda: _Inbound(self), host, port))
        self._started = True
        for link in self._links.values():
            link.start()

    def update(self, roster: Roster) -> None:
        """From now on these are the others: links to new ones begin, to those removed or elsewhere end."""
        self.roster = roster
        for peer, link in list(self._links.items()):
            if peer in roster.removed or roster.peers.get(peer, link.address) != link.address:
                self._end(self._links.pop(peer))
        for peer in roster.peers.keys() - self._links.keys():
            self._begin(peer, roster.peers[peer])
        for peer in roster.removed:
            self.traffic.pop(peer, None)
            if peer in self.inbound:
                self.inbound[peer].refuse(refusal(removed_error(peer)))

    def _begin(self, peer: int, address: Address) -> None:
        link = self._links[peer] = _Link(self, peer, address)
        if self._started:
            link.start()

    def _end(self, link: _Link) -> None:
        """Once it has sent what is queued."""
        if link.queued:
            link.flush()
        task = asyncio.get_running_loop().create_task(link.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def answer(self, peer: int, urls: tuple[str, ...]) -> bool:
        """A peer has dialled this node, and is dialled at once if it was not there before.

        Also a member that this node has yet to learn of; False when there are too many of those.
        """
        if peer not in self._links:
            if len(self._links) >= len(self.roster.peers) + MAX_UNKNOWN:
                return False
            self._begin(peer, address_of(urls))
        self._links[peer].called()
        return True

    def is_connected(self, peer: int) -> bool:
        link = self._links.get(peer)
        return link is not None and link.connected

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
        await asyncio.gather(*self._ending)
        for inbound in [*self.inbound.values(), *self.strangers]:
            inbound.close()


class _Link(asyncio.Protocol):
    """The connection to one peer that this node sends on: dialled again whenever it ends."""

    def __init__(self, owner: AsyncioTransport, peer: int, address: Address) -> None:
        self._owner = owner
        self._peer = peer
        self.address = address
        self._on_unreachable = owner.on_unreachable
        self._transport: asyncio.WriteTransport | None = None
        self._lost: asyncio.Event = asyncio.Event()
        self._called = asyncio.Event()
        self._traffic = owner.traffic.setdefault(peer, Traffic())
        self._dialling = Dialling(peer, lambda: owner.roster.ways_to(peer, address))
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
            self._called.clear()
            began = loop.time()
            try:
                # Not wait_for: Python 3.11's loses a cancellation that comes as the connection is made.
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: self, *self._dialling.address)
            except (OSError, TimeoutError) as error:
                self._dialling.failed(error)
            if self._transport is not None:  # also when it was made just as the time was up
                await self._lost.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._dialling.pause(loop.time() - began)):
                    await self._called.wait()

    def called(self) -> None:
        """The peer has just dialled this node: it is there, and need not be waited for."""
        self._called.set()

    def queue(self, message: PeerMessage) -> None:
        if not self.connected:
            self._traffic.send_failures += 1
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
            self._traffic.send_failures += len(frames)
            self._on_unreachable(self._peer)
        elif transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            log.warning("peer %x does not read: dropped %d messages", self._peer, len(frames))
            self._traffic.send_failures += len(frames)
            self._on_unreachable(self._peer)
        else:
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            self._traffic.sent_bytes += len(data)
            transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        give_up_unconfirmed(transport.get_extra_info("socket"))
        self._dialling.connected()
        self._traffic.connected = True
        hello = encode_frame(self._owner.roster.hello(self._peer))
        self._traffic.sent_bytes += len(hello)
        self._transport.write(hello)

    def data_received(self, data: bytes) -> None:
        if not self._dialling.heard(data) and self._transport is not None:
            self._transport.close()
        if self._dialling.removed:
            self._owner.on_removed()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._traffic.connected = False
        self._traffic.disconnected += 1
        self._traffic.send_failures += len(self.queued)
        self.queued = []
        self._lost.set()
        self._on_unreachable(self._peer)


class _Inbound(asyncio.Protocol):
    """A connection that a peer sends on.  It says who it is first; until then it is a stranger."""

    def __init__(self, owner: AsyncioTransport) -> None:
        self._owner = owner
        self._incoming = Incoming(lambda: owner.roster)
        self._sender: int | None = None  # once it was let in
        self._traffic = Traffic()  # nobody's, until then
        self._transport: asyncio.WriteTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._name = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._name = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        if len(self._owner.strangers) >= MAX_STRANGERS:
            self._refuse(FrameError(TOO_MANY_STRANGERS))
            return
        self._owner.strangers.add(self)
        late = FrameError(NO_HELLO)
        self._deadline = asyncio.get_running_loop().call_later(HELLO_SECONDS, self._refuse, late)

    def data_received(self, data: bytes) -> None:
        messages: list[PeerMessage] = []
        try:
            self._incoming.feed(data, messages)
            if self._sender is None and self._incoming.sender is not None:
                self._let_in(self._incoming.sender)
        except FrameError as error:
            self._refuse(error)
        self._traffic.received_bytes += len(data)
        if self._incoming.asks and self._transport is not None:
            self._transport.write(encode_frame(self._owner.roster.introduction()))
            self.close()
        if messages:
            self._owner.on_messages(messages)

    def _let_in(self, sender: int) -> None:
        if not self._owner.answer(sender, self._incoming.urls):
            raise FrameError(f"{sender:x} is not a member of this cluster, as far as this node knows")
        self._forget_stranger()
        self._sender = sender
        self._traffic = self._owner.traffic.setdefault(sender, Traffic())
        before = self._owner.inbound.get(sender)
        self._owner.inbound[sender] = self
        if before is not None:
            before.close()  # the peer dialled anew: the old connection is dead, even where TCP has not noticed

    def _forget_stranger(self) -> None:
        self._owner.strangers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def _refuse(self, error: FrameError) -> None:
        self.refuse(refusal(error))

    def refuse(self, why: Refusal) -> None:
        log.warning("refused the connection from %s: %s", self._name, why.reason)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(why))
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._forget_stranger()
        if self._sender is not None and self._owner.inbound.get(self._sender) is self:
            del self._owner.inbound[self._sender]
