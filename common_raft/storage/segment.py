"""A segment as a file: its name, how it comes into being whole, and how it is written, sealed and cut.

What a segment holds is ``records``'s business.  Everything here raises OSError as it comes; the callers know what
it means for the log.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from time import perf_counter

from common_raft.storage.records import HEADER_FRAME, SEAL_FRAME, FrameEncoder, SegmentHeader

SUFFIX = ".wal"
#: A segment that is being made; one that a crash left behind is removed.
TEMPORARY_SUFFIX = ".wal.tmp"

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)


def segment_name(number: int, first_index: int) -> str:
    """``NUMBER-FIRSTINDEX.wal``, both as 16 hexadecimal digits, so that names sort as the log goes."""
    return f"{number:016x}-{first_index:016x}{SUFFIX}"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """The number and the first index in a segment's name; None if it is not one."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable: a new file's own fsync does not cover its name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of ``data``: the system may take less at once (2 GiB at most; a nearly full disk)."""
    written = os.pwrite(descriptor, data, offset)
    if written == len(data):
        return
    with memoryview(data) as rest:
        while written < len(data):
            written += os.pwrite(descriptor, rest[written:], offset + written)


def preallocate(descriptor: int, size: int) -> None:
    """Reserve ``size`` bytes that read as zeros, so that appending changes no file size and meets no full disk.

    A file system that cannot reserve is fine too: the file then grows as it is written.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


class Segment:
    """The open segment at the end of the log.

    ``end`` is where the next frame goes, ``size`` how many bytes the segment may have, its seal included.
    """

    __slots__ = ("_fsync", "descriptor", "end", "number", "path", "salt", "size")

    def __init__(
        self, path: Path, descriptor: int, number: int, salt: int, end: int, size: int, *, fsync: bool
    ) -> None:
        self.path = path
        self.number = number
        self.salt = salt
        self.end = end
        self.size = size
        self.descriptor = descriptor
        self._fsync = fsync

    @classmethod
    def create(
        cls, directory: Path, header: SegmentHeader, sequence: int, size: int, *, fsync: bool
    ) -> Segment:
        """Make a new segment that goes on after batch ``sequence``.

        It gets its name only when its header is durable: a segment that has its name is never half made.
        """
        path = directory / segment_name(header.number, header.first_index)
        temporary = path.with_suffix(TEMPORARY_SUFFIX)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            preallocate(descriptor, size)
            write_all(descriptor, FrameEncoder().encode_header(header, sequence), 0)
            if fsync:
                os.fsync(descriptor)
            temporary.rename(path)
            if fsync:
                sync_directory(directory)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        return cls(path, descriptor, header.number, header.salt, HEADER_FRAME, size, fsync=fsync)

    @classmethod
    def reopen(cls, path: Path, number: int, salt: int, end: int, size: int, *, fsync: bool) -> Segment:
        """Open a segment that recovery has read up to ``end``, to go on behind it.  Changes nothing yet."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        size = max(size, os.fstat(descriptor).st_size)
        return cls(path, descriptor, number, salt, end, size, fsync=fsync)

    def has_room(self, frame_size: int) -> bool:
        """Whether a frame of that many bytes fits, and the seal behind it."""
        return self.end + frame_size + SEAL_FRAME <= self.size

    def write(self, frame: bytes | bytearray) -> None:
        """Append a frame, which is durable once ``sync`` was called, or ``descriptor`` synced by other means."""
        write_all(self.descriptor, frame, self.end)
        self.end += len(frame)

    def sync(self) -> float:
        """Make durable what was written.  Returns the seconds that ``fdatasync`` took."""
        began = perf_counter()
        if self._fsync:
            os.fdatasync(self.descriptor)
        return perf_counter() - began

    def rewrite(self, frame: bytes, offset: int) -> None:
        """Write a frame that is there already once more, with all of its end, and make it durable."""
        write_all(self.descriptor, frame, offset)
        if self._fsync:
            os.fdatasync(self.descriptor)

    def clear_rest(self) -> None:
        """Make everything behind ``end`` zero, durably, and preallocated."""
        os.ftruncate(self.descriptor, self.end)
        self.reserve()

    def reserve(self) -> None:
        """Preallocate up to ``size``; a segment that was copied, or made by other means, may be shorter."""
        preallocate(self.descriptor, self.size)
        if self._fsync:
            os.fsync(self.descriptor)

    def seal(self, sequence: int) -> None:
        """Close the segment: the next one is there, durably, and goes on after batch ``sequence``."""
        self.write(FrameEncoder().encode_seal(self.number + 1, sequence, self.end, self.salt))
        self.sync()
        os.ftruncate(self.descriptor, self.end)  # what was preallocated and is not needed
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)
