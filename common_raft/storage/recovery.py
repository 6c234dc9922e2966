"""Reading a log back, without changing a byte of it: what it holds, and what has to be repaired.

The rules for what is a torn write and what is damage are in ``records``.  Here they are applied to the log as a
whole: only its very last frame may be torn, frames and segments are numbered without a gap, and all belong to one
node of one cluster.  The first segments may be missing if a snapshot stands for them.

A node goes on from the newest snapshot that the log marks and whose file is sound, and from the entries behind it.
Where the newest is not sound an older one will do, or none, as far as the log still reaches back to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common_raft.core.messages import Entry, HardState
from common_raft.storage.errors import (
    CorruptLog,
    ForeignDirectory,
    UnsupportedVersion,
    UnusableSnapshot,
    operator_errors,
)
from common_raft.storage.records import (
    END,
    FORMAT_VERSION,
    HEADER_FRAME,
    Flaw,
    Frame,
    Kind,
    SegmentHeader,
    SnapshotMark,
    StoredRecord,
    WrongVersion,
    decode_batch,
    decode_header,
    decode_seal,
    is_zero,
    read_frame,
)
from common_raft.storage.segment import SUFFIX, parse_segment_name
from common_raft.storage.snapshots import Snapshots

_END_IS_WRONG = "the mark at the end of a frame is wrong"


@dataclass(frozen=True, slots=True)
class TornTail:
    """A write that a crash interrupted, and that was cut: nobody had been told that it was durable.

    :param offset: where it began in ``file``, in bytes
    :param bytes_cut: from there to the last byte that was not zero
    """

    file: Path
    offset: int
    bytes_cut: int

    def __str__(self) -> str:
        return f"{self.file}: cut an unfinished write of {self.bytes_cut} bytes at offset {self.offset}"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a log held when it was opened; ``entries[0]`` has index ``first_index``.

    ``snapshot``: what to go on from, sound when it was read; the entries begin right behind it.  None: from nothing,
    with entry 1.  ``unusable``: newer ones that were passed over, each in a line for the operator.
    """

    hard_state: HardState
    first_index: int
    entries: list[Entry]
    torn: TornTail | None
    snapshot: SnapshotMark | None = None
    unusable: tuple[UnusableSnapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment, its header read: ``sequence`` is the number of the last batch before it."""

    path: Path
    header: SegmentHeader
    sequence: int


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A segment that has a successor but (through a crash just then) no whole seal, which goes to ``end``."""

    segment: SegmentFile
    end: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A snapshot that the log marks, in segment ``number``; ``received`` if the log was begun anew behind it."""

    snapshot: SnapshotMark
    received: bool
    number: int


@dataclass(slots=True)
class Log:
    """The log as far as it has been read; ``sequence`` is the number of the last batch.

    ``reaches_back``: whether it begins where the node began, so that nothing before ``first_index`` was dropped.
    Of the last segment, ``end`` is where the next frame goes, ``last_batch`` the last batch's frame (None if the
    segment has no batch yet), ``last_offset`` where that begins and ``last_frame`` its bytes, its END made whole.
    """

    hard_state: HardState
    first_index: int
    sequence: int
    segment: SegmentFile
    reaches_back: bool
    segments: list[SegmentFile]
    entries: list[Entry] = field(default_factory=list)
    marks: list[Marked] = field(default_factory=list)
    unsealed: list[Unsealed] = field(default_factory=list)
    torn: TornTail | None = None
    end: int = HEADER_FRAME
    last_offset: int = 0
    last_batch: Frame | None = None
    last_frame: bytes | None = None

    def apply(self, payload: memoryview) -> None:
        """Take in a batch.  Raises ValueError if it cannot follow what was read so far."""
        for record in decode_batch(payload):
            if record.snapshot is not None:
                self._mark(record.snapshot, record.received)
            if record.entries:
                self._take_entries(record)
            if record.hard_state is not None:
                self.hard_state = record.hard_state

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.entries) - 1

    def _mark(self, snapshot: SnapshotMark, received: bool) -> None:
        index = snapshot.index
        if received:
            self.first_index, self.entries, self.reaches_back = index + 1, [], True
        elif index > self.last_index:
            raise ValueError(f"a snapshot of entry {index} in a log that ends with {self.last_index}")
        self.marks.append(Marked(snapshot, received, self.segment.header.number))
        self.hard_state = commit_at_least(self.hard_state, index)

    def _take_entries(self, record: StoredRecord) -> None:
        if record.first_index < self.first_index and not self.reaches_back:
            # What this replaced began in segments that were dropped.
            self.first_index, self.entries = record.first_index, []
        place = record.first_index - self.first_index
        if not 0 <= place <= len(self.entries):
            raise ValueError(
                f"entries from {record.first_index} on do not fit a log of {self.first_index} to "
                f"{self.last_index}"
            )
        del self.entries[place:]
        self.entries.extend(record.entries)


def commit_at_least(state: HardState, index: int) -> HardState:
    """A snapshot stands for committed entries, whether or not the commit index was written before it."""
    return state if state.commit >= index else HardState(state.term, state.vote, index)


def read_log(directory: Path, cluster_id: int, node_id: int) -> Log | None:
    """Read the log in ``directory``; None if there is no segment at all.

    Raises CorruptLog, ForeignDirectory, UnsupportedVersion, UnreadableLog.
    """
    with operator_errors(directory):
        segments = _read_headers(directory, cluster_id, node_id)
        if not segments:
            return None
        first = segments[0]
        header = first.header
        log = Log(header.hard_state, header.first_index, first.sequence, first, header.number == 1, segments)
        for segment, successor in zip(segments, [*segments[1:], None], strict=True):
            _read_segment(log, segment, successor)
    return log


def recover(log: Log, snapshots: Snapshots) -> Recovered:
    """What a node goes on from.

    Raises UnusableSnapshot when the log does not reach back to a sound one, CorruptLog when it reaches back to none
    at all, UnreadableLog when the disk does not let one be read.
    """
    unusable: list[UnusableSnapshot] = []
    for marked in reversed(log.marks):
        snapshot = marked.snapshot
        if snapshot.index + 1 < log.first_index:
            break
        path = snapshots.path(snapshot)
        if not path.exists():
            if marked is log.marks[-1]:  # older ones were removed once there was a newer one
                unusable.append(UnusableSnapshot(path, 0, "the log marks it, and it is not there"))
            continue
        try:
            snapshots.verify(snapshot)
        except UnusableSnapshot as error:
            unusable.append(error)
        else:
            behind = log.entries[snapshot.index + 1 - log.first_index :]
            return Recovered(log.hard_state, snapshot.index + 1, behind, log.torn, snapshot, tuple(unusable))
    if log.first_index == 1:
        return Recovered(log.hard_state, 1, log.entries, log.torn, None, tuple(unusable))
    if unusable:
        raise unusable[0]
    first = log.segments[0]
    raise CorruptLog(
        first.path,
        0,
        f"segment {first.header.number - 1}, which should be there too, is missing, and no snapshot stands for the "
        f"entries up to {log.first_index - 1}",
    )


def _read_headers(directory: Path, cluster_id: int, node_id: int) -> list[SegmentFile]:
    """All segments in order, after checking that none is missing in between and that all are this node's."""
    segments: list[SegmentFile] = []
    for path in sorted(directory.glob("*" + SUFFIX)):
        named = parse_segment_name(path.name)
        if named is None:
            raise CorruptLog(path, 0, "its name is not a segment's")
        segment = _read_header(path)
        header = segment.header
        if header.cluster_id != cluster_id:
            raise ForeignDirectory(directory, "cluster", header.cluster_id, cluster_id)
        if header.node_id != node_id:
            raise ForeignDirectory(directory, "node", header.node_id, node_id)
        if named != (header.number, header.first_index):
            found = f"segment {header.number} from entry {header.first_index} on"
            raise CorruptLog(path, 0, f"its content is that of {found}, which is not what its name says")
        expected = segments[-1].header.number + 1 if segments else header.number
        if header.number != expected:
            raise CorruptLog(path, 0, f"segment {expected}, which should be there too, is missing")
        if segments and header.salt_before != segments[-1].header.salt:
            raise CorruptLog(path, 0, f"it does not belong to the same log as {segments[-1].path.name}")
        segments.append(segment)
    return segments


