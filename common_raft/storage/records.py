"""The bytes of a segment: frames, encoded and decoded without any I/O.

A segment is a row of frames, each beginning where the one before ended, and zeros up to its preallocated end:

    header frame | batch frame | batch frame | ... | seal frame | 0 0 0 ...

All numbers are little endian.  A frame is

    0   magic            4 bytes: "RF1" and the kind: H header, B batch, S seal
    4   length           u32, of the payload without its padding
    8   sequence         u64
    16  zero_sectors     u32, see below
    20  header_crc       u32, CRC-32 of the 20 bytes before, begun with the segment's salt
    24  payload          length bytes, then zeros up to a multiple of 8
    ..  payload_crc      u32, CRC-32 of the payload and its padding, begun with header_crc
    ..  END              4 bytes, none of them zero

- A *batch* is one group commit: MessagePack of [[hard state or nil, first index, [entry ...]] ...].  Batches are
  numbered 1, 2, 3 ... over the whole log, so that a missing, repeated or swapped one shows.  From format 2 on a
  record may go on with [index, term, meta] and a boolean: the snapshot that it marks, and whether that was received.
- A *header* opens a segment and names what it belongs to (``SegmentHeader``).  It carries the number of the last
  batch before it, and its own CRC begins with 0, because it is what tells the salt.
- A *seal* closes a segment: it names the next one, so that a last segment that went missing shows.  It carries
  the number of the last batch before it.

Torn or damaged?
----------------
A crash may leave the last frame incomplete: that is no loss, nobody was told that it is durable.  Any other
flaw is damage to what was promised, and must not be taken for a tear.  What an interrupted write can leave is
known: the file is zero where the frame goes, sectors of 512 bytes are written whole or not at all, and a write
may stop at any byte.  So a torn frame is a frame in which a tail, or whole sectors, are zero, with nothing
behind it.  The layout makes sure that a flipped byte does not look like that:

- END is the last thing in a frame.  No change of a single byte makes it zero, unless to something that a cut
  within END leaves, and a frame whose payload's CRC is right is accepted then: it is complete, in whatever way
  it lost the rest of its end.
- Frames begin and end at multiples of 8, so that a frame's part in its first or last sector always holds several
  bytes that are not zero.
- Sectors that are zero by right (a value full of zeros) are counted in the header, so that they are not taken for
  sectors that were lost.
- The salt, random and new for each segment, keeps bytes that merely look like a frame from being taken for one: a
  value may contain a copy of a log.

One case remains that cannot be told from a torn write: in the log's very last frame, a sector whose only byte
that is not zero becomes zero.  It is reported as a tear, not passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from common_raft.core.messages import Entry, HardState

#: What this version writes.
FORMAT_VERSION = 2
#: What it reads: format 1 differs only in that no snapshots are marked.
READABLE_VERSIONS = (1, 2)

#: The unit that a disk writes whole or not at all, in bytes; larger sectors are multiples of it.
SECTOR = 512


class SnapshotMark(msgspec.Struct, frozen=True, array_like=True):
    """Which snapshot: of the state machine after the entry at ``index``, which is of ``term``.

    ``meta`` is whoever takes snapshots' own (a configuration, members' names); the storage keeps it as it is.
    """

    index: int
    term: int
    meta: bytes


#: A hard state (None: as before), the index of the first entry, the entries (they replace all from there on).
PlainRecord: TypeAlias = tuple[HardState | None, int, Sequence[Entry]]
#: The same behind a snapshot, which is on the disk.  True: it was received, and the log before it is discarded;
#: False: it was taken here, and the log stays as it is.
MarkRecord: TypeAlias = tuple[HardState | None, int, Sequence[Entry], SnapshotMark, bool]
Record: TypeAlias = PlainRecord | MarkRecord


class StoredRecord(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A ``Record`` as it is read."""

    hard_state: HardState | None
    first_index: int
    entries: list[Entry]
    snapshot: SnapshotMark | None = None
    received: bool = False


