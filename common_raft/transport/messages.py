"""What nodes say to each other besides Raft's own messages."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from common_raft.core.messages import Message


class Hello(Struct, frozen=True, array_like=True, gc=False, tag=32):
    """The first frame on every connection: who speaks, to whom, in which cluster.

    ``urls`` tell a node that was away, and does not know this member yet, where to answer it.
    """

    to: int
    sender: int
    cluster_id: int
    urls: tuple[str, ...] = ()


class Refusal(Struct, frozen=True, array_like=True, gc=False, tag=33):
    """Goes against a connection's direction: why it is being closed.

    ``removed``: whoever is refused is no member any more, and never will be again.
    """

    reason: str
    removed: bool = False


class ForwardedProposals(Struct, frozen=True, array_like=True, tag=34):
    """A follower hands its clients' commands to the leader, as sealed batches (`drivers.envelope`)."""

    to: int
    sender: int
    batches: list[bytes]


class ProposalsRefused(Struct, frozen=True, array_like=True, tag=35):
    """The receiver of forwarded batches did not append them, and never will; ``sequences`` names them."""

    to: int
    sender: int
    sequences: list[int]
    cause: str


class SnapshotChunk(Struct, frozen=True, array_like=True, tag=36):
    """``data`` lies at ``offset`` in the file, of ``size`` bytes, of the snapshot (``index``, ``snapshot_term``).

    ``term`` is the sender's, which leads in it; ``meta`` is what the snapshot's mark holds.  Without data it only
    asks how far the receiver is.
    """

    to: int
    sender: int
    term: int
    index: int
    snapshot_term: int
    meta: bytes
    size: int
    offset: int
    data: bytes


class SnapshotAck(Struct, frozen=True, array_like=True, gc=False, tag=37):
    """The receiver has the first ``offset`` bytes of that snapshot's file.

    ``done``: it needs no more, since all is on its disk and checked, or its log holds as much.  ``refused``: it
    cannot take it; ``cause`` says why.
    """

    to: int
    sender: int
    index: int
    snapshot_term: int
    offset: int
    done: bool = False
    refused: bool = False
    cause: str = ""


class ForwardedChange(Struct, frozen=True, array_like=True, tag=40):
    """A member asks the leader for a change of the members (an encoded `drivers.membership.Change`)."""

    to: int
    sender: int
    change: bytes


class ChangeRefused(Struct, frozen=True, array_like=True, tag=41):
    """The receiver of a forwarded change did not append it, and never will; ``sequence`` names it."""

    to: int
    sender: int
    sequence: int
    problem: int
    cause: str


class Inquiry(Struct, frozen=True, array_like=True, tag=42):
    """In place of a hello: a node that is to join asks who is here.  It is answered, and the connection ends."""


class Introduction(Struct, frozen=True, array_like=True, tag=43):
    """The answer, against the connection's direction.  ``members``: an encoded `drivers.membership.Members`."""

    cluster_id: int
    members: bytes


PeerMessage: TypeAlias = (
    Message
    | ForwardedProposals
    | ProposalsRefused
    | SnapshotChunk
    | SnapshotAck
    | ForwardedChange
    | ChangeRefused
)
Frame: TypeAlias = PeerMessage | Hello | Refusal | Inquiry | Introduction
