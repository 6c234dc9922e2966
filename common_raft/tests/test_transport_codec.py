"""Frames on a stream: what goes in comes out, and nothing else passes."""

from itertools import pairwise
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.core import Configuration, SnapshotMeta
from common_raft.core.messages import (
    AppendEntries,
    Commit,
    Entry,
    EntryKind,
    Heartbeat,
    InstallSnapshot,
    RequestVote,
    VoteResponse,
)
from common_raft.transport.codec import MAX_BODY_BYTES, FrameError, FrameReader, encode_frame
from common_raft.transport.messages import ForwardedProposals, Hello, Refusal

BIG = 2**64 - 1
MESSAGES = [
    Hello(1, 2, BIG),
    Refusal("who are you?"),
    RequestVote(1, BIG, 7, 10, 6, pre_vote=True),
    AppendEntries(
        1, 2, 7, 10, 6, [Entry(7, EntryKind.COMMANDS, b"\x00" * 300), Entry(7, EntryKind.NOOP, b"")], 9
    ),
    Heartbeat(1, 2, 7, 9, 3),
    Commit(1, 2, 7, 9, 6),
    ForwardedProposals(1, 2, [b"a", b"", b"b" * 70_000]),
    InstallSnapshot(1, 2, 7, SnapshotMeta(10, 6, Configuration((1, 2), (1, BIG), (3,), (4,), True))),
    VoteResponse(1, 2, 7, False, True, 5, 6),
]
STREAM = b"".join(map(encode_frame, MESSAGES))


def read_all(*chunks: bytes) -> list[object]:
    reader = FrameReader()
    return [message for chunk in chunks for message in reader.feed(chunk)]


def test_a_stream_of_frames_gives_the_messages_that_went_in() -> None:
    assert read_all(STREAM) == MESSAGES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_does_not_matter_where_the_stream_is_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    assert read_all(*(STREAM[a:b] for a, b in pairwise(ends))) == MESSAGES


def test_the_bytes_of_a_frame_are_these() -> None:
    """The wire format is a promise to nodes of another version: a change here needs a new VERSION."""
    assert encode_frame(Hello(1, 2, 3)).hex() == "52530100000000065db27adb952001020390"
    append = AppendEntries(1, 2, 7, 10, 6, [Entry(7, EntryKind.COMMANDS, b"xyz")], 9)
    assert encode_frame(append).hex() == "5253010000000011693328fc98030102070a0691930701c40378797a09"
    snapshot = InstallSnapshot(1, 2, 7, SnapshotMeta(10, 6, Configuration((1, 2), learners=(3,))))
    assert encode_frame(snapshot).hex() == "5253010000000011cfde2d67950b010207930a069592010290910390c2"


def test_a_flipped_bit_anywhere_is_refused() -> None:
    frame = encode_frame(MESSAGES[3])
    for position in range(len(frame)):
        if position == 3:
            continue  # the unused byte of the header
        damaged = bytearray(frame)
        damaged[position] ^= 0x10
        try:
            assert read_all(bytes(damaged)) == []  # a longer length: the rest never comes
        except FrameError:
            pass


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not a frame"),
        (b"RS\x02\x00" + bytes(8), "version 2"),
        (b"RS\x01\x00" + (MAX_BODY_BYTES + 1).to_bytes(4, "big") + bytes(4), "at most"),
        (b"RS\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00x", "checksum"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint):
        read_all(data)


@given(st.binary(max_size=200))
def test_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    frame = pack(">2sBxII", b"RS", 1, len(body), crc32(body)) + body
    try:
        messages = read_all(frame)
    except FrameError:
        return
    assert len(messages) == 1  # it was one, by chance


def test_a_body_that_is_nested_too_deeply_is_refused() -> None:
    body = b"\x96\x20\x01\x02\x07\x90" + b"\x91" * 100_000 + b"\xc0"  # a hello with a field more
    with pytest.raises(FrameError, match="holds no message"):
        read_all(pack(">2sBxII", b"RS", 1, len(body), crc32(body)) + body)


def test_a_reader_refuses_longer_frames_than_it_is_to_take_by_the_header_alone() -> None:
    frame = encode_frame(ForwardedProposals(1, 2, [bytes(1000)]))
    reader = FrameReader(100)
    with pytest.raises(FrameError, match="at most 100 are taken"):
        list(reader.feed(frame[:12]))
    reader = FrameReader(100)
    assert list(reader.feed(encode_frame(MESSAGES[0]))) == [MESSAGES[0]]
    reader.max_body_bytes = MAX_BODY_BYTES
    assert list(reader.feed(frame)) == [ForwardedProposals(1, 2, [bytes(1000)])]


def test_messages_before_the_damage_are_still_delivered() -> None:
    messages = FrameReader().feed(encode_frame(MESSAGES[0]) + b"garbage garbage garbage")
    assert next(messages) == MESSAGES[0]
    with pytest.raises(FrameError):
        next(messages)


@pytest.mark.parametrize("end", [1, 6, 11])
def test_whoever_goes_on_behind_damage_is_refused_again(end: int) -> None:
    damage = b"garbage garbage garbage"
    reader = FrameReader()
    assert list(reader.feed(damage[:end])) == []
    refusals = []
    for piece in (damage[end:], b"more", encode_frame(MESSAGES[0])):
        with pytest.raises(FrameError, match="not a frame") as refused:
            list(reader.feed(piece))
        refusals.append(refused)  # whose traceback holds what was being read
    assert len(refusals) == 3


def test_a_message_too_large_for_a_receiver_is_not_sent() -> None:
    with pytest.raises(FrameError, match="a frame holds"):
        encode_frame(ForwardedProposals(1, 2, [bytes(MAX_BODY_BYTES)]))
