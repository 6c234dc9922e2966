"""What nodes say to each other besides Raft's own messages."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from common_raft.core.messages import Message


class Hello(Struct, frozen=True, array_like=True, gc=False, tag=32):
    """The first frame on every connection: who speaks, to whom, in which cluster."""

    to: int
    sender: int
    cluster_id: int


class Refusal(Struct, frozen=True, array_like=True, gc=False, tag=33):
    """The only frame that ever goes against a connection's direction: why it is being closed."""

    reason: str


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


PeerMessage: TypeAlias = Message | ForwardedProposals | ProposalsRefused
Frame: TypeAlias = PeerMessage | Hello | Refusal
