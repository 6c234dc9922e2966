"""The durable log: hard state and entries, on disk before anything that depends on them is said.

One ``append`` is one group commit: any number of Readies in one frame, one write, one ``fdatasync``.  ``records``
has the format and the reasoning about torn writes and damage, ``recovery`` reads a log back, ``segment`` handles
files.  A ``Wal`` is used by one thread at a time; ``writer.WalWriter`` says which.

Snapshots keep the log short, in this order: the snapshot's file is durable (``snapshots``), the log marks it, then
``purge`` removes whole segments that it stands for.  A crash in between leaves a file that nothing marks, which is
removed at the next start, or segments that the next purge removes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common_raft.core.messages import HardState
from common_raft.measures import LogMeasures
from common_raft.storage.errors import (
    CorruptLog,
    DirectoryInUse,
    UnreadableLog,
    WriteFailed,
    operator_errors,
)
from common_raft.storage.records import (
    FORMAT_VERSION,
    HEADER_FRAME,
    SEAL_FRAME,
    FrameEncoder,
    Record,
    SegmentHeader,
    SnapshotMark,
)
from common_raft.storage.recovery import (
    Log,
    Marked,
    Recovered,
    Unsealed,
    commit_at_least,
    read_log,
    recover,
)
from common_raft.storage.segment import TEMPORARY_SUFFIX, Segment, segment_name, sync_directory, write_all
from common_raft.storage.snapshots import Snapshots, snapshot_name

#: Held (``flock``) as long as the log is open.  It says whose log this is once there is one.
LOCK_NAME = "wal.lock"

#: As etcd's: a segment is made about once a second at the highest rates, and recovery reads one at a time.
SEGMENT_BYTES = 64 << 20

#: A smaller segment holds little but its own header and seal.
MIN_SEGMENT_BYTES = 512

#: etcd's ``--max-wals``: segments that are kept although a snapshot stands for them, to go back to an older one.
MAX_WALS = 5

#: Where snapshots are, in the log's directory.
SNAPSHOTS_NAME = "snap"


class Wal:
    """An open log.  ``open`` makes one; ``recovered`` is what it held then.

    ``snapshots``: where the snapshots are that this log marks.  ``measures``: how the disk does.  ``last_sync``: how
    long the last ``fdatasync`` took, in seconds.
    """

    __slots__ = (
        "_closed",
        "_directory",
        "_encoder",
        "_failure",
        "_first_index",
        "_fsync",
        "_hard_state",
        "_ids",
        "_last_index",
        "_lock",
        "_marks",
        "_max_wals",
        "_segment",
        "_segment_bytes",
        "_segments",
        "_sequence",
        "_version",
        "last_sync",
        "measures",
        "recovered",
        "snapshots",
    )

    recovered: Recovered
    _first_index: int  # the lowest that entries may have
    _hard_state: HardState
    _last_index: int
    _marks: list[Marked]
    _segment: Segment
    _segments: list[tuple[int, int]]  # number and first index, the open one last
    _sequence: int  # number of the last batch
    _version: int  # of the open segment

    def __init__(
        self,
        directory: Path,
        lock: int,
        ids: tuple[int, int],
        segment_bytes: int,
        *,
        max_wals: int,
        fsync: bool,
    ) -> None:
        """For ``open`` alone, which does what can fail."""
        self._directory = directory
        self._lock = lock
        self._ids = ids
        self._segment_bytes = segment_bytes
        self._max_wals = max_wals
        self._fsync = fsync
        self.snapshots = Snapshots(directory / SNAPSHOTS_NAME, cluster_id=ids[0], fsync=fsync)
        self.measures = LogMeasures()
        self.last_sync = 0.0
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
        max_wals: int = MAX_WALS,
        fsync: bool = True,
    ) -> Wal:
        """Open the log in ``directory``; begin one if there is none.

        A write that a crash interrupted is cut off and reported in ``recovered.torn``; a snapshot that is damaged,
        where the log reaches back to an older one, is left and reported in ``recovered.unusable``.  For any other
        flaw the log is refused, and nothing on disk is changed.  The snapshot is read once, to check it.

        :param cluster_id: unsigned 64 bit, as ``node_id``; a log of other ids is refused
        :param segment_bytes: size of a segment; a batch that is larger gets a larger segment of its own
        :param max_wals: see ``purge``; 0: no segment is ever removed
        :param fsync: false: leave it to the system when to write.  The log survives the death of the process then,
            but after a power failure or a crash of the system it may have lost its end, or be refused
        :raises StorageError: DirectoryInUse, ForeignDirectory, CorruptLog, UnusableSnapshot, UnsupportedVersion,
            UnreadableLog, OutOfSpace
        :raises ValueError: an id of more than 64 bits or below 0, ``segment_bytes`` below ``MIN_SEGMENT_BYTES``, or a
            negative ``max_wals``
        """
        for name, value in (("cluster_id", cluster_id), ("node_id", node_id)):
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{name} is {value}; it must be from 0 to 2**64 - 1")
        if segment_bytes < MIN_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes is {segment_bytes}; it must be at least {MIN_SEGMENT_BYTES}")
        if max_wals < 0:
            raise ValueError(f"max_wals is {max_wals}; it must not be negative")
        directory = Path(directory)
        with operator_errors(directory):
            _make_directory(directory, fsync=fsync)
            lock = _lock(directory)
            try:
                ids = (cluster_id, node_id)
                return cls(directory, lock, ids, segment_bytes, max_wals=max_wals, fsync=fsync)
            except BaseException:
                os.close(lock)
                raise

    @property
    def ids(self) -> tuple[int, int]:
        """Whose log this is: the cluster's and the node's id."""
        return self._ids

    @property
    def syncs(self) -> bool:
        """Whether what is appended is made durable."""
        return self._fsync

    @property
    def last_index(self) -> int:
        """Index of the last entry in the log; ``recovered.first_index - 1`` while there is none."""
        return self._last_index

    def append(self, batch: Sequence[Record]) -> None:
        """Write all of ``batch`` as one frame and return when it is durable.

        Each record is (hard state or None for no change, index of the first entry, entries); its entries replace
        whatever the log holds from that index on, and no entries leave the log as it is.  It may go on with a
        snapshot, whose file is there, and whether it was received: the log is begun anew behind it then, before the
        record's own entries.  A batch in which nothing is to be written costs nothing.

        :raises WriteFailed: writing or ``fdatasync`` failed, in this call or an earlier one
        :raises ValueError: a gap between entries, a change to what is committed, a snapshot that does not fit or has
            no file, or a closed log; nothing is written then
        """
        framed = self._framed(batch)
        if framed is None:
            return
        frame, after = framed
        try:
            if not self._fits(frame, after):
                self._roll(len(frame))
            self._segment.write(self._encoder.finish(frame, self._segment.end, self._segment.salt))
            self.synced(self._segment.sync())
        except BaseException as error:
            raise self.failed(error) from error
        self._wrote(len(frame), after)

    def write(self, batch: Sequence[Record]) -> int | None:
        """`append` without waiting for the disk: returns the descriptor that is to be synced.

        The caller has that done, and then calls ``synced`` or ``failed``, before anything else is asked of the log.
        None, with nothing done, where nothing is to be written or a new segment is to be begun: then call ``append``.
        Raises as ``append``.
        """
        framed = self._framed(batch)
        if framed is None or not self._fits(*framed):
            return None
        frame, after = framed
        try:
            self._segment.write(self._encoder.finish(frame, self._segment.end, self._segment.salt))
        except BaseException as error:
            raise self.failed(error) from error
        self._wrote(len(frame), after)
        return self._segment.descriptor

    def synced(self, seconds: float) -> None:
        """What was written is durable: the disk took so long."""
        if self._fsync:
            self.measures.fsyncs.observe(seconds)
            self.last_sync = seconds

    def failed(self, error: BaseException) -> WriteFailed:
        """What was written is perhaps not durable, and nothing more is written; returns what is to be raised.

        A failed write or fdatasync is final.  After a failed fdatasync Linux marks the pages clean although the disk
        does not hold them, so that a second one succeeds without having written anything ("fsyncgate",
        lwn.net/Articles/752063); and after a failed write nobody knows what is in the file.  Only reading the log
        back, by starting again, tells what survived.
        """
        self._failure = error
        return WriteFailed(self._segment.path, error)

    def _framed(self, batch: Sequence[Record]) -> tuple[bytearray, _After] | None:
        """The batch as a frame, still without its place, and what the log comes to by it; None if it says nothing."""
        if self._failure is not None:
            raise WriteFailed(self._segment.path, self._failure) from self._failure
        if self._closed:
            raise ValueError(f"{self._directory}: append to a closed log")
        records = [record for record in batch if record[0] is not None or record[2] or len(record) > 3]
        if not records:
            return None
        after = self._check(records)
        return self._encoder.encode_batch(records, self._sequence + 1), after

    def _fits(self, frame: bytearray, after: _After) -> bool:
        """Whether the open segment has room for the frame, and is of a version that has marks if it has some."""
        return self._segment.has_room(len(frame)) and not (after.marks and self._version < FORMAT_VERSION)

    def _wrote(self, size: int, after: _After) -> None:
        self.measures.written_bytes += size
        self._sequence += 1
        self._first_index, self._last_index, self._hard_state = (
            after.first_index,
            after.last_index,
            after.state,
        )
        self._marks += [Marked(mark, received, self._segment.number) for mark, received in after.marks]

    def mark_snapshot(self, mark: SnapshotMark) -> None:
        """Note that a snapshot taken here has its file: the next start may go on from it.  As ``append``."""
        self.append([(None, 1, (), mark, False)])

    def purge(self, index: int) -> list[Path]:
        """Remove segments that the snapshot of entry ``index`` stands for; returns what was removed.

        Oldest first, while there are more than ``max_wals``; with ``max_wals`` segments or fewer none.  What a start
        from that snapshot needs stays, however much it is.

        :raises UnreadableLog: the disk does not let them be removed
        :raises ValueError: the log marks no such snapshot
        """
        removed: list[Path] = []
        dispensable = self._dispensable(index)
        with operator_errors(self._directory):
            while dispensable and 0 < self._max_wals < len(self._segments):
                dispensable -= 1
                path = self._directory / segment_name(*self._segments[0])
                path.unlink()
                if self._fsync:
                    sync_directory(
                        self._directory
                    )  # one at a time, so that a crash leaves no gap between others
                del self._segments[0]
                removed.append(path)
        oldest = self._segments[0][0]
        self._marks = [marked for marked in self._marks if marked.number >= oldest]
        return removed

    def _dispensable(self, index: int) -> int:
        """How many of the first segments a start from the snapshot of ``index`` does not need.

        It needs the segment with the mark and, unless the log was begun anew there, all that has entries behind the
        snapshot: every entry from a segment's ``first_index`` on was written (for the last time) in it or later.
        """
        found = [marked for marked in self._marks if marked.snapshot.index == index]
        if not found:
            raise ValueError(f"the log marks no snapshot of entry {index}")
        marked = found[-1]
        return max(
            place
            for place, (number, first_index) in enumerate(self._segments)
            if place == 0
            or (number <= marked.number and first_index <= index + 1)
            or (number == marked.number and marked.received)
        )

    def close(self) -> None:
        """Let go of the files and the lock; what was appended is durable already.  Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._segment.close()
            os.close(self._lock)

    def _check(self, records: Sequence[Record]) -> _After:
        """What the log comes to by ``records``.

        A core that leaves a gap or overwrites what is committed has a bug that the disk must not make permanent.
        """
        lowest, last_index, state = self._first_index, self._last_index, self._hard_state
        marks: list[tuple[SnapshotMark, bool]] = []
        for record in records:
            hard_state, first_index, entries = record[:3]
            if len(record) == 5:
                mark, received = record[3:]
                self._check_mark(mark, received, last_index, state)
                marks.append((mark, received))
                if received:
                    lowest, last_index = mark.index + 1, mark.index
                state = commit_at_least(state, mark.index)
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
        return _After(lowest, last_index, state, marks)

    def _check_mark(self, mark: SnapshotMark, received: bool, last_index: int, state: HardState) -> None:
        if received and mark.index < state.commit:
            raise ValueError(
                f"a snapshot of entry {mark.index} replaces what is committed, up to {state.commit}"
            )
        if not received and mark.index > last_index:
            raise ValueError(f"a snapshot of entry {mark.index} in a log that ends with {last_index}")
        if not self.snapshots.path(mark).exists():
            raise ValueError(f"{self.snapshots.path(mark)} is to be marked in the log, and is not there")

    def _begin(self) -> None:
        """Begin a log in a directory that has none."""
        if os.fstat(self._lock).st_size:
            raise CorruptLog(
                self._directory, 0, f"{LOCK_NAME} says that a log was begun, but no segment is there"
            )
        self.recovered = Recovered(HardState(), 1, [], None)
        self._hard_state = HardState()
        self._first_index = 1
        self._last_index = 0
        self._sequence = 0
        self._marks = []
        self._segments = []
        self._segment = self._create_segment(1, 0, self._segment_bytes)
        self._claim()

    def _continue(self, log: Log) -> None:
        """Repair what a crash left unfinished, and go on behind the last batch."""
        self._check_end(log)
        self.recovered = recover(log, self.snapshots)
        self._hard_state = log.hard_state
        self._first_index = self.recovered.first_index
        self._last_index = log.last_index
        self._sequence = log.sequence
        self._marks = log.marks
        self._segments = [(file.header.number, file.header.first_index) for file in log.segments]
        header = log.segment.header
        self._version = header.version
        self._segment = Segment.reopen(
            log.segment.path, header.number, header.salt, log.end, self._segment_bytes, fsync=self._fsync
        )
        try:
            self._repair(log)
        except BaseException:
            self._segment.close()
            raise

    def _check_end(self, log: Log) -> None:
        """Refuses a log whose end is gone, where snapshots are left that show it.

        One of an entry that the log lacks may have been received just before a crash, and is of no use.  Several
        cannot: each but the last was marked in this log before the next began.
        """
        marked = {snapshot_name(each.snapshot) for each in log.marks}
        beyond = [
            file
            for file in self.snapshots.files()
            if file.index > log.last_index and file.path.name not in marked
        ]
        if len(beyond) > 1:
            raise CorruptLog(
                log.segments[-1].path,
                log.end,
                f"the log ends with entry {log.last_index}, but there are {len(beyond)} snapshots of later ones, up "
                f"to entry {max(file.index for file in beyond)}: what was behind this is gone",
            )

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
        self.snapshots.remove_leftovers(marked.snapshot for marked in log.marks)
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
        segment = Segment.create(self._directory, header, self._sequence, size, fsync=self._fsync)
        self._segments.append((header.number, header.first_index))
        self._version = header.version
        return segment

    def _claim(self) -> None:
        """Note beside the log that there is one, so that its disappearing is not taken for a new node's start."""
        cluster_id, node_id = self._ids
        note = f"The log of node {node_id:x} in cluster {cluster_id:x} is in this directory.\n"
        write_all(self._lock, note.encode(), 0)
        if self._fsync:
            os.fsync(self._lock)


class _After(NamedTuple):
    """What the log comes to by a batch."""

    first_index: int
    last_index: int
    state: HardState
    marks: list[tuple[SnapshotMark, bool]]


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