def _read_header(path: Path) -> SegmentFile:
    with path.open("rb") as file:
        data = file.read(HEADER_FRAME)
    frame = read_frame(data, 0, 0, None)
    if not isinstance(frame, Frame) or frame.kind is not Kind.HEADER or not frame.ended:
        raise CorruptLog(path, 0, "the header of the segment is wrong")
    try:
        header = decode_header(frame.payload)
    except WrongVersion as error:
        raise UnsupportedVersion(path, error.found, FORMAT_VERSION) from None
    except ValueError as error:
        raise CorruptLog(path, 0, str(error)) from None
    return SegmentFile(path, header, frame.sequence)


def _read_segment(log: Log, segment: SegmentFile, successor: SegmentFile | None) -> None:
    """Read the batches of a segment into ``log``, and judge how it ends."""
    _check_continues(log, segment)
    data = segment.path.read_bytes()
    behind = _read_batches(log, segment, data)
    if successor is None:
        _judge_end_of_log(log, data, behind)
    else:
        _judge_end_of_segment(log, data, behind, successor)


def _check_continues(log: Log, segment: SegmentFile) -> None:
    """A segment's header repeats what the log came to before it."""
    header = segment.header
    if segment.sequence != log.sequence:
        raise CorruptLog(
            segment.path, 0, f"it goes on after batch {segment.sequence}, not after batch {log.sequence}"
        )
    if header.first_index != log.last_index + 1:
        raise CorruptLog(
            segment.path, 0, f"it begins with entry {header.first_index}, not with entry {log.last_index + 1}"
        )
    if header.hard_state != log.hard_state:
        raise CorruptLog(segment.path, 0, f"it begins with {header.hard_state}, not with {log.hard_state}")


