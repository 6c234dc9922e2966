"""A node of the version before still talks to this one: the bytes of that version are golden here.

"Before" is the wire format as it was when it had replication, reads and forwarded proposals, and neither snapshots
nor members that change; messages have since grown at the end of their arrays, in three places.  The frames in
`BEFORE` were written by that version itself.  What came later (snapshots, members, inquiries) it does not know: a
cluster is to run one version throughout before its members change, or one falls so far behind that it needs a
snapshot.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from msgspec import Struct

from common_raft.core import Configuration, SnapshotMeta
from common_raft.core.messages import (
    AppendEntries,
    AppendResponse,
    Commit,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from common_raft.transport.codec import FrameReader, encode_frame
from common_raft.transport.messages import (
    ChangeRefused,
    ForwardedChange,
    ForwardedProposals,
    Frame,
    Hello,
    Inquiry,
    Introduction,
    ProposalsRefused,
    Refusal,
    SnapshotAck,
    SnapshotChunk,
)

HEADER = 12  #: bytes of a frame before its body

ENTRIES = [Entry(7, EntryKind.COMMANDS, b"xyz"), Entry(7, EntryKind.NOOP, b"")]
BEFORE: list[tuple[Any, str]] = [
    (RequestVote(1, 2, 7, 10, 6, True, True), "52530100000000098bfb09e898010102070a06c3c3"),
    (VoteResponse(1, 2, 7, False, True), "5253010000000007353bec0b9602010207c2c3"),
    (
        AppendEntries(1, 2, 7, 10, 6, ENTRIES, 9),
        "52530100000000164ca843c398030102070a0692930701c40378797a930700c40009",
    ),
    (AppendResponse(1, 2, 7, 10, True, 9, 6), "52530100000000098e645adc98040102070ac30906"),
    (Heartbeat(1, 2, 7, 9, 3), "52530100000000079b54108696050102070903"),
    (HeartbeatResponse(1, 2, 7, 3), "52530100000000061e59a785950601020703"),
    (ReadIndex(1, 2, 7, 5), "5253010000000006ca5a2b00950701020705"),
    (ReadIndexResponse(1, 2, 7, 5, 9), "52530100000000076baaa54a96080102070509"),
    (TimeoutNow(1, 2, 7), "5253010000000005323ca4519409010207"),
    (Commit(1, 2, 7, 9, 6), "52530100000000071a6856dc960a0102070906"),
    (Hello(1, 2, 3), "5253010000000005e86b80fc9420010203"),
    (Refusal("who?"), "525301000000000748430f469221a477686f3f"),
    (ForwardedProposals(1, 2, [b"a", b""]), "525301000000000acefcd61c9422010292c40161c400"),
    (ProposalsRefused(1, 2, [300, 4], "why"), "525301000000000d0026c0c79523010292cd012c04a3776879"),
]

#: What has grown, or come, since then, as this version writes it: every field is given, as the last are easily lost.
WHOLE: list[tuple[Any, str]] = [
    (VoteResponse(1, 2, 7, False, True, 5, 6), "9802010207c2c30506"),
    (Hello(1, 2, 3, ("http://n2",)), "952001020391a9687474703a2f2f6e32"),
    (Refusal("who?", removed=True), "9321a477686f3fc3"),
    (
        InstallSnapshot(1, 2, 7, SnapshotMeta(10, 6, Configuration((1, 2), (1, 3), (4,), (5,), True))),
        "950b010207930a069592010292010391049105c3",
    ),
    (SnapshotChunk(1, 2, 7, 10, 6, b"meta", 900, 300, b"data"), "9a240102070a06c4046d657461cd0384cd012cc40464617461"),
    (SnapshotAck(1, 2, 10, 6, 300, True, True, "why"), "992501020a06cd012cc3c3a3776879"),
    (ForwardedChange(1, 2, b"change"), "94280102c4066368616e6765"),
    (ChangeRefused(1, 2, 300, 4, "why"), "96290102cd012c04a3776879"),
    (Inquiry(), "912a"),
    (Introduction(3, b"members"), "932b03c4076d656d62657273"),
]  # fmt: skip


def decoded(frame: bytes) -> object:
    (message,) = FrameReader().feed(frame)
    return message


def flat(union: Any) -> set[type]:
    return {
        each for part in get_args(union) or (union,) for each in (flat(part) if get_args(part) else {part})
    }


def test_every_message_has_golden_bytes() -> None:
    assert {type(message) for message, _ in BEFORE + WHOLE} == flat(Frame)


@pytest.mark.parametrize(("message", "frame"), BEFORE, ids=lambda value: type(value).__name__)
def test_what_the_version_before_sends_is_understood(message: object, frame: str) -> None:
    assert decoded(bytes.fromhex(frame)) == message


@pytest.mark.parametrize(("message", "body"), WHOLE, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_message_are_these(message: Any, body: str) -> None:
    frame = encode_frame(message)
    assert frame[HEADER:].hex() == body
    assert decoded(frame) == message


# --- what this version sends, as the one before reads it ------------------------------------------------------


class VoteResponseBefore(Struct, frozen=True, array_like=True, tag=2):
    to: int
    sender: int
    term: int
    granted: bool
    pre_vote: bool = False


class HelloBefore(Struct, frozen=True, array_like=True, tag=32):
    to: int
    sender: int
    cluster_id: int


class RefusalBefore(Struct, frozen=True, array_like=True, tag=33):
    reason: str


GROWN: dict[type, type] = {VoteResponse: VoteResponseBefore, Hello: HelloBefore, Refusal: RefusalBefore}


@pytest.mark.parametrize(
    ("message", "frame"),
    [(message, frame) for message, frame in BEFORE if type(message) not in GROWN],
    ids=lambda value: type(value).__name__,
)
def test_what_has_not_grown_is_sent_as_the_version_before_sent_it(message: Any, frame: str) -> None:
    assert encode_frame(message).hex() == frame


@pytest.mark.parametrize(
    ("message", "read"),
    [
        (VoteResponse(1, 2, 7, False, True, 5, 6), VoteResponseBefore(1, 2, 7, False, True)),
        (VoteResponse(1, 2, 7, True), VoteResponseBefore(1, 2, 7, True)),
        (Hello(1, 2, 3, ("http://n2",)), HelloBefore(1, 2, 3)),
        (Refusal("who?", removed=True), RefusalBefore("who?")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_version_before_reads_what_has_grown_and_leaves_out_the_rest(message: Any, read: Any) -> None:
    assert msgspec.msgpack.decode(encode_frame(message)[HEADER:], type=type(read)) == read


def test_the_frame_around_a_message_is_that_of_the_version_before() -> None:
    """Magic, version, an unused byte and the length: what a node looks at before it reads a body."""
    for message, frame in BEFORE:
        before, now = bytes.fromhex(frame), encode_frame(message)
        assert now[:4] == before[:4] == b"RS\x01\0"
        assert int.from_bytes(now[4:8], "big") == len(now) - HEADER
