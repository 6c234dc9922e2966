"""Links between nodes with blocking sockets and threads; on the wire the same as `transport.asyncio`.

    for each address      a thread that accepts
    for each peer         a thread that dials, and then waits for the connection's end
    for each connection   a thread that receives
    for a slow peer       a thread that sends what its socket would not take at once, as long as there is any

Sending never waits and never fails loudly: Raft repeats what matters.  What cannot be sent is dropped, and the
peer is reported as unreachable, so that the leader starts over where the follower really is.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping

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

_RECEIVE_BYTES = 256 << 10
_BACKLOG = 100
#: Between two attempts to accept when there are no file descriptors left.
_ACCEPT_RETRY_SECONDS = 0.5


class BlockingTransport:
    """All links of one node.  ``peers`` maps node ids to addresses.

    ``send``, ``flush`` and ``update`` belong to one thread.  ``on_messages`` is called in the receiving threads, and
    nothing more is read from that peer before it returns; ``on_unreachable`` is called in any thread, and so is
    ``on_removed``, when a peer says that this node is no member any more.
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
        self._listeners: list[socket.socket] = []
        self._acceptors: list[threading.Thread] = []
        self._lock = threading.Lock()  # of what follows
        self._started = self._closed = False
        # Replaced as a whole, never changed: the thread that sends looks without the lock.
        self._links: Mapping[int, _Link] = {
            peer: _Link(self, peer, address) for peer, address in peers.items()
        }
        self._ending: list[_Link] = []
        self._inbound: dict[int, _Inbound] = {}
        self._strangers: set[_Inbound] = set()

    def start(self) -> None:
        """Listens and begins to dial.  Raises OSError when an address cannot be had."""
        try:
            for address in self._listen:
                self._listeners += _listen(*address)
        except OSError:
            for listener in self._listeners:
                listener.close()
            raise
        for listener in self._listeners:
            acceptor = threading.Thread(
                target=self._accept, args=(listener,), name="peers-accept", daemon=True
            )
            acceptor.start()
            self._acceptors.append(acceptor)
        with self._lock:
            self._started = True
            for link in self._links.values():
                link.start()

    def update(self, roster: Roster) -> None:
        """From now on these are the others: links to new ones begin, to those removed or elsewhere end."""
        with self._lock:
            self.roster = roster
            links = dict(self._links)
            ended = [
                links.pop(peer)
                for peer, link in self._links.items()
                if peer in roster.removed or roster.peers.get(peer, link.address) != link.address
            ]
            for peer in roster.peers.keys() - links.keys():
                links[peer] = self._begin(peer, roster.peers[peer])
            self._links = links
            self._ending = [link for link in self._ending if link.running] + ended
            for peer in roster.removed:
                self.traffic.pop(peer, None)
            refused = {peer: self._inbound[peer] for peer in roster.removed if peer in self._inbound}
        for link in ended:
            if link.queued:
                link.flush()
            link.close()
        for peer, inbound in refused.items():
            inbound.refuse(refusal(removed_error(peer)))
            inbound.close()

    def _begin(self, peer: int, address: Address) -> _Link:
        """With the lock held."""
        link = _Link(self, peer, address)
        if self._started and not self._closed:
            link.start()
        return link

    def is_connected(self, peer: int) -> bool:
        link = self._links.get(peer)
        return link is not None and link.connected

    def hears(self, peer: int) -> bool:
        """Whether there is a connection that the peer sends on."""
        return peer in self._inbound

    def send(self, message: PeerMessage) -> None:
        """Queues a message for its ``to``; `flush` sends what is queued, one write for each peer."""
        link = self._links.get(message.to)
        if link is not None:
            link.queue(message)

    def flush(self) -> None:
        for link in self._links.values():
            if link.queued:
                link.flush()

    def close(self) -> None:
        """Ends all links; returns when their threads have ended."""
        with self._lock:
            self._closed = True
            connections = [*self._inbound.values(), *self._strangers]
            links = [*self._links.values(), *self._ending]
        for listener in self._listeners:
            _shut_down(listener)  # wakes the thread that accepts; only then may the descriptor be given back
        for acceptor, listener in zip(self._acceptors, self._listeners, strict=False):
            acceptor.join()
            listener.close()
        for link in links:
            link.close()
        for inbound in connections:
            inbound.close()
        for link in links:
            link.join()
        for inbound in connections:
            inbound.join()

    # --- connections that peers send on -----------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                connection, address = listener.accept()
            except OSError as error:
                if not self._closed:
                    log.warning("cannot accept a peer's connection: %s", error)
                    time.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            inbound = _Inbound(self, connection, "{}:{}".format(*address[:2]))
            with self._lock:
                room = len(self._strangers) < MAX_STRANGERS and not self._closed
                if room:
                    self._strangers.add(inbound)
            if room:
                inbound.start()
            else:
                inbound.turn_away(TOO_MANY_STRANGERS)

    def let_in(self, sender: int, urls: tuple[str, ...], inbound: _Inbound) -> Traffic:
        """The stranger has said who it is, and may come in.

        Also a member that this node has yet to learn of, and then answers at ``urls``.  Returns where its bytes are
        counted.  Raises FrameError when there are too many of those.
        """
        with self._lock:
            if sender not in self._links:
                if len(self._links) >= len(self.roster.peers) + MAX_UNKNOWN:
                    raise FrameError(f"{sender:x} is not a member of this cluster, as far as this node knows")
                self._links = {**self._links, sender: self._begin(sender, address_of(urls))}
            self._strangers.discard(inbound)
            before = self._inbound.get(sender)
            self._inbound[sender] = inbound
            self._links[sender].called()
            closed = self._closed
            traffic = self.traffic.setdefault(sender, Traffic())
        if before is not None:
            before.close()  # the peer dialled anew: the old connection is dead, even where TCP has not noticed
        if closed:
            inbound.close()
        return traffic

    def forget(self, inbound: _Inbound) -> None:
        with self._lock:
            self._strangers.discard(inbound)
            for sender in [peer for peer, current in self._inbound.items() if current is inbound]:
                del self._inbound[sender]


