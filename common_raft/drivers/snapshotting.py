"""When a node takes a snapshot of its state machine, what it does with it, and how it starts from one.

    taken    enough was applied: the machine gives its state as it is now, and a thread writes it out
    marked   its file is durable: the log says so, and drops what the snapshot stands for
    offered  the core may give it to followers, and drops entries from memory, all but a tail for those who are
             hardly behind

Everything here belongs to the thread, or the loop, that owns the core; the disk's work runs elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol

from common_raft.core import InstallSnapshot, RawNode, SnapshotMeta
from common_raft.drivers.marks import mark_of, meta_of
from common_raft.drivers.pace import Pace
from common_raft.drivers.transfers import Receiving, Run, RunError, Send, Sending
from common_raft.storage import SnapshotFile, SnapshotMark, WalWriter, WriterStopped
from common_raft.storage.snapshots import Snapshots
from common_raft.transport.messages import SnapshotAck, SnapshotChunk

log = logging.getLogger(__name__)

#: Entries that stay in memory behind a snapshot, as etcd's SnapshotCatchUpEntries: a follower that lacks no more
#: than these gets them, and no snapshot.
CATCH_UP_ENTRIES = 5000
#: But no more of their bytes: an entry may hold many commands.
CATCH_UP_BYTES = 32 << 20
#: Bytes of entries after which a snapshot is taken even if there are few of them: half of what the newest one takes,
#: within these bounds.  They are all in memory, and a start applies them again; a snapshot is all written anew.
MIN_LOG_BYTES, MAX_LOG_BYTES = 64 << 20, 256 << 20
#: Whoever writes a snapshot rests after each step, for so many times as long as it took of the processor, and for no
#: more than so many seconds: in between the loop gets the interpreter, and the log the disk.
RESTS, LONGEST_REST = 3, 0.05

#: How often whoever restores an older snapshot looks whether the newer one that is coming is there.
HOLD_SECONDS = 0.05


class Overtaken(ConnectionError):
    """A snapshot of this node's is given up: for a newer one from the leader, or because the node stops.

    Whoever writes it, or restores the machine from it, ends there.
    """


class Options(Protocol):
    @property
    def snapshot_count(self) -> int: ...
    @property
    def max_snapshots(self) -> int: ...


class Snapshotting:
    """What a member does about snapshots.  ``newest``: the one that it offers, and would start from."""

    def __init__(
        self,
        options: Options,
        core: RawNode,
        snapshots: Snapshots,
        writer: WalWriter,
        newest: SnapshotMark | None,
        send: Send,
        *,
        run_long: Run,
        run_short: Run,
        post: Callable[[Callable[[Any], None], Any], None],
        now: Callable[[], float],
    ) -> None:
        """``run_long`` is for what takes as long as the state is large, ``run_short`` for pieces; ``post`` calls
        here from other threads; ``now`` is asked in any.
        """
        self._count = options.snapshot_count
        self._keep = options.max_snapshots
        self._core = core
        self._snapshots = snapshots
        self._writer = writer
        self._run_long = run_long
        self._post = post
        self.newest = newest
        self._taking = False
        self._overtaken = False  #: what is being taken is of no use any more
        self._abandoned = False
        self._installed = 0  #: the last entry of the newest that came from a leader
        self._bytes = 0
        self._due_at = (newest.index if newest else 0) + self._count
        self._bytes_due = _bytes_due(snapshots.size(newest) if newest else 0)
        self._sending = Sending(core, snapshots, send, run_short)
        self._receiving = Receiving(core, snapshots, send, run_short, now)

    # --- taking -----------------------------------------------------------------------------------------------

    def committed(self, size: int) -> None:
        """So many bytes of entries were handed out to be applied."""
        self._bytes += size

    @property
    def due(self) -> bool:
        """Whether the machine's state is to be asked for, as it is at the core's ``applied``."""
        return (
            self._count > 0
            and not (self._taking or self._core.log.restoring)
            and (self._core.applied >= self._due_at or self._bytes >= self._bytes_due)
        )

    def begin(self) -> None:
        """The machine is asked for its state; `write` or `give_up` goes on."""
        self._taking = True
        self._bytes = 0
        self._overtaken = False

    def write(self, members: bytes, chunks: Iterable[bytes]) -> None:
        """Writes the state, which is that at the core's ``applied``."""
        try:
            mark = mark_of(self._core.snapshot_meta(), members)
        except ValueError as error:
            _let_go(chunks)
            self.give_up(error)
            return
        log.info("taking a snapshot up to entry %d", mark.index)
        self._run_long(
            lambda: self._write(mark, chunks), lambda file, error: self._written(mark, file, error)
        )

    def _write(self, mark: SnapshotMark, chunks: Iterable[bytes]) -> SnapshotFile:
        """Runs beside."""
        try:
            return self._snapshots.write(mark, self._until_overtaken(chunks))
        finally:
            _let_go(chunks)

    def _until_overtaken(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        rested = time.thread_time()
        for chunk in chunks:
            if self._overtaken:
                raise Overtaken("it is of no use any more")
            yield chunk
            time.sleep(min(LONGEST_REST, RESTS * (time.thread_time() - rested)))
            rested = time.thread_time()

    def abandon(self) -> None:
        """The node stops: nobody waits until all of a state is written, or restored."""
        self._overtaken = self._abandoned = True

    def give_up(self, error: BaseException) -> None:
        """There is no state to write just now: tried again when some more was applied."""
        overtaken = isinstance(error, Overtaken)  # the leader's is newer, and there: nothing is wrong
        log.log(
            logging.INFO if overtaken else logging.ERROR,
            "no snapshot at entry %d: %s",
            self._core.applied,
            error,
        )
        self._taking = False
        self._due_at = self._core.applied + max(1, self._count // 10)

    def _written(self, mark: SnapshotMark, file: Any, error: RunError | None) -> None:
        if error is not None:
            self.give_up(error)
            return
        log.info("took a snapshot up to entry %d, %d bytes", mark.index, file.size)
        self._bytes_due = _bytes_due(file.size)
        try:
            self._writer.mark_snapshot(mark, lambda: self._post(self._marked, mark))
        except WriterStopped:
            pass  # the node ends, and the next start removes a file that nothing marks

    def _marked(self, mark: SnapshotMark) -> None:
        self._taking = False
        self._due_at = mark.index + self._count
        # None was received meanwhile, and the machine has not lost its state.
        if (self.newest is None or mark.index > self.newest.index) and mark.index <= self._core.applied:
            before, self.newest = self.newest, mark
            self._core.snapshot_available(meta_of(mark))
            self._core.compact(self._dispensable(mark, before))
        self._run_long(lambda: self._snapshots.purge(self._keep, mark), self._purged)

    def _dispensable(self, mark: SnapshotMark, before: SnapshotMark | None) -> int:
        """The last entry that nobody will ask for, now that there is ``mark``'s snapshot and not only the one before.

        A follower to which that is under way goes on behind it, or would need this one too, and perhaps the next: so
        what follows it stays, once (etcd drops nothing while it sends a snapshot).
        """
        tail = self._before_tail(mark.index)
        return min(tail, before.index) if before is not None and self._sending.carries(before) else tail

    def _before_tail(self, index: int) -> int:
        """The last entry before those that stay in memory behind the snapshot of entry ``index``."""
        entries = self._core.log
        least = max(entries.offset, index - min(CATCH_UP_ENTRIES, self._count))
        size = 0
        while index > least:
            size += len(entries.entry(index).data)
            if size > CATCH_UP_BYTES:
                break
            index -= 1
        return index

    def _purged(self, _: object, error: RunError | None) -> None:
        if error is not None:
            log.error("cannot remove old snapshots: %s", error)

    # --- restoring --------------------------------------------------------------------------------------------

    def state_in(self, mark: SnapshotMark) -> Iterator[bytes]:
        """What the machine is restored from, to be read in another thread.

        What another node has sent is given out at a pace that leaves the processor to those who serve.  What the node
        starts from is not, but it waits while a newer one is coming, which would make all of this work vain; and goes
        on if that does not come after all.  Raises Overtaken once that is there, or when the node stops, and what
        `Snapshots.chunks` raises.
        """
        pace = Pace() if mark == self._receiving.received else None
        for chunk in self._snapshots.chunks(mark):
            while pace is None and self._receiving.is_awaited and not self._is_overtaken(mark):
                time.sleep(HOLD_SECONDS)
            if self._is_overtaken(mark):
                raise Overtaken(f"the snapshot of entry {mark.index} is of no use any more")
            yield chunk
            if pace is not None:
                pace.keep(len(chunk))

    def _is_overtaken(self, mark: SnapshotMark) -> bool:
        return self._abandoned or self._installed > mark.index

    # --- sending and receiving --------------------------------------------------------------------------------

    def send(self, message: InstallSnapshot, now: float) -> None:
        """The core wants a follower to have a snapshot: it gets the newest."""
        assert self.newest is not None
        self._sending.start(message.to, self.newest, now)

    def take(self, message: SnapshotChunk | SnapshotAck, now: float) -> None:
        """A peer's message about a snapshot."""
        if isinstance(message, SnapshotChunk):
            self._receiving.take(message)
        else:
            self._sending.take(message, now)

    def tick(self, now: float) -> None:
        self._sending.tick(now)

    def leads_no_longer(self) -> None:
        self._sending.stop()

    def stop(self) -> None:
        """The node stops, and nothing runs beside any more."""
        self._sending.stop()
        self._receiving.stop()

    def installed(self, meta: SnapshotMeta) -> SnapshotMark:
        """The core starts from a snapshot that was received: its mark, for the log."""
        mark = self._receiving.received
        assert mark is not None
        assert (mark.index, mark.term) == (meta.index, meta.term)
        self._overtaken = True
        self.newest = mark
        self._installed = mark.index
        self._due_at = mark.index + self._count
        self._bytes = 0
        self._bytes_due = _bytes_due(self._snapshots.size(mark))
        return mark


def _bytes_due(size: int) -> int:
    """How many bytes of entries come before the next snapshot, when the newest has ``size`` bytes."""
    return min(max(MIN_LOG_BYTES, size // 2), MAX_LOG_BYTES)


def _let_go(chunks: Iterable[bytes]) -> None:
    """Closes what a machine's state was to be read from, if that can be closed."""
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


async def read_beside(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """``chunks`` for a loop; each is read in another thread."""
    following = iter(chunks)
    while (chunk := await asyncio.to_thread(next, following, None)) is not None:
        yield chunk