def _read_batches(log: Log, segment: SegmentFile, data: bytes) -> Frame | Flaw | None:
    """Read batches into ``log`` up to something else, which is returned and lies at ``log.end``."""
    log.segment = segment
    log.end = HEADER_FRAME
    log.last_batch = None
    while True:
        frame = read_frame(data, log.end, segment.header.salt, log.sequence)
        if frame is not None and log.last_batch is not None and not log.last_batch.ended:
            # Only the very last write may lack a part of its end.
            raise CorruptLog(segment.path, log.last_offset, _END_IS_WRONG)
        if not isinstance(frame, Frame) or frame.kind is not Kind.BATCH:
            return frame
        try:
            log.apply(frame.payload)
        except ValueError as error:
            raise CorruptLog(segment.path, log.end, str(error)) from None
        log.sequence = frame.sequence
        log.last_batch, log.last_offset = frame, log.end
        log.end = frame.end


def _judge_end_of_log(log: Log, data: bytes, behind: Frame | Flaw | None) -> None:
    """Behind the last batch of the last segment there may be nothing, or a torn write."""
    path, offset = log.segment.path, log.end
    if log.last_batch is not None:
        # Padded, because a file that is cut short may also lack zeros that belong to the frame.
        whole = offset - len(END)
        log.last_frame = data[log.last_offset : whole].ljust(whole - log.last_offset, b"\0") + END
    if isinstance(behind, Frame):
        if behind.kind is Kind.SEAL:
            missing = log.segment.header.number + 1
            raise CorruptLog(
                path, offset, f"it ends with a seal, but segment {missing}, the next one, is missing"
            )
        raise CorruptLog(path, offset, "a second segment header")
    if behind is None:
        return
    if not behind.torn:
        raise CorruptLog(path, offset, behind.reason)
    log.torn = TornTail(path, offset, len(data[offset:].rstrip(b"\0")))


def _judge_end_of_segment(log: Log, data: bytes, behind: Frame | Flaw | None, successor: SegmentFile) -> None:
    """Behind the last batch of an earlier segment there must be its seal.

    The seal is written when its successor is durable already.  So a crash between the two leaves a segment without
    it, or with a torn one; then it is written (again), provided that the successor goes on at just this place.
    """
    path, offset = log.segment.path, log.end
    if isinstance(behind, Flaw) and not (behind.torn and log.sequence == successor.sequence):
        raise CorruptLog(path, offset, behind.reason)
    if log.last_batch is not None and not log.last_batch.ended:
        raise CorruptLog(path, log.last_offset, _END_IS_WRONG)
    if log.sequence != successor.sequence:
        raise CorruptLog(path, offset, f"batches {log.sequence + 1} to {successor.sequence} are missing")
    if not isinstance(behind, Frame):
        log.unsealed.append(Unsealed(log.segment, offset, log.sequence))
        return
    number = log.segment.header.number
    try:
        next_number = decode_seal(behind.payload) if behind.kind is Kind.SEAL else None
    except ValueError as error:
        raise CorruptLog(path, offset, str(error)) from None
    if next_number != number + 1:
        raise CorruptLog(
            path, offset, f"the seal names segment {next_number} as the one after segment {number}"
        )
    if not is_zero(data, behind.end, len(data)):
        raise CorruptLog(path, behind.end, "there is something behind the segment's seal")
    if not behind.ended:
        log.unsealed.append(Unsealed(log.segment, offset, log.sequence))
