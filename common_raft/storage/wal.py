"""The durable log: hard state and entries, on disk before anything that depends on them is said.

One ``append`` is one group commit: any number of Readies in one frame, one write, one ``fdatasync``.  ``records``
has the format and the reasoning about torn writes and damage, ``recovery`` reads a log back, ``segment`` handles
files.  A ``Wal`` is used by one thread at a time; ``writer.WalWriter`` is that thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from common_raft.core.messages import HardState
from common_raft.storage.errors import CorruptLog, DirectoryInUse, UnreadableLog, WriteFailed, operator_errors
from common_raft.storage.records import (
    FORMAT_VERSION,
    HEADER_FRAME,
    SEAL_FRAME,
    FrameEncoder,
    Record,
    SegmentHeader,
)
from common_raft.storage.recovery import Log, Recovered, Unsealed, read_log
from common_raft.storage.segment import TEMPORARY_SUFFIX, Segment, sync_directory, write_all

#: Held (``flock``) as long as the log is open.  It says whose log this is once there is one.
LOCK_NAME = "wal.lock"

#: As etcd's: a segment is made about once a second at the highest rates, and recovery reads one at a time.
SEGMENT_BYTES = 64 << 20

#: A smaller segment holds little but its own header and seal.
MIN_SEGMENT_BYTES = 512


class Wal:
    """An open log.  ``open`` makes one; ``recovered`` is what it held then."""

    __slots__ = (
        "_closed",
        "_directory",
        "_encoder",
        "_failure",
        "_fsync",
        "_hard_state",
        "_ids",
        "_last_index",
        "_lock",
        "_segment",
        "_segment_bytes",
        "_sequence",
        "recovered",
    )

    recovered: Recovered
    _hard_state: HardState
    _last_index: int
    _segment: Segment
    _sequence: int  # number of the last batch

    def __init__(
        self, directory: Path, lock: int, ids: tuple[int, int], segment_bytes: int, *, fsync: bool
    ) -> None:
        """For ``open`` alone, which does what can fail."""
        self._directory = directory
        self._lock = lock
        self._ids = ids
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._encoder = FrameEncoder()
        self._failure: BaseException | None = None
        self._closed = False
        log = read_log(directory, *ids)
        if log is None:
            self._begin()
        else:
            self._continue(log)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        cluster_id: int,
        node_id: int,
        segment_bytes: int = SEGMENT_BYTES,
        fsync: bool = True,
    ) -> Wal:
        """Open the log in ``directory``; begin one if there is none.

        A write that a crash interrupted is cut off and reported in ``recovered.torn``.  For any other flaw the log
        is refused, and nothing on disk is changed.

        :param cluster_id: unsigned 64 bit, as ``node_id``; a log of other ids is refused
        :param segment_bytes: size of a segment; a batch that is larger gets a larger segment of its own
        :param fsync: false: leave it to the system when to write.  The log survives the death of the process then,
            but after a power failure or a crash of the system it may have lost its end, or be refused
        :raises StorageError: DirectoryInUse, ForeignDirectory, CorruptLog, UnsupportedVersion, UnreadableLog,
            OutOfSpace
        :raises ValueError: ``segment_bytes`` below ``MIN_SEGMENT_BYTES``
        """
        if segment_bytes < MIN_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes is {segment_bytes}; it must be at least {MIN_SEGMENT_BYTES}")
        directory = Path(directory)
        with operator_errors(directory):
            _make_directory(directory, fsync=fsync)
            lock = _lock(directory)
            try:
                return cls(directory, lock, (cluster_id, node_id), segment_bytes, fsync=fsync)
            except BaseException:
                os.close(lock)
                raise

    @property
    def last_index(self) -> int:
        """Index of the last entry in the log; ``recovered.first_index - 1`` while there is none."""
        return self._last_index

    def append(self, batch: Sequence[Record]) -> None:
        """Write all of ``batch`` as one frame and return when it is durable.

        Each record is (hard state or None for no change, index of the first entry, entries); its entries replace
        whatever the log holds from that index on, and no entries leave the log as it is.  A batch in which nothing
        is to be written costs nothing.

        :raises WriteFailed: writing or ``fdatasync`` failed, in this call or an earlier one
        :raises ValueError: a gap between entries, a change to what is committed, or a closed log; nothing is
            written then
        """
        if self._failure is not None:
            raise WriteFailed(self._segment.path, self._failure) from self._failure
        if self._closed:
            raise ValueError(f"{self._directory}: append to a closed log")
        records = [record for record in batch if record[0] is not None or record[2]]
        if not records:
            return
        last_index, hard_state = self._check(records)
        frame = self._encoder.encode_batch(records, self._sequence + 1)
        # A failed write or fdatasync is final.  After a failed fdatasync Linux marks the pages clean although the
        # disk does not hold them, so that a second one succeeds without having written anything ("fsyncgate",
        # lwn.net/Articles/752063); and after a failed write nobody knows what is in the file.  Only reading the log
        # back, by starting again, tells what survived.
        try:
            if not self._segment.has_room(len(frame)):
                self._roll(len(frame))
            self._segment.write(self._encoder.finish(frame, self._segment.end, self._segment.salt))
        except BaseException as error:
            self._failure = error
            raise WriteFailed(self._segment.path, error) from error
        self._sequence += 1
        self._last_index = last_index
        self._hard_state = hard_state

    def close(self) -> None:
        """Let go of the files and the lock; what was appended is durable already.  Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._segment.close()
            os.close(self._lock)

    def _check(self, records: Sequence[Record]) -> tuple[int, HardState]:
        """The last index and the hard state after ``records``.

        A core that leaves a gap or overwrites what is committed has a bug that the disk must not make permanent.
        """
        last_index, state = self._last_index, self._hard_state
        lowest = self.recovered.first_index
        for hard_state, first_index, entries in records:
            if entries:
                if not lowest <= first_index <= last_index + 1:
                    raise ValueError(
                        f"entries from {first_index} on do not fit a log of {lowest} to {last_index}"
                    )
                if first_index <= state.commit:
                    raise ValueError(
                        f"entries from {first_index} on replace committed ones, up to {state.commit}"
                    )
                last_index = first_index + len(entries) - 1
            if hard_state is not None:
                state = hard_state
        return last_index, state

    def _begin(self) -> None:
        """Begin a log in a directory that has none."""
        if os.fstat(self._lock).st_size:
            raise CorruptLog(
                self._directory, 0, f"{LOCK_NAME} says that a log was begun, but no segment is there"
            )
        self.recovered = Recovered(HardState(), 1, [], None)
        self._hard_state = HardState()
        self._last_index = 0
        self._sequence = 0
        self._segment = self._create_segment(1, 0, self._segment_bytes)
        self._claim()

    def _continue(self, log: Log) -> None:
        """Repair what a crash left unfinished, and go on behind the last batch."""
        self._hard_state = log.hard_state
        self._last_index = log.first_index + len(log.entries) - 1
        self._sequence = log.sequence
        header = log.segment.header
        self._segment = Segment.reopen(
            log.segment.path, header.number, header.salt, log.end, self._segment_bytes, fsync=self._fsync
        )
        try:
            self._repair(log)
        except BaseException:
            self._segment.close()
            raise
        self.recovered = Recovered(log.hard_state, log.first_index, log.entries, log.torn)

    def _repair(self, log: Log) -> None:
        if log.torn is not None:
            self._segment.clear_rest()
        else:
            self._segment.reserve()
        if log.last_frame is not None:
            # It may be in the system's cache only: its writer may have died before, or because of a failed,
            # fdatasync.  What is read must be durable before it is relied on, and only writing it again makes
            # the system write it (see the comment on fsyncgate in ``append``).
            self._segment.rewrite(log.last_frame, log.last_offset)
        for unsealed in log.unsealed:
            self._seal(unsealed)
        for leftover in self._directory.glob("*" + TEMPORARY_SUFFIX):
            leftover.unlink()
        if self._fsync:
            sync_directory(self._directory)
        if not os.fstat(self._lock).st_size:
            self._claim()

    def _seal(self, unsealed: Unsealed) -> None:
        header = unsealed.segment.header
        segment = Segment.reopen(
            unsealed.segment.path, header.number, header.salt, unsealed.end, 0, fsync=self._fsync
        )
        segment.seal(unsealed.sequence)

    def _roll(self, frame_size: int) -> None:
        """Go on in a new segment, large enough for a frame of ``frame_size`` bytes."""
        full = self._segment
        size = max(self._segment_bytes, HEADER_FRAME + frame_size + SEAL_FRAME)
        self._segment = self._create_segment(full.number + 1, full.salt, size)
        full.seal(self._sequence)

    def _create_segment(self, number: int, salt_before: int, size: int) -> Segment:
        header = SegmentHeader(
            version=FORMAT_VERSION,
            salt=int.from_bytes(os.urandom(4), "little"),
            salt_before=salt_before,
            cluster_id=self._ids[0],
            node_id=self._ids[1],
            number=number,
            first_index=self._last_index + 1,
            hard_state=self._hard_state,
        )
        return Segment.create(self._directory, header, self._sequence, size, fsync=self._fsync)

    def _claim(self) -> None:
        """Note beside the log that there is one, so that its disappearing is not taken for a new node's start."""
        cluster_id, node_id = self._ids
        note = f"The log of node {node_id:x} in cluster {cluster_id:x} is in this directory.\n"
        write_all(self._lock, note.encode(), 0)
        if self._fsync:
            os.fsync(self._lock)


def _make_directory(directory: Path, *, fsync: bool) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        if fsync:
            sync_directory(path.parent)
    if not directory.is_dir():
        raise UnreadableLog(directory, "it is not a directory", "choose another path for the log")


def _lock(directory: Path) -> int:
    """Take the directory's lock; the file descriptor holds it until it is closed, or the process ends."""
    descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise DirectoryInUse(directory) from None
        raise
    return descriptor
