"""A node's log as the bytes on its disk, in the format of the real one, so that what damages bytes can be simulated.

`storage.records` encodes, checks and decodes them; this is one segment of frames that lies in memory, and in place of
the operating system it takes what disks do: they tear the write that a crash interrupts, flip bits, lose sectors
and put a write in the wrong place.  What `storage.recovery` does with files, `Journal.read` does with these bytes:
a torn tail is cut, anything else that is wrong is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import TypeAlias

import msgspec

from common_raft.core import Entry, HardState, SnapshotMeta
from common_raft.storage.records import (
    END,
    SECTOR,
    Flaw,
    FrameEncoder,
    Kind,
    read_frame,
)
from common_raft.testing.durable import DiskDamaged, Durable

#: A hard state or None for no change, the first index, the entries from there on, a snapshot that the log goes on
#: from: what `storage.wal` writes of a Ready.
JournalRecord: TypeAlias = tuple[HardState | None, int, Sequence[Entry], SnapshotMeta | None]

_decoder = msgspec.msgpack.Decoder(list[tuple[HardState | None, int, list[Entry], SnapshotMeta | None]])

#: Frames begin at multiples of this, in bytes.
ALIGNMENT = 8


class JournalDamaged(DiskDamaged):
    """The bytes are damaged in a way that no interrupted write explains: the node must not start from them."""


class Journal:
    """``misdirect``: the next write goes to the wrong place, and nobody is told."""

    __slots__ = ("_bytes", "_encoder", "_last_frame", "_random", "_salt", "_sequence", "misdirect")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._salt = random.getrandbits(32)
        self._bytes = bytearray()
        self._sequence = 0
        self._last_frame = 0  #: where the last frame begins
        self._encoder = FrameEncoder()
        self.misdirect = False

    def _encode(self, records: Sequence[JournalRecord]) -> bytes:
        frame = self._encoder.encode_batch(records, self._sequence + 1)  # type: ignore[arg-type]
        return bytes(self._encoder.finish(frame, len(self._bytes), self._salt))

    def append(self, records: Sequence[JournalRecord]) -> None:
        """One group commit, whole."""
        frame = self._encode(records)
        end = len(self._bytes)
        if self.misdirect:
            self.misdirect = False
            self._bytes += bytes(len(frame))
            place = self._random.randrange(0, end, ALIGNMENT) if end else len(frame)
            self._bytes[place : place + len(frame)] = frame
        else:
            self._bytes += frame
        self._last_frame = end
        self._sequence += 1

    def restart(self, stored: Durable) -> None:
        """What came before a snapshot is dropped: goes on in a new segment, which begins with all that is left."""
        marks: Sequence[SnapshotMeta | None] = stored.marks or [None]
        self._bytes.clear()
        self._sequence = self._last_frame = 0
        self._salt = self._random.getrandbits(32)
        whole = (stored.hard_state, stored.first_index, stored.entries, marks[0])
        self.append([whole, *((None, 0, (), mark) for mark in marks[1:])])

    def tear(self, records: Sequence[JournalRecord]) -> bool:
        """A crash interrupts the write of ``records``: it stops at some byte, or some sectors are not written.

        Returns whether all that matters got there in spite of it.
        """
        frame = self._encode(records)
        torn = bytearray(frame)
        if self._random.random() < 0.5:
            cut = self._random.randint(0, len(frame))
            torn[cut:] = bytes(len(frame) - cut)
        else:
            for start, stop in self._sectors(len(self._bytes), len(frame)):
                if self._random.random() < 0.5:
                    torn[start:stop] = bytes(stop - start)
        self._bytes += torn
        return torn[: -len(END)] == frame[: -len(END)]

    @staticmethod
    def _sectors(offset: int, length: int) -> list[tuple[int, int]]:
        """The shares that sectors have in a frame of ``length`` at ``offset``, as positions within the frame."""
        edges = [0, *range(-offset % SECTOR or SECTOR, length, SECTOR), length]
        return list(pairwise(edges))

    def damage(self) -> str | None:
        """Spoils bytes that were written long ago; says what it did, or None when there is nothing to spoil.

        What it does can be told from a torn write: no format could notice that its last write never arrived.
        """
        if not self._bytes:
            return None
        if self._random.random() < 0.5 or self._last_frame < SECTOR:
            place, bit = self._random.randrange(len(self._bytes)), self._random.randrange(8)
            self._bytes[place] ^= 1 << bit
            return f"bit {bit} of byte {place} of its log flips"
        start = self._random.randrange(0, self._last_frame - SECTOR + 1, SECTOR)
        if not any(self._bytes[start : start + SECTOR]):
            return None
        self._bytes[start : start + SECTOR] = bytes(SECTOR)
        return f"its log loses the sector at byte {start}"

    def read(self) -> Durable:
        """What a starting node finds; a torn tail is cut off.  Raises JournalDamaged."""
        found: Durable | None = None
        data = bytes(self._bytes)
        end = sequence = 0
        whole = True
        while True:
            frame = read_frame(data, end, self._salt, sequence)
            if frame is not None and not whole:
                raise JournalDamaged(f"byte {end}: the mark at the end of a frame is wrong")
            if frame is None or isinstance(frame, Flaw):
                break
            if frame.kind is not Kind.BATCH:
                raise JournalDamaged(f"byte {end}: a frame of a kind that was never written")
            try:
                found = self._with_records(found, frame.payload)
            except ValueError as error:  # msgspec's errors are ValueErrors, too
                raise JournalDamaged(f"byte {end}: {error}") from None
            self._last_frame, end, sequence, whole = end, frame.end, frame.sequence, frame.ended
        if frame is not None and not frame.torn:
            raise JournalDamaged(f"byte {end}: {frame.reason}")
        self._repair(end, sequence)
        return Durable() if found is None else found

    @staticmethod
    def _with_records(found: Durable | None, payload: memoryview) -> Durable | None:
        """``found``, None before the first record, with what a frame adds to it.  Raises ValueError."""
        for hard_state, first_index, entries, snapshot in _decoder.decode(payload):
            if found is None:
                found = Durable(hard_state, first_index, entries, snapshot)
                continue
            if snapshot is not None:
                found.mark_snapshot(snapshot)
            found.append(hard_state, first_index, entries)
        return found

    def _repair(self, end: int, sequence: int) -> None:
        """Cuts what is torn, and completes the end of the last frame."""
        del self._bytes[end:]
        self._bytes.extend(bytes(end - len(self._bytes)))
        if end:
            self._bytes[end - len(END) :] = END
        self._sequence = sequence