class _Link:
    """The way to one peer: dialled again whenever its connection ends."""

    def __init__(self, owner: BlockingTransport, peer: int, address: Address) -> None:
        self._owner = owner
        self._peer = peer
        self.address = address
        self._on_unreachable = owner.on_unreachable
        self._traffic = owner.traffic.setdefault(peer, Traffic())
        self._dialling = Dialling(peer, lambda: owner.roster.ways_to(peer, address))
        self._closing = threading.Event()
        self._called = threading.Event()
        self._thread = threading.Thread(target=self._keep_dialling, name=f"peer-{peer:x}-dial", daemon=True)
        self._outbound: _Outbound | None = None
        self.queued: list[bytes] = []  # belongs to the thread that sends

    @property
    def connected(self) -> bool:
        return self._outbound is not None

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def called(self) -> None:
        """The peer has just dialled this node: it is there, and need not be waited for."""
        self._called.set()

    def close(self) -> None:
        self._closing.set()
        self._called.set()
        outbound = self._outbound
        if outbound is not None:
            outbound.shut_down()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def _keep_dialling(self) -> None:
        while not self._closing.is_set():
            self._called.clear()
            began = time.monotonic()
            try:
                connection = socket.create_connection(self._dialling.address, CONNECT_SECONDS)
            except OSError as error:
                self._dialling.failed(error)
            else:
                self._use(connection)
            pause = self._dialling.pause(time.monotonic() - began)
            if not self._closing.is_set():
                self._called.wait(pause)

    def _use(self, connection: socket.socket) -> None:
        """Until the connection ends."""
        outbound = _Outbound(connection, self._peer)
        try:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            give_up_unconfirmed(connection)
            hello = encode_frame(self._owner.roster.hello(self._peer))
            connection.sendall(hello)
            self._traffic.sent_bytes += len(hello)
            self._dialling.connected()
            self._outbound = outbound
            self._traffic.connected = True
            while not self._closing.is_set():
                data = connection.recv(_RECEIVE_BYTES)
                if not data or not self._dialling.heard(data):
                    break
                if self._dialling.removed:
                    self._owner.on_removed()
        except OSError as error:
            log.debug("link to peer %x: %s", self._peer, error)
        finally:
            if self._outbound is not None:
                self._traffic.disconnected += 1
            self._outbound = None
            self._traffic.connected = False
            outbound.close()
            self._on_unreachable(self._peer)

    def queue(self, message: PeerMessage) -> None:
        if self._outbound is None:
            self._traffic.send_failures += 1
            self._on_unreachable(message.to)
            return
        try:
            self.queued.append(encode_frame(message))
        except FrameError:
            log.exception("message to peer %x dropped", message.to)

    def flush(self) -> None:
        frames, self.queued = self.queued, []
        outbound = self._outbound
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if outbound is not None and outbound.send(data):
            self._traffic.sent_bytes += len(data)
        else:
            self._traffic.send_failures += len(frames)
            self._on_unreachable(self._peer)