#: Payloads are limited by the 32 bits of the length.
MAX_PAYLOAD = (1 << 32) - 1

_HEAD = struct.Struct("<4sIQII")
_TRAIL = struct.Struct("<I4s")
_CRC = struct.Struct("<I")
END = b"\xa5\x5a\xc3\x3c"
_ZERO_SECTOR = bytes(SECTOR)
_ZERO_CHUNK = bytes(1 << 16)
_MAGIC_PREFIX = b"RF1"

# version, salt, salt before, nothing, cluster id, node id, segment number, first index, term, vote, commit
_SEGMENT_HEADER = struct.Struct("<III4x7Q")
_SEAL = struct.Struct("<Q")


class Kind(bytes, Enum):
    """A frame's magic: what its payload is."""

    HEADER = _MAGIC_PREFIX + b"H"
    BATCH = _MAGIC_PREFIX + b"B"
    SEAL = _MAGIC_PREFIX + b"S"


_KINDS = {kind.value: kind for kind in Kind}


def frame_size(length: int) -> int:
    """Bytes that a frame with a payload of ``length`` bytes takes; a multiple of 8."""
    return _HEAD.size + length + -length % 8 + _TRAIL.size


HEADER_FRAME = frame_size(_SEGMENT_HEADER.size)
SEAL_FRAME = frame_size(_SEAL.size)


class SegmentHeader(NamedTuple):
    """What a segment says about itself.

    ``salt`` begins the checksums of its frames; ``salt_before`` is the one of the segment before it (0 in the first),
    so that a segment from another life of the same node, restored from some copy, does not fit in.
    ``first_index`` is the index that the next new entry had when the segment began (a later conflict may still
    replace earlier ones); ``hard_state`` is the one that held then, so that segments before it can be dropped.
    """

    version: int
    salt: int
    salt_before: int
    cluster_id: int
    node_id: int
    number: int
    first_index: int
    hard_state: HardState


class Frame(NamedTuple):
    """A whole frame: ``payload`` is a view of the segment's bytes, ``end`` where the next frame begins.

    ``ended`` is false when a part of END is missing, which only an interrupted write leaves.
    """

    kind: Kind
    sequence: int
    payload: memoryview
    end: int
    ended: bool


class Flaw(NamedTuple):
    """There is something at this place that is not a whole frame: ``torn``, or else damaged."""

    torn: bool
    reason: str


def zero_sectors(frame: bytes | bytearray, offset: int) -> int:
    """How many whole sectors within ``frame``, which lies at ``offset`` in its file, hold nothing but zeros."""
    first = -offset % SECTOR
    return sum(
        frame[at : at + SECTOR] == _ZERO_SECTOR for at in range(first, len(frame) - SECTOR + 1, SECTOR)
    )


def is_zero(data: bytes, start: int, end: int) -> bool:
    """Whether ``data[start:end]`` is zero; what lies beyond the end of ``data`` counts as zero."""
    # In chunks: comparing bytes runs at the speed of memory, but a slice of bytes is a copy.
    end = min(end, len(data))
    while start + len(_ZERO_CHUNK) <= end:
        if data[start : start + len(_ZERO_CHUNK)] != _ZERO_CHUNK:
            return False
        start += len(_ZERO_CHUNK)
    return start >= end or not data[start:end].strip(b"\0")


