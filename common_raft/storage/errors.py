"""What can go wrong with a log on disk: each error is one line that names the thing, the value and the way out.

Only the storage raises these.  A mistake in the calling program (a gap between appended entries, say) is a
``ValueError`` instead: there is nothing an operator could do about it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StorageError(Exception):
    """The log cannot be opened, read or written; the message is meant for the operator."""


class DirectoryInUse(StorageError):
    """Another process (or another ``Wal`` of this one) holds the directory's lock."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory}: the log is in use by another process; stop that process or choose another directory"
        )
        self.directory = directory


class ForeignDirectory(StorageError):
    """The log belongs to another cluster or to another node.

    :param what: "cluster" or "node"
    :param found: the id in the log
    :param expected: the id of whoever wanted to open it
    """

    def __init__(self, directory: Path, what: str, found: int, expected: int) -> None:
        super().__init__(
            f"{directory}: the log belongs to {what} {found:x}, not to {what} {expected:x}; "
            "correct the name, the cluster's members or its token, or choose another directory"
        )
        self.directory = directory
        self.found = found
        self.expected = expected


class CorruptLog(StorageError):
    """The log is damaged in a way that no interrupted write explains.  Nothing on disk was changed.

    :param file: the damaged segment (or the directory, where a whole segment is missing)
    :param offset: in bytes from the beginning of that file
    """

    def __init__(self, file: Path, offset: int, reason: str) -> None:
        super().__init__(
            f"{file}: damaged at offset {offset}: {reason}; nothing was changed: restore the directory from a copy, "
            "or remove this node from the cluster and add it again with an empty directory"
        )
        self.file = file
        self.offset = offset
        self.reason = reason


class UnsupportedVersion(StorageError):
    """The log was written by a version of this library whose format this one does not read."""

    def __init__(self, file: Path, found: int, supported: int) -> None:
        super().__init__(
            f"{file}: written in log format {found}, and this version reads format {supported}; "
            "run the version that wrote it"
        )
        self.file = file
        self.found = found
        self.supported = supported


class UnusableSnapshot(StorageError):
    """A snapshot's file is damaged, cut short, another cluster's or of another format; it was left as it is.

    :param offset: of the part of the file that is wrong, in bytes from its beginning
    """

    def __init__(self, file: Path, offset: int, reason: str) -> None:
        super().__init__(
            f"{file}: not usable, at offset {offset}: {reason}; restore the file from a copy, or remove this node "
            "from the cluster and add it again with an empty directory"
        )
        self.file = file
        self.offset = offset
        self.reason = reason


class SnapshotNotWritten(StorageError):
    """A snapshot could not be written or received.  The log and the older snapshots are as they were.

    The cause is chained.
    """

    def __init__(self, file: Path, offset: int, cause: BaseException) -> None:
        super().__init__(
            f"{file}: writing the snapshot failed at offset {offset} ({cause}); the log is kept until one succeeds: "
            "free some space, or see to the disk"
        )
        self.file = file
        self.offset = offset


class UnreadableLog(StorageError):
    """The operating system does not let the log be read or written: permissions, a wrong path, a failing disk."""

    def __init__(self, path: Path, problem: str, way_out: str) -> None:
        super().__init__(f"{path}: {problem}; {way_out}")
        self.path = path


class OutOfSpace(StorageError):
    """The disk (or the quota) has no room for the next segment."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: no space left for the log; free some, then start the node again")
        self.path = path


class WriteFailed(StorageError):
    """A write or its ``fdatasync`` failed, now or earlier.  The log stays as it is and takes nothing more.

    The cause is chained.  What was reported durable before is durable; what was in this write may be or not.
    """

    def __init__(self, file: Path, cause: BaseException) -> None:
        super().__init__(
            f"{file}: writing the log failed ({cause}) and takes no more; see to the disk, then start the node again"
        )
        self.file = file


class WriterStopped(StorageError):
    """Submitted to a writer that is closed or whose log has failed (the cause is chained then)."""

    def __init__(self) -> None:
        super().__init__("the log's writer has stopped and takes no more; start the node again")


class WriterOverloaded(StorageError):
    """Submitted to a writer whose queue is full: the caller did not look at ``has_room`` first."""

    def __init__(self, items: int, size: int) -> None:
        super().__init__(
            f"the log's writer has {items} writes of {size} bytes queued, which is its limit; "
            "hold back until has_room says that it takes more"
        )


_WAYS_OUT = {
    errno.EACCES: "give the user that runs the node access to it, or choose another directory",
    errno.EPERM: "give the user that runs the node access to it, or choose another directory",
    errno.EROFS: "mount it writable, or choose another directory",
    errno.ENOTDIR: "choose a path that is a directory or does not exist yet",
    errno.EEXIST: "choose a path that is a directory or does not exist yet",
    errno.EISDIR: "move it elsewhere: it is not part of the log",
    errno.EIO: "the disk may be failing: look at the system's log, then restore the directory from a copy",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


@contextmanager
def operator_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into a StorageError that says what to do about it."""
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(named) from error
        problem = error.strerror or str(error)
        way_out = _WAYS_OUT.get(error.errno or 0, "look at the system's log, or choose another directory")
        raise UnreadableLog(named, problem[:1].lower() + problem[1:], way_out) from error