class _Outbound:
    """One connection that this node sends on.

    What the socket does not take at once is sent by a thread that lives as long as there is something left to send.
    """

    def __init__(self, connection: socket.socket, peer: int) -> None:
        self._connection = connection
        self._peer = peer
        self._lock = (
            threading.Lock()
        )  # of what follows, and against giving the descriptor back while it is used
        self._ended = False
        self._left: list[bytes] = []
        self._left_bytes = 0  # with what the thread is sending just now
        self._thread: threading.Thread | None = None

    def send(self, data: bytes) -> bool:
        """Never waits; False when ``data`` was dropped."""
        with self._lock:
            if self._ended:
                return False
            if self._thread is not None:
                if self._left_bytes > MAX_BUFFERED_BYTES:
                    log.warning("peer %x does not read: dropped %d bytes", self._peer, len(data))
                    return False
                self._leave(data)
                return True
            try:
                sent = self._connection.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(error)
                return False
            if sent < len(data):
                self._leave(data[sent:])
                self._thread = threading.Thread(
                    target=self._send_rest, name=f"peer-{self._peer:x}-send", daemon=True
                )
                self._thread.start()
            return True

    def _leave(self, data: bytes) -> None:
        self._left.append(data)
        self._left_bytes += len(data)

    def _send_rest(self) -> None:
        data = b""
        while True:
            with self._lock:
                self._left_bytes -= len(data)
                data, self._left = b"".join(self._left), []
                if not data:
                    self._thread = None
                    return
            try:
                self._connection.sendall(data)
            except OSError as error:
                with self._lock:
                    self._end(error)
                    return

    def _end(self, error: OSError) -> None:
        log.debug("link to peer %x: %s", self._peer, error)
        self._ended = True
        _shut_down(self._connection)  # wakes the thread that waits for the connection's end

    def shut_down(self) -> None:
        with self._lock:
            self._ended = True
            _shut_down(self._connection)

    def close(self) -> None:
        self.shut_down()
        thread = self._thread
        if thread is not None:
            thread.join()
        with self._lock:
            self._connection.close()


class _Inbound:
    """A connection that a peer sends on.  It says who it is first; until then it is a stranger."""

    def __init__(self, owner: BlockingTransport, connection: socket.socket, name: str) -> None:
        self._owner = owner
        self._connection = connection
        self._name = name
        self._incoming = Incoming(lambda: owner.roster)
        self._lock = threading.Lock()  # against giving the descriptor back while it is used
        self._thread = threading.Thread(target=self._run, name=f"peer-at-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Wakes the thread that receives, which then gives the socket back."""
        with self._lock:
            _shut_down(self._connection)

    def turn_away(self, reason: str) -> None:
        """Refuses a connection that has no thread."""
        self.refuse(Refusal(reason))
        self._connection.close()

    def refuse(self, why: Refusal) -> None:
        log.warning("refused the connection from %s: %s", self._name, why.reason)
        self._say(encode_frame(why))

    def _say(self, frame: bytes) -> None:
        try:
            self._connection.send(frame, socket.MSG_DONTWAIT)
        except OSError:
            pass  # nobody is there to read it

    def _run(self) -> None:
        try:
            self._receive()
        except FrameError as error:
            self.refuse(refusal(error))
        except OSError as error:
            log.debug("connection from %s: %s", self._name, error)
        finally:
            with self._lock:
                self._connection.close()
            self._owner.forget(self)

    def _receive(self) -> None:
        """Until the connection ends.  Raises FrameError and OSError."""
        incoming, connection = self._incoming, self._connection
        messages, received = self._wait_for_hello()
        if incoming.asks:
            self._say(encode_frame(self._owner.roster.introduction()))
        if incoming.sender is None:
            return
        traffic = self._owner.let_in(incoming.sender, incoming.urls, self)
        traffic.received_bytes += received
        connection.settimeout(None)
        while True:
            if messages:
                self._owner.on_messages(messages)
                messages = []
            data = connection.recv(_RECEIVE_BYTES)
            if not data:
                return
            traffic.received_bytes += len(data)
            incoming.feed(data, messages)

    def _wait_for_hello(self) -> tuple[list[PeerMessage], int]:
        """What came right behind it; how many bytes all of that were."""
        deadline = time.monotonic() + HELLO_SECONDS
        messages: list[PeerMessage] = []
        received = 0
        while self._incoming.sender is None and not self._incoming.asks:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._connection.recv(_RECEIVE_BYTES)
            except TimeoutError:
                raise FrameError(NO_HELLO) from None
            if not data:
                break
            received += len(data)
            self._incoming.feed(data, messages)
        return messages, received


def _listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address that ``host`` stands for.  Raises OSError, with nothing left open."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            listeners.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _shut_down(connection: socket.socket) -> None:
    """Ends a connection for all threads that use it, also those that wait for it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed, or was never connected