class FrameEncoder:
    """Encodes frames into one buffer of its own: what an ``encode_`` method returns is valid until the next call."""

    __slots__ = ("_buffer", "_encoder")

    #: A buffer that grew beyond this (bytes) for one large batch is given back.
    KEEP = 4 << 20

    def __init__(self) -> None:
        self._buffer = bytearray(_HEAD.size)
        self._encoder = msgspec.msgpack.Encoder()

    def encode_batch(self, batch: Sequence[Record], sequence: int) -> bytearray:
        """Encode ``batch`` as frame number ``sequence``; ``finish`` makes it complete for its place.

        Entries' data is copied once, from its bytes into the frame.  Raises ValueError past ``MAX_PAYLOAD``.
        """
        if len(self._buffer) > self.KEEP:
            self._buffer = bytearray(_HEAD.size)
        buffer = self._buffer
        self._encoder.encode_into(batch, buffer, _HEAD.size)
        return self._pad(Kind.BATCH, sequence)

    def encode_header(self, header: SegmentHeader, sequence: int) -> bytearray:
        """Encode a segment's header; ``sequence`` is the number of the last batch before it."""
        *plain, hard_state = header
        self._buffer[_HEAD.size :] = _SEGMENT_HEADER.pack(
            *plain, hard_state.term, hard_state.vote, hard_state.commit
        )
        return self.finish(self._pad(Kind.HEADER, sequence), 0, 0)

    def encode_seal(self, next_number: int, sequence: int, offset: int, salt: int) -> bytearray:
        """Encode a seal: segment ``next_number`` goes on after batch ``sequence``."""
        self._buffer[_HEAD.size :] = _SEAL.pack(next_number)
        return self.finish(self._pad(Kind.SEAL, sequence), offset, salt)

    def _pad(self, kind: Kind, sequence: int) -> bytearray:
        buffer = self._buffer
        length = len(buffer) - _HEAD.size
        if length > MAX_PAYLOAD:
            raise ValueError(f"a batch of {length} bytes is beyond the format's limit of {MAX_PAYLOAD}")
        buffer += bytes(-length % 8 + _TRAIL.size)
        _HEAD.pack_into(buffer, 0, kind.value, length, sequence, 0, 0)
        return buffer

    def finish(self, frame: bytearray, offset: int, salt: int) -> bytearray:
        """Fill in what depends on the frame's place: its sectors and its checksums."""
        if _ZERO_SECTOR in frame:  # rare; the search costs a third of a checksum
            magic, length, sequence, _, _ = _HEAD.unpack_from(frame)
            _HEAD.pack_into(frame, 0, magic, length, sequence, zero_sectors(frame, offset), 0)
        with memoryview(frame) as view:
            header_crc = crc32(view[:20], salt)
            _CRC.pack_into(frame, 20, header_crc)
            payload_crc = crc32(view[_HEAD.size : -_TRAIL.size], header_crc)
        _TRAIL.pack_into(frame, len(frame) - _TRAIL.size, payload_crc, END)
        return frame


def read_frame(data: bytes, offset: int, salt: int, last: int | None) -> Frame | Flaw | None:
    """Read the frame at ``offset`` (a multiple of 8) of a segment's bytes.

    :param salt: the segment's; 0 for its header
    :param last: number of the last batch before this place; None if any will do
    :return: None where nothing follows; a Flaw that is ``torn`` only if an interrupted write explains it
    """
    head = data[offset : offset + _HEAD.size]
    if not _is_head(head, salt):
        return _without_head(data, offset, salt)
    magic, length, sequence, expected_zeros, header_crc = _HEAD.unpack(head)
    kind = _KINDS.get(magic)
    if kind is None:
        return Flaw(False, f"a frame of unknown kind {magic!r}")
    if last is not None and sequence != last + (kind is Kind.BATCH):
        return Flaw(False, f"batch {last} is followed by a frame with number {sequence}")
    end = offset + frame_size(length)
    body = memoryview(data)[offset + _HEAD.size : end - _TRAIL.size]
    trail = data[end - _TRAIL.size : end].ljust(_TRAIL.size, b"\0")
    payload_crc, mark = _TRAIL.unpack(trail)
    written = len(mark.rstrip(b"\0"))
    if mark[:written] != END[:written]:
        return Flaw(False, "the mark at the end of a frame is wrong")
    if len(body) == end - offset - frame_size(0) and crc32(body, header_crc) == payload_crc:
        return Frame(kind, sequence, body[:length], end, written == len(END))
    return _bad_body(data, offset, end, expected_zeros, cut=written < len(END))


