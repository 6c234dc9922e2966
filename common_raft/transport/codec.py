"""Frames: a message as bytes on a stream, with a version, a length and a checksum.

    offset  size
    0       2     b"RS"
    2       1     version of the wire format
    3       1     0
    4       4     length of the body, big endian, at most MAX_BODY_BYTES
    8       4     CRC-32 of the body
    12      ...   the body: one message, as a msgpack array that starts with the message's tag

Whatever does not fit this is a FrameError, and the stream cannot be followed any further.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from zlib import crc32

import msgspec

from common_raft.transport.messages import Frame

VERSION = 1
#: An append carries 1 MiB of entries, or a single larger one; a batch of commands is at most a few MiB.
MAX_BODY_BYTES = 32 << 20

_HEADER = Struct(">2sBxII")
_MAGIC = b"RS"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


class FrameError(Exception):
    """Bytes that are no frame; the message says what is wrong with them."""


def encode_frame(message: Frame) -> bytes:
    """One frame.  Raises FrameError when the message is larger than a receiver would take."""
    body = _encoder.encode(message)
    if len(body) > MAX_BODY_BYTES:
        raise FrameError(f"{type(message).__name__} of {len(body)} bytes: a frame holds {MAX_BODY_BYTES}")
    return _HEADER.pack(_MAGIC, VERSION, len(body), crc32(body)) + body


class FrameReader:
    """Cuts a stream into messages: feed it what arrives, and take what is whole.

    ``max_body_bytes``: what frames may hold from now on.  A longer one is refused by its header, so that no more than
    that is kept.
    """

    __slots__ = ("_pending", "max_body_bytes")

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._pending = bytearray()
        self.max_body_bytes = max_body_bytes

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields each message that ``data`` completes.  Raises FrameError at the first that is none."""
        pending = self._pending
        pending += data
        position = 0
        try:
            while len(pending) - position >= _HEADER.size:
                length, crc = _check_header(pending, position, self.max_body_bytes)
                start = position + _HEADER.size
                if len(pending) - start < length:
                    break
                position = start + length
                yield _decode_body(bytes(pending[start:position]), crc)
        finally:
            del pending[:position]


def _check_header(buffer: bytearray, position: int, max_body_bytes: int) -> tuple[int, int]:
    magic, version, length, crc = _HEADER.unpack_from(buffer, position)
    if magic != _MAGIC:
        raise FrameError(f"not a frame: it starts with {bytes(magic)!r}")
    if version != VERSION:
        raise FrameError(f"frame of version {version}: this node speaks version {VERSION}")
    if length > max_body_bytes:
        raise FrameError(f"frame of {length} bytes: at most {max_body_bytes} are taken")
    return length, crc


def _decode_body(body: bytes, crc: int) -> Frame:
    if crc32(body) != crc:
        raise FrameError(f"checksum of a frame of {len(body)} bytes does not match")
    try:
        frame: Frame = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # ValueError: an unknown tag's text may not be UTF-8.  RecursionError: what nests too deeply, also in fields
        # that are skipped.
        raise FrameError(f"frame of {len(body)} bytes holds no message: {error}") from None
    return frame
