"""Snapshots as files: whole and checked, or not there at all.

A snapshot's file is named by its term and index.  It is written under another name, synced, and then renamed, so that
a file that has its name was once whole.  The log says which of them count: a file that it does not mark is a leftover
(``Wal.mark_snapshot``).  All numbers are little endian:

    header    magic 8 bytes | version u32 | meta length u32 | cluster id u64 | index u64 | term u64 | meta | crc u32
    chunk     length u32 (not 0) | crc u32 | payload          any number of them
    end       0 u32 | crc u32                                 the file ends here

Each CRC-32 covers all of its part but itself, and begins with the CRC before it (the header's with 0).  So each chunk
can be believed as soon as it is read, the last CRC covers the file as a whole, and a chunk that is missing, doubled,
swapped or another file's shows.

A snapshot travels to another node as the bytes of its file, so that what arrives is checked from end to end.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from types import TracebackType
from zlib import crc32

from common_raft.measures import SnapshotMeasures
from common_raft.storage.errors import SnapshotNotWritten, UnreadableLog, UnusableSnapshot, operator_errors
from common_raft.storage.records import SnapshotMark
from common_raft.storage.segment import sync_directory, write_all

#: What this version writes, and all that it reads.
FORMAT_VERSION = 1

#: In bytes; a chunk is held in memory as a whole, and a length beyond this is taken for damage.
MAX_CHUNK = 64 << 20
#: The same for what goes with a snapshot: members' names and the like.
MAX_META = 1 << 20

#: The system is made to write after so many bytes, so that it never has much to write at once: the log on the same
#: disk waits for it too.
SYNC_BYTES = 4 << 20

SUFFIX = ".snap"
#: A snapshot that is being taken, and one that is being received.
WRITING_SUFFIX = ".snap.tmp"
RECEIVING_SUFFIX = ".snap.part"

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")
_MAGIC = b"RFSNAP\r\n"
_HEADER = struct.Struct("<8sII3Q")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot that has its file: ``size`` in bytes."""

    path: Path
    index: int
    term: int
    size: int


def snapshot_name(mark: SnapshotMark) -> str:
    """``TERM-INDEX.snap``, both as 16 hexadecimal digits, so that names sort as the snapshots go."""
    return f"{mark.term:016x}-{mark.index:016x}{SUFFIX}"


