"""What links have in common, however their bytes are moved: limits, who is let in, when to dial again.

For each peer there is one connection out, for sending, and one in, for receiving.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from random import uniform
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from common_raft.core.messages import InstallSnapshot
from common_raft.measures import Traffic
from common_raft.transport.codec import MAX_BODY_BYTES, FrameError, FrameReader
from common_raft.transport.messages import Hello, Inquiry, Introduction, PeerMessage, Refusal

log = logging.getLogger(__name__)

Address = tuple[str, int]
#: Where nobody is: of a member whose URLs name no host and port.
NOWHERE: Address = ("", 0)

#: What a peer that does not read may leave in our memory: above a leader's in-flight limit, so that flow control
#: acts first, and dropping is for peers that hang.
MAX_BUFFERED_BYTES = 96 << 20
HELLO_SECONDS = 5.0
CONNECT_SECONDS = 2.0
FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 1.0
#: A link whose bytes nobody confirms for so long is given up and dialled anew. TCP alone waits for a quarter of an
#: hour, and after a cut of the network about as long again as it lasted; a peer may have another address by then.
UNCONFIRMED_SECONDS = 5.0
#: Connections that have not said yet who they are; a mesh needs one for each peer.
MAX_STRANGERS = 64
#: What a frame may hold until the hello is accepted, so that strangers cost a few MiB of memory, all together.  A
#: hello is three numbers and the peer's URLs: more than 200 fit, each with the longest name that a host may have.
MAX_HELLO_BYTES = 64 << 10
#: Members that this node has yet to learn of (it was away when they were added), and answers all the same.
MAX_UNKNOWN = 16

NO_HELLO = f"no hello within {HELLO_SECONDS:g} seconds"
TOO_MANY_STRANGERS = f"{MAX_STRANGERS} connections have not said yet who they are"


def addresses_of(urls: Sequence[str]) -> list[Address]:
    """Where to dial whoever is at these URLs, as far as they name a host and a port."""
    found = []
    for url in urls:
        try:
            split = urlsplit(url)
            if split.hostname and split.port:
                found.append((split.hostname, split.port))
        except ValueError:
            pass  # its port is none
    return found


def address_of(urls: Sequence[str]) -> Address:
    """The first of them; NOWHERE if there is none."""
    return next(iter(addresses_of(urls)), NOWHERE)


def give_up_unconfirmed(connection: socket.socket) -> None:
    """Ends a connection out when what was sent on it stays unconfirmed (see UNCONFIRMED_SECONDS)."""
    milliseconds = int(UNCONFIRMED_SECONDS * 1000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


class Roster(NamedTuple):
    """Who listens, and whom it lets in.

    ``removed``: members that were, and never will be again.  ``urls``: where this node is reached.  ``members``: what
    is told to a node that is to join.  ``further``: where else to dial some of the peers, if they are not there.
    """

    node_id: int
    cluster_id: int
    peers: Mapping[int, Address]
    removed: Collection[int] = ()
    urls: tuple[str, ...] = ()
    members: bytes = b""
    further: Mapping[int, Sequence[Address]] = {}

    def ways_to(self, peer: int, first: Address) -> Sequence[Address]:
        return [first, *self.further.get(peer, ())]

    def hello(self, peer: int) -> Hello:
        return Hello(peer, self.node_id, self.cluster_id, self.urls)

    def introduction(self) -> Introduction:
        return Introduction(self.cluster_id, self.members)


class Transport(Protocol):
    """The links to the peers, as whoever sends sees them."""

    def is_connected(self, peer: int) -> bool: ...
    def send(self, message: PeerMessage) -> None:
        """Queues a message for its ``to``, without waiting for anything."""

    def flush(self) -> None:
        """Sends what is queued, one write for each peer, without waiting for anything."""

    def update(self, roster: Roster) -> None:
        """From now on these are the others: links to new ones begin, to those that are gone end."""

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """With each peer."""


class RemovedError(FrameError):
    """Who sends this is a member no more."""


def refusal(error: FrameError) -> Refusal:
    return Refusal(str(error), isinstance(error, RemovedError))


def removed_error(node_id: int) -> RemovedError:
    return RemovedError(f"{node_id:x} has been permanently removed from the cluster")


#: Frames about a connection and not for a member, so that they have no business behind the hello.
_OF_CONNECTIONS = (Hello, Refusal, Inquiry, Introduction)


class Incoming:
    """The frames of one connection that a peer sends on: its hello first, then its messages to this node.

    ``sender`` is None until the hello; then ``urls`` are where it is reached, as it says.  ``asks``: it came with an
    inquiry instead, and will say nothing more.
    """

    __slots__ = ("_node_id", "_reader", "_roster", "asks", "sender", "urls")

    def __init__(self, roster: Callable[[], Roster]) -> None:
        self._roster = roster
        self._node_id = roster().node_id
        self._reader = FrameReader(MAX_HELLO_BYTES)
        self.sender: int | None = None
        self.urls: tuple[str, ...] = ()
        self.asks = False

    def feed(self, data: bytes, messages: list[PeerMessage]) -> None:
        """Appends the messages that ``data`` completes; at the first frame that may not come, raises FrameError."""
        for frame in self._reader.feed(data):
            if self.asks:
                raise FrameError(f"{type(frame).__name__} after an inquiry")
            if self.sender is None:
                if isinstance(frame, Inquiry):
                    self.asks = True
                else:
                    self.sender = self._greet(frame)
                    self._reader.max_body_bytes = MAX_BODY_BYTES
            elif isinstance(frame, _OF_CONNECTIONS):
                raise FrameError(f"{type(frame).__name__} in the middle of a connection")
            elif frame.sender != self.sender or frame.to != self._node_id:
                raise FrameError(f"message from {frame.sender:x} to {frame.to:x} on {self.sender:x}'s link")
            elif type(frame) is InstallSnapshot:
                # A core takes it only once the snapshot's file is on the disk: `drivers.transfers` makes it then.
                raise FrameError("InstallSnapshot without its snapshot: that comes in chunks")
            else:
                messages.append(frame)

    def _greet(self, frame: object) -> int:
        node_id, cluster_id, peers, removed, *_ = self._roster()
        if not isinstance(frame, Hello):
            raise FrameError(f"{type(frame).__name__} before the hello")
        if frame.cluster_id != cluster_id:
            raise FrameError(
                f"cluster id mismatch: got {frame.cluster_id:x}, this node's is {cluster_id:x}; "
                "compare --initial-cluster and --initial-cluster-token"
            )
        if frame.sender in removed:
            raise removed_error(frame.sender)
        if frame.sender not in peers and not frame.urls:
            raise FrameError(f"{frame.sender:x} is not a member of this cluster")
        if frame.to != node_id:
            raise FrameError(f"hello for {frame.to:x}, but this is {node_id:x}")
        self.urls = frame.urls
        return frame.sender


class Dialling:
    """What is said about one peer that is dialled again and again, and how long to wait in between."""

    def __init__(self, peer: int, ways: Callable[[], Sequence[Address]]) -> None:
        """``ways``: where the peer may be, one at least; each is tried in its turn, and kept while it works."""
        self._peer = peer
        self._ways = ways
        self._turn = 0
        self._backoff = FIRST_BACKOFF_SECONDS
        self._said: dict[Address, str] = {}
        self._reader = FrameReader()
        self._refused: str | None = None
        self.removed = False  #: the peer says that this node is a member no more

    @property
    def address(self) -> Address:
        """Where to dial now."""
        ways = self._ways()
        return ways[self._turn % len(ways)]

    def failed(self, error: BaseException) -> None:
        problem = str(error) or type(error).__name__
        if problem != self._said.get(self.address):  # once, not with every attempt
            log.warning("cannot reach peer %x at %s:%d: %s", self._peer, *self.address, problem)
            self._said[self.address] = problem

    def connected(self) -> None:
        log.info("connected to peer %x at %s:%d", self._peer, *self.address)
        self._said = {}
        self._reader = FrameReader()

    def pause(self, seconds: float) -> float:
        """How long to wait before the next attempt; the last one took, or its connection held, for ``seconds``."""
        # A link that held for a while is dialled again at once, one that breaks at once backs off.
        lasted = seconds > LAST_BACKOFF_SECONDS and not self._said
        if not lasted:
            self._turn += 1
        self._backoff = FIRST_BACKOFF_SECONDS if lasted else min(self._backoff * 2, LAST_BACKOFF_SECONDS)
        return uniform(self._backoff / 2, self._backoff)  # spread out: all peers dial a restarted node

    def heard(self, data: bytes) -> bool:
        """Nothing comes this way but the reason why the peer will not listen; False: not even that."""
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, Refusal):
                    self.removed |= frame.removed
                    if frame.reason != self._refused:  # once, not with every attempt
                        log.error("peer %x refused this node: %s", self._peer, frame.reason)
                        self._refused = frame.reason
        except FrameError as error:
            log.error("peer %x at %s:%d: %s", self._peer, *self.address, error)  # noqa: TRY400
            return False
        return True
