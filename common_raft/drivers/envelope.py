"""Sealed batches: commands of one node on their way through the log.

A node encodes the commands of one turn once and seals them with its own id and a sequence number.  The leader
joins the sealed batches of all nodes into entries without looking inside, and each node finds its own ones again
by that seal when the entry is applied.

    sealed batch:  origin (8 bytes), sequence (8), length of the payload (4), payload          -- big endian
    entry's data:  sealed batches, one after another
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from struct import error as StructError  # noqa: N812

_SEAL = Struct(">QQI")


class EnvelopeError(Exception):
    """Bytes that are no sealed batches."""


def seal(origin: int, sequence: int, payload: bytes) -> bytes:
    return _SEAL.pack(origin, sequence, len(payload)) + payload


def join(batches: Iterable[bytes], max_bytes: int) -> list[bytes]:
    """Entries' data: as many batches in each as fit into ``max_bytes``, at least one."""
    entries: list[bytes] = []
    together: list[bytes] = []
    size = 0
    for batch in batches:
        if together and size + len(batch) > max_bytes:
            entries.append(b"".join(together))
            together, size = [], 0
        together.append(batch)
        size += len(batch)
    if together:
        entries.append(b"".join(together))
    return entries


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The batches of an entry, as (origin, sequence, payload).  Raises EnvelopeError on anything else."""
    position, end = 0, len(data)
    while position < end:
        try:
            origin, sequence, length = _SEAL.unpack_from(data, position)
        except StructError:
            raise EnvelopeError(f"{end - position} bytes at offset {position} are no sealed batch") from None
        position += _SEAL.size
        if position + length > end:
            raise EnvelopeError(f"a sealed batch of {length} bytes at offset {position} ends behind {end}")
        yield origin, sequence, data[position : position + length]
        position += length


def sequence_of(batch: bytes) -> int:
    """The sequence number of a sealed batch.  Raises EnvelopeError when it is not exactly one whole batch."""
    if len(batch) < _SEAL.size:
        raise EnvelopeError(f"{len(batch)} bytes are no sealed batch")
    _, sequence, length = _SEAL.unpack_from(batch)
    if len(batch) != _SEAL.size + length:
        raise EnvelopeError(f"a sealed batch of {length} bytes came as {len(batch)}")
    return int(sequence)
