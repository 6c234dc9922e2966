"""What links have in common, however their bytes are moved: limits, who is let in, when to dial again.

For each peer there is one connection out, for sending, and one in, for receiving.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection
from random import uniform
from typing import NamedTuple

from common_raft.transport.codec import FrameError, FrameReader
from common_raft.transport.messages import Hello, PeerMessage, Refusal

log = logging.getLogger(__name__)

Address = tuple[str, int]

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

NO_HELLO = f"no hello within {HELLO_SECONDS:g} seconds"
TOO_MANY_STRANGERS = f"{MAX_STRANGERS} connections have not said yet who they are"


def give_up_unconfirmed(connection: socket.socket) -> None:
    """Ends a connection out when what was sent on it stays unconfirmed (see UNCONFIRMED_SECONDS)."""
    milliseconds = int(UNCONFIRMED_SECONDS * 1000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


class Identity(NamedTuple):
    """Who listens, and whom it lets in."""

    node_id: int
    cluster_id: int
    peers: Collection[int]


class Incoming:
    """The frames of one connection that a peer sends on: its hello first, then its messages to this node.

    ``sender`` is None until the hello.
    """

    __slots__ = ("_identity", "_reader", "sender")

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._reader = FrameReader()
        self.sender: int | None = None

    def feed(self, data: bytes, messages: list[PeerMessage]) -> None:
        """Appends the messages that ``data`` completes; at the first frame that may not come, raises FrameError."""
        for frame in self._reader.feed(data):
            if self.sender is None:
                self.sender = self._greet(frame)
            elif isinstance(frame, Hello | Refusal):
                raise FrameError(f"{type(frame).__name__} in the middle of a connection")
            elif frame.sender != self.sender or frame.to != self._identity.node_id:
                raise FrameError(f"message from {frame.sender:x} to {frame.to:x} on {self.sender:x}'s link")
            else:
                messages.append(frame)

    def _greet(self, frame: object) -> int:
        node_id, cluster_id, peers = self._identity
        if not isinstance(frame, Hello):
            raise FrameError(f"{type(frame).__name__} before the hello")
        if frame.cluster_id != cluster_id:
            raise FrameError(
                f"cluster id mismatch: got {frame.cluster_id:x}, this node's is {cluster_id:x}; "
                "compare --initial-cluster and --initial-cluster-token"
            )
        if frame.sender not in peers:
            raise FrameError(f"{frame.sender:x} is not a member of this cluster")
        if frame.to != node_id:
            raise FrameError(f"hello for {frame.to:x}, but this is {node_id:x}")
        return frame.sender


class Dialling:
    """What is said about one peer that is dialled again and again, and how long to wait in between."""

    def __init__(self, peer: int, address: Address) -> None:
        self._peer = peer
        self._address = address
        self._backoff = FIRST_BACKOFF_SECONDS
        self._said: str | None = None
        self._reader = FrameReader()

    def failed(self, error: BaseException) -> None:
        problem = str(error) or type(error).__name__
        if problem != self._said:  # once, not with every attempt
            log.warning("cannot reach peer %x at %s:%d: %s", self._peer, *self._address, problem)
            self._said = problem

    def connected(self) -> None:
        log.info("connected to peer %x at %s:%d", self._peer, *self._address)
        self._said = None
        self._reader = FrameReader()

    def pause(self, seconds: float) -> float:
        """How long to wait before the next attempt; the last one took, or its connection held, for ``seconds``."""
        # A link that held for a while is dialled again at once, one that breaks at once backs off.
        lasted = seconds > LAST_BACKOFF_SECONDS and self._said is None
        self._backoff = FIRST_BACKOFF_SECONDS if lasted else min(self._backoff * 2, LAST_BACKOFF_SECONDS)
        return uniform(self._backoff / 2, self._backoff)  # spread out: all peers dial a restarted node

    def heard(self, data: bytes) -> bool:
        """Nothing comes this way but the reason why the peer will not listen; False: not even that."""
        try:
            for frame in self._reader.feed(data):
                if isinstance(frame, Refusal):
                    log.error("peer %x refused this node: %s", self._peer, frame.reason)
        except FrameError as error:
            log.error("peer %x at %s:%d: %s", self._peer, *self._address, error)  # noqa: TRY400
            return False
        return True