def _bad_body(data: bytes, offset: int, end: int, expected_zeros: int, *, cut: bool) -> Flaw:
    if not is_zero(data, end, len(data)):
        return Flaw(False, "the checksum of a frame is wrong, and more was written behind it")
    if cut:
        return Flaw(True, "a frame without its end")
    if zero_sectors(data[offset:end], offset) > expected_zeros:
        return Flaw(True, "a frame of which some sectors were not written")
    return Flaw(False, "the checksum of a frame is wrong, although it was written whole")


def _without_head(data: bytes, offset: int, salt: int) -> Flaw | None:
    """Nothing, or something that does not begin with a valid frame header, so that its length is not known."""
    if is_zero(data, offset, len(data)):
        return None
    if is_zero(data, offset + _HEAD.size, len(data)):
        written = data[offset : offset + len(_MAGIC_PREFIX)].rstrip(b"\0")
        if _MAGIC_PREFIX.startswith(written) and written:
            return Flaw(True, "a frame cut within its header")
        return Flaw(False, "the header of a frame is wrong")
    boundary = offset + (-offset % SECTOR or SECTOR)
    first_lost = is_zero(data, offset, boundary)
    second_lost = boundary < offset + _HEAD.size and is_zero(data, boundary, boundary + SECTOR)
    if not first_lost and not second_lost:
        return Flaw(False, "the header of a frame is wrong")
    # Whether the frame was the last one cannot be told from its length, so look for one behind it.
    behind = _find_frame(data, boundary, salt)
    if behind is not None:
        return Flaw(False, f"a frame is not there, although a later one is, at offset {behind}")
    return Flaw(True, "a frame whose first sector was not written")


def _find_frame(data: bytes, start: int, salt: int) -> int | None:
    """Where the next thing with a valid frame header begins."""
    at = data.find(_MAGIC_PREFIX, start)
    while at >= 0:
        if _is_head(data[at : at + _HEAD.size], salt):
            return at
        at = data.find(_MAGIC_PREFIX, at + 1)
    return None


def _is_head(head: bytes, salt: int) -> bool:
    return len(head) == _HEAD.size and _CRC.unpack_from(head, 20)[0] == crc32(head[:20], salt)


class WrongVersion(ValueError):
    """A header whose checksum is right, of another format version (``found``)."""

    def __init__(self, found: int) -> None:
        super().__init__(f"format version {found}")
        self.found = found


def decode_header(payload: memoryview) -> SegmentHeader:
    """Decode a header's payload.  Raises WrongVersion, and ValueError when it is too short."""
    if len(payload) < 4:
        raise ValueError("the header of the segment is too short")
    version = _CRC.unpack_from(payload)[0]
    if version not in READABLE_VERSIONS:
        raise WrongVersion(version)
    if len(payload) != _SEGMENT_HEADER.size:
        raise ValueError("the header of the segment has a wrong size")
    _, *plain, term, vote, commit = _SEGMENT_HEADER.unpack(payload)
    salt, salt_before, cluster_id, node_id, number, first_index = plain
    hard_state = HardState(term, vote, commit)
    return SegmentHeader(version, salt, salt_before, cluster_id, node_id, number, first_index, hard_state)


def decode_seal(payload: memoryview) -> int:
    """Decode a seal's payload: the number of the next segment.  Raises ValueError when its size is wrong."""
    if len(payload) != _SEAL.size:
        raise ValueError("the seal of the segment has a wrong size")
    number: int = _SEAL.unpack(payload)[0]
    return number


_batch_decoder = msgspec.msgpack.Decoder(list[StoredRecord])


def decode_batch(payload: memoryview) -> list[StoredRecord]:
    """Decode a batch's payload.  Raises ValueError when it is not one (its checksum was right, so it was written
    so, by something that is not this version)."""
    try:
        return _batch_decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"a batch that this version cannot read: {error}") from error