class Snapshots:
    """The directory of a node's snapshots.  Whoever holds the log's lock may use it.

    Writing and receiving take as long as the disk takes: do it in a thread.
    """

    def __init__(self, directory: str | os.PathLike[str], *, cluster_id: int, fsync: bool = True) -> None:
        """``directory`` is made when the first snapshot is written.  Raises UnreadableLog where it can be none.

        ``fsync`` false never waits for the disk: a crash of the machine may then lose or damage snapshots.
        """
        self._directory = Path(directory)
        with operator_errors(self._directory):
            if self._directory.exists() and not self._directory.is_dir():
                raise UnreadableLog(
                    self._directory,
                    "not a directory, and the snapshots are kept there",
                    "move it away, and bring back the directory if there was one",
                )
        self._cluster_id = cluster_id
        self._fsync = fsync
        self.measures = SnapshotMeasures()
        self._measuring = Lock()  # one may be written and another received

    def files(self) -> list[SnapshotFile]:
        """All that have their name, newest first, as their names say; none of them is read.

        Raises UnreadableLog.
        """
        found = []
        with operator_errors(self._directory):
            for path in self._directory.glob("*" + SUFFIX):
                named = _NAME.fullmatch(path.name)
                if named:
                    term, index = int(named[1], 16), int(named[2], 16)
                    found.append(SnapshotFile(path, index, term, path.stat().st_size))
        return sorted(found, key=lambda file: (file.term, file.index), reverse=True)

    def path(self, mark: SnapshotMark) -> Path:
        """Where this snapshot is, if it is there."""
        return self._directory / snapshot_name(mark)

    def size(self, mark: SnapshotMark) -> int:
        """Bytes of this snapshot's file; 0 if it is not there.  Raises UnreadableLog."""
        with operator_errors(self._directory):
            try:
                return self.path(mark).stat().st_size
            except FileNotFoundError:
                return 0

    # --- writing ----------------------------------------------------------------------------------------------

    def write(self, mark: SnapshotMark, chunks: Iterable[bytes]) -> SnapshotFile:
        """Write a snapshot; it is durable, under its name, when this returns.  Empty chunks are left out.

        Raises SnapshotNotWritten, and whatever ``chunks`` raises; nothing is left behind then.
        """
        if len(mark.meta) > MAX_META:
            raise ValueError(f"a snapshot's meta of {len(mark.meta)} bytes is beyond {MAX_META}")
        began = perf_counter()
        file = self._new_file(mark, WRITING_SUFFIX)
        with file:
            header = _encode_header(self._cluster_id, mark)
            checksum = crc32(header)
            file.append(header + _CRC.pack(checksum))
            for chunk in chunks:
                if len(chunk) > MAX_CHUNK:
                    raise ValueError(f"a chunk of {len(chunk)} bytes is beyond {MAX_CHUNK}")
                if chunk:
                    checksum = _checksum(chunk, checksum)
                    file.append(_CHUNK.pack(len(chunk), checksum) + chunk)
            file.append(_CHUNK.pack(0, _checksum(b"", checksum)))
            published = file.publish()
        self.measures.saves.observe(perf_counter() - began)
        return published

    def begin(self, mark: SnapshotMark) -> SnapshotSink:
        """Receive the file of the snapshot ``mark`` from another node, from its beginning.

        Raises SnapshotNotWritten.
        """
        return SnapshotSink(self, mark, self._new_file(mark, RECEIVING_SUFFIX))

    def _new_file(self, mark: SnapshotMark, suffix: str) -> _NewFile:
        return _NewFile(self._directory, mark, suffix, self._synced, fsync=self._fsync)

    def _synced(self, seconds: float) -> None:
        with self._measuring:
            self.measures.fsyncs.observe(seconds)

    # --- reading ----------------------------------------------------------------------------------------------

    def open(self, mark: SnapshotMark) -> SnapshotReader:
        """Open a snapshot's file to send it: close the reader.  Raises UnreadableLog."""
        return SnapshotReader(self.path(mark))

    def chunks(self, mark: SnapshotMark) -> Iterator[bytes]:
        """The chunks that were written, each checked.

        Raises UnusableSnapshot (also at the very end: what was read so far may not be all) and UnreadableLog.
        """
        return _read(self.path(mark), self._cluster_id, mark)

    def verify(self, mark: SnapshotMark) -> None:
        """Read a snapshot from beginning to end.  Raises UnusableSnapshot and UnreadableLog."""
        for _ in self.chunks(mark):
            pass

    # --- removing ---------------------------------------------------------------------------------------------

    def purge(self, keep: int, newest: SnapshotMark) -> list[Path]:
        """Remove all but ``keep`` (0: none is removed), counted from ``newest`` back; returns what was removed.

        ``newest`` is the newest that the log marks durably: what is newer still stays, and is not relied on yet.
        Raises UnreadableLog.
        """
        counted = [file for file in self.files() if (file.term, file.index) <= (newest.term, newest.index)]
        old = [file.path for file in counted[keep:]] if keep else []
        self._remove(old)
        return old

    def remove_leftovers(self, marked: Iterable[SnapshotMark]) -> list[Path]:
        """At a start: remove what a crash left, which is all that is unfinished or not ``marked`` in the log.

        Raises UnreadableLog.
        """
        names = {snapshot_name(mark) for mark in marked}
        with operator_errors(self._directory):
            left = [file.path for file in self.files() if file.path.name not in names]
            for suffix in (WRITING_SUFFIX, RECEIVING_SUFFIX):
                left += sorted(self._directory.glob("*" + suffix))
        self._remove(left)
        return left

    def _remove(self, paths: list[Path]) -> None:
        with operator_errors(self._directory):
            for path in paths:
                path.unlink(missing_ok=True)


class SnapshotSink:
    """A snapshot on its way here.

    ``offset``: how many bytes of its file are here; after a lost connection the sender
    goes on from there.  Whoever made it calls ``finish`` or ``abort``.
    """

    __slots__ = ("_file", "_owner", "mark")

    def __init__(self, owner: Snapshots, mark: SnapshotMark, file: _NewFile) -> None:
        self.mark = mark
        self._owner = owner
        self._file = file
        with file.removed_on_failure():
            file.create()

    @property
    def offset(self) -> int:
        return self._file.size

    def write(self, offset: int, data: bytes) -> int:
        """Take ``data``, which lies at ``offset`` in the file; returns the new ``offset``.

        What is here already is left out, and what would leave a gap is not taken: the sender goes on from what is
        returned.  Raises SnapshotNotWritten, and is aborted then.
        """
        known = self._file.size - offset
        if 0 <= known < len(data):
            with self._file.removed_on_failure():
                self._file.append(data[known:])
        return self._file.size

    def finish(self) -> SnapshotFile:
        """All of it is here: check it, make it durable and give it its name.  Reads the file once.

        Raises UnusableSnapshot when it is damaged, incomplete or not what was announced, SnapshotNotWritten and
        UnreadableLog; it is aborted then.
        """
        with self._file.removed_on_failure():
            for _ in _read(self._file.path, self._owner._cluster_id, self.mark):
                pass
            return self._file.publish()

    def abort(self) -> None:
        """Give it up and remove what is here; after ``finish`` it does nothing."""
        self._file.remove()


class SnapshotReader:
    """A snapshot's file, opened to be sent.  It stays readable when the snapshot is purged meanwhile."""

    __slots__ = ("_descriptor", "path", "size")

    def __init__(self, path: Path) -> None:
        self.path = path
        with operator_errors(path):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; nothing behind the end.  Raises UnreadableLog."""
        with operator_errors(self.path):
            return os.pread(self._descriptor, limit, offset)

    def close(self) -> None:
        """Closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NewFile:
    """A file that gets its name once it is whole and durable.  As a context it is made, and removed on failure."""

    __slots__ = ("_descriptor", "_final", "_fsync", "_synced", "_term_index", "_unsynced", "path", "size")

    def __init__(
        self,
        directory: Path,
        mark: SnapshotMark,
        suffix: str,
        synced: Callable[[float], None],
        *,
        fsync: bool,
    ) -> None:
        """``synced`` is told the seconds of each ``fdatasync``."""
        self._final = directory / snapshot_name(mark)
        self.path = self._final.with_suffix(suffix)
        self.size = 0
        self._term_index = mark.term, mark.index
        self._fsync = fsync
        self._synced = synced
        self._unsynced = 0
        self._descriptor = -1

    def __enter__(self) -> _NewFile:
        try:
            with self._operations():
                self.create()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.remove()

    @contextmanager
    def removed_on_failure(self) -> Iterator[None]:
        try:
            with self._operations():
                yield
        except BaseException:
            self.remove()
            raise

    @contextmanager
    def _operations(self) -> Iterator[None]:
        """Turn what the operating system says into the one line for the operator."""
        try:
            yield
        except OSError as error:
            raise SnapshotNotWritten(self.path, self.size, error) from error

    def create(self) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._fsync:
                sync_directory(directory.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)

    def append(self, data: bytes) -> None:
        with self._operations():
            write_all(self._descriptor, data, self.size)
            self.size += len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                self._sync()

    def publish(self) -> SnapshotFile:
        """Make it durable and give it its name."""
        with self._operations():
            self._sync()
            self.path.rename(self._final)
            try:
                if self._fsync:
                    sync_directory(self._final.parent)
            except BaseException:
                self._final.unlink(missing_ok=True)  # nobody was told of it
                raise
        self._close()
        term, index = self._term_index
        return SnapshotFile(self._final, index, term, self.size)

    def remove(self) -> None:
        if self._descriptor >= 0:
            self._close()
            self.path.unlink(missing_ok=True)

    def _sync(self) -> None:
        if self._fsync:
            began = perf_counter()
            os.fdatasync(self._descriptor)
            self._synced(perf_counter() - began)
        self._unsynced = 0

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def _encode_header(cluster_id: int, mark: SnapshotMark) -> bytes:
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, len(mark.meta), cluster_id, mark.index, mark.term) + mark.meta


def _checksum(payload: bytes, before: int) -> int:
    return crc32(payload, crc32(len(payload).to_bytes(4, "little"), before))


def _read(path: Path, cluster_id: int, mark: SnapshotMark) -> Iterator[bytes]:
    with operator_errors(path), path.open("rb") as file:
        header = file.read(_HEADER.size)
        checksum = _check_header(path, header, file.read(_meta_length(header) + _CRC.size), cluster_id, mark)
        offset = file.tell()
        while True:
            head = file.read(_CHUNK.size)
            if len(head) < _CHUNK.size:
                raise UnusableSnapshot(path, offset, "the file ends here, and the snapshot does not")
            length, expected = _CHUNK.unpack(head)
            payload = file.read(length) if length <= MAX_CHUNK else b""
            checksum = _checksum(payload, checksum)
            if len(payload) != length or checksum != expected:
                raise UnusableSnapshot(
                    path, offset, "the checksum of a chunk is wrong, or its end is missing"
                )
            offset = file.tell()
            if not length:
                break
            yield payload
        if file.read(1):
            raise UnusableSnapshot(path, offset, "there is something behind the end of the snapshot")


def _meta_length(header: bytes) -> int:
    length: int = _HEADER.unpack(header)[2] if len(header) == _HEADER.size else 0
    return length if length <= MAX_META else 0


def _check_header(path: Path, header: bytes, rest: bytes, cluster_id: int, mark: SnapshotMark) -> int:
    """Whether it is this snapshot's; returns its checksum."""
    if header[: len(_MAGIC)] != _MAGIC or len(header) < _HEADER.size:
        raise UnusableSnapshot(path, 0, "it does not begin as a snapshot does")
    _, version, meta_length, found_cluster, index, term = _HEADER.unpack(header)
    if version != FORMAT_VERSION:
        raise UnusableSnapshot(
            path, 8, f"it is of snapshot format {version}, and this version reads format {FORMAT_VERSION}"
        )
    meta, crc = rest[: -_CRC.size], rest[-_CRC.size :]
    checksum = crc32(meta, crc32(header))
    if len(meta) != meta_length or crc != _CRC.pack(checksum):
        raise UnusableSnapshot(path, 0, "the checksum of its header is wrong, or its end is missing")
    if found_cluster != cluster_id:
        raise UnusableSnapshot(path, 16, f"it belongs to cluster {found_cluster:x}, not to {cluster_id:x}")
    if SnapshotMark(index, term, meta) != mark:
        raise UnusableSnapshot(
            path,
            24,
            f"it is the snapshot of entry {index} of term {term}, or has not the meta data that was named",
        )
    return checksum
