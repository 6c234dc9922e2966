"""Snapshots on their way between nodes: the leader's end and the follower's.

The leader sends pieces of the snapshot's file, never more than a window ahead of what the follower has confirmed.
The follower says with each confirmation how much it has, so that both ends go on from there after a lost link, or
from the beginning when the follower was started anew.  Once all is there, checked and durable, the follower's own
core gets the `InstallSnapshot` that the leader's core meant for it.

Everything here belongs to the thread, or the loop, that owns the core; what takes the disk's time runs elsewhere
(``Run``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from common_raft.core import InstallSnapshot, Message
from common_raft.drivers.marks import meta_of
from common_raft.drivers.pace import Pace
from common_raft.storage import SnapshotMark, SnapshotReader, Snapshots, SnapshotSink, StorageError
from common_raft.transport.messages import SnapshotAck, SnapshotChunk

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
#: Sent and not confirmed yet: a second's worth of 10 Mbit/s, and 1 MiB for each round trip of a faster link.
WINDOW_BYTES = 4 * CHUNK_BYTES
#: Without an answer for so long, what was not confirmed is sent again ...
PATIENCE_SECONDS = 2.0
#: ... so many times; then the follower is taken for gone, and whatever it has is kept until it comes back.
MAX_SILENCES = 5

#: What may go wrong beside without ending the node: a disk that is full, say, or a machine that is away.
RunError: TypeAlias = StorageError | ConnectionError


class Run(Protocol):
    def __call__(self, call: Callable[[], Any], done: Callable[[Any, RunError | None], None], /) -> None:
        """Calls ``call`` beside, one after another, and then ``done`` here with what it returned or raised."""


Send = Callable[[SnapshotChunk | SnapshotAck], None]


class Core(Protocol):
    """What is asked of the core."""

    @property
    def id(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def commit(self) -> int: ...
    def step(self, message: Message) -> None: ...
    def report_snapshot(self, peer: int, ok: bool) -> None: ...


class _Outgoing:
    """One snapshot for one follower."""

    __slots__ = ("confirmed", "greeted", "heard_at", "mark", "reader", "reading", "sent", "silences")

    def __init__(self, mark: SnapshotMark, reader: SnapshotReader, now: float) -> None:
        self.mark = mark
        self.reader = reader
        self.sent = self.confirmed = 0
        self.greeted = False  #: the follower has said how much it has already
        self.reading = False
        self.heard_at = now
        self.silences = 0

    @property
    def limit(self) -> int:
        window = WINDOW_BYTES if self.greeted else CHUNK_BYTES
        return min(self.reader.size, self.confirmed + window)


class Sending:
    """The leader's end: at most one snapshot a follower is under way."""

    def __init__(self, core: Core, snapshots: Snapshots, send: Send, run: Run) -> None:
        self._core = core
        self._snapshots = snapshots
        self._send = send
        self._run = run
        self._outgoing: dict[int, _Outgoing] = {}

    def start(self, peer: int, mark: SnapshotMark, now: float) -> None:
        """Sends ``mark``'s snapshot to ``peer``, in place of one that is under way."""
        self._end(peer)
        try:
            reader = self._snapshots.open(mark)
        except StorageError as error:
            log.warning("cannot send the snapshot of entry %d to %x: %s", mark.index, peer, error)
            self._core.report_snapshot(peer, False)
            return
        log.info("sending the snapshot of entry %d, %d bytes, to %x", mark.index, reader.size, peer)
        self._outgoing[peer] = _Outgoing(mark, reader, now)
        self._pump(peer)

    def take(self, ack: SnapshotAck, now: float) -> None:
        """What a follower says of a snapshot."""
        outgoing = self._outgoing.get(ack.sender)
        if outgoing is None or (ack.index, ack.snapshot_term) != (outgoing.mark.index, outgoing.mark.term):
            return
        outgoing.heard_at, outgoing.silences = now, 0
        if ack.done or ack.refused:
            if ack.refused:
                log.warning("%x does not take the snapshot of entry %d: %s", ack.sender, ack.index, ack.cause)
            else:
                log.info("%x has the snapshot of entry %d", ack.sender, ack.index)
            self._end(ack.sender)
            self._core.report_snapshot(ack.sender, ack.done)
            return
        if not outgoing.greeted or ack.offset < outgoing.confirmed:
            outgoing.greeted = True
            outgoing.sent = ack.offset
        outgoing.confirmed = ack.offset
        outgoing.sent = max(outgoing.sent, ack.offset)
        self._pump(ack.sender)

    def carries(self, mark: SnapshotMark) -> bool:
        """Whether ``mark``'s snapshot is under way: then what follows it should be there when it has arrived."""
        return any(outgoing.mark == mark for outgoing in self._outgoing.values())

    def tick(self, now: float) -> None:
        """Now and then: sends again what nobody has answered, and gives up those who do not."""
        for peer, outgoing in list(self._outgoing.items()):
            if now - outgoing.heard_at < PATIENCE_SECONDS:
                continue
            outgoing.heard_at = now
            outgoing.silences += 1
            if outgoing.silences > MAX_SILENCES:
                log.warning("%x does not answer: its snapshot of entry %d waits", peer, outgoing.mark.index)
                self._end(peer)
                self._core.report_snapshot(peer, False)
            elif outgoing.confirmed == outgoing.reader.size:
                self._send_piece(peer, outgoing, b"")  # it may be checking what it has
            else:
                outgoing.sent = outgoing.confirmed
                self._pump(peer)

    def stop(self) -> None:
        """Ends all; nothing is reported.  When this node leads no longer, and when it stops."""
        for peer in list(self._outgoing):
            self._end(peer)

    def _end(self, peer: int) -> None:
        outgoing = self._outgoing.pop(peer, None)
        if outgoing is not None and not outgoing.reading:
            outgoing.reader.close()

    def _pump(self, peer: int) -> None:
        outgoing = self._outgoing[peer]
        if outgoing.reading or outgoing.sent >= outgoing.limit:
            return
        outgoing.reading = True
        offset, reader = outgoing.sent, outgoing.reader

        def done(data: Any, error: RunError | None) -> None:
            outgoing.reading = False
            if self._outgoing.get(peer) is not outgoing:
                reader.close()  # it was ended meanwhile
            elif error is not None or not data:
                log.error("cannot read the snapshot for %x: %s", peer, error or "its file is cut off")
                self._end(peer)
                self._core.report_snapshot(peer, False)
            elif offset == outgoing.sent:
                self._send_piece(peer, outgoing, data)
                outgoing.sent += len(data)
                self._pump(peer)
            else:
                self._pump(peer)  # the follower has said meanwhile that it needs something else

        self._run(lambda: reader.read(offset, CHUNK_BYTES), done)

    def _send_piece(self, peer: int, outgoing: _Outgoing, data: bytes) -> None:
        mark, core = outgoing.mark, self._core
        self._send(
            SnapshotChunk(
                peer,
                core.id,
                core.term,
                mark.index,
                mark.term,
                mark.meta,
                outgoing.reader.size,
                outgoing.sent,
                data,
            )
        )


class _Incoming(NamedTuple):
    """What is being received.  Another node's file of the same snapshot need not be the same, byte for byte."""

    sender: int
    mark: SnapshotMark
    sink: SnapshotSink
    pace: Pace


class Receiving:
    """The follower's end: at most one snapshot is under way.  ``received`` is the last one that was completed."""

    def __init__(
        self, core: Core, snapshots: Snapshots, send: Send, run: Run, now: Callable[[], float]
    ) -> None:
        self._core = core
        self._snapshots = snapshots
        self._send = send
        self._run = run
        self._now = now
        self._heard_at: float | None = None  # when the last piece came that was of use
        self._incoming: _Incoming | None = None  # changed by what runs beside, one piece after another
        self._finishing: SnapshotMark | None = None
        self.received: SnapshotMark | None = None

    def take(self, chunk: SnapshotChunk) -> None:
        """A piece of a snapshot: it is written beside, and then confirmed."""
        mark = SnapshotMark(chunk.index, chunk.snapshot_term, chunk.meta)
        if chunk.term < self._core.term:
            return  # of a leader that is none any more: the new one will send its own
        try:
            meta_of(mark)
        except msgspec.MsgspecError as error:
            self._answer(chunk, 0, cause=f"the snapshot's meta is none: {error}")
            return
        if mark.index <= self._core.commit or mark == self.received:
            self._hand_over(chunk, mark)  # the log holds as much: the core says so to the leader
        elif mark == self._finishing:
            self._answer(chunk, chunk.size)
        else:
            self._heard_at = self._now()
            self._run(
                lambda: self._write(mark, chunk),
                lambda offset, error: self._written(mark, chunk, offset, error),
            )

    @property
    def is_awaited(self) -> bool:
        """Whether a snapshot is coming, as far as one can tell; may be asked in any thread."""
        heard_at = self._heard_at
        return self._finishing is not None or (
            heard_at is not None and self._now() - heard_at < PATIENCE_SECONDS
        )

    def stop(self) -> None:
        """Gives up what is under way; nothing runs beside any more."""
        if self._incoming is not None:
            self._incoming.sink.abort()
            self._incoming = None

    def _write(self, mark: SnapshotMark, chunk: SnapshotChunk) -> int:
        """Runs beside.  An older snapshot than the one that is coming already is not begun again."""
        incoming = self._incoming
        if incoming is None or (incoming.sender, incoming.mark) != (chunk.sender, mark):
            if incoming is not None:
                if incoming.mark.index > mark.index:
                    return -1
                incoming.sink.abort()
                self._incoming = None
            incoming = self._incoming = _Incoming(chunk.sender, mark, self._snapshots.begin(mark), Pace())
        try:
            offset = incoming.sink.write(chunk.offset, chunk.data)
        except StorageError:
            self._incoming = None
            raise
        incoming.pace.keep(len(chunk.data))  # no more comes before this is confirmed
        return offset

    def _written(self, mark: SnapshotMark, chunk: SnapshotChunk, offset: Any, error: RunError | None) -> None:
        if error is not None:
            log.error("cannot receive the snapshot of entry %d: %s", mark.index, error)
            self._answer(chunk, 0, cause=str(error))
        elif offset == chunk.size and self._finishing is None:
            self._finishing = mark
            self._answer(chunk, offset)
            self._run(
                lambda: self._finish(mark), lambda found, failure: self._finished(mark, chunk, found, failure)
            )
        elif offset >= 0:
            self._answer(chunk, offset)

    def _finish(self, mark: SnapshotMark) -> bool:
        """Runs beside; false when another snapshot has taken its place meanwhile."""
        incoming = self._incoming
        if incoming is None or incoming.mark != mark:
            return False
        self._incoming = None
        incoming.sink.finish()
        return True

    def _finished(self, mark: SnapshotMark, chunk: SnapshotChunk, found: Any, error: RunError | None) -> None:
        self._finishing = None
        if error is not None:
            log.error("the snapshot of entry %d that came is of no use: %s", mark.index, error)
            self._answer(chunk, 0, cause=str(error))
            return
        if not found:
            return
        log.info("received the snapshot of entry %d, %d bytes", mark.index, chunk.size)
        self.received = mark
        self._hand_over(chunk, mark)

    def _hand_over(self, chunk: SnapshotChunk, mark: SnapshotMark) -> None:
        self._core.step(InstallSnapshot(self._core.id, chunk.sender, chunk.term, meta_of(mark)))
        self._answer(chunk, chunk.size, done=True)

    def _answer(self, chunk: SnapshotChunk, offset: int, *, done: bool = False, cause: str = "") -> None:
        self._send(
            SnapshotAck(
                chunk.sender,
                self._core.id,
                chunk.index,
                chunk.snapshot_term,
                offset,
                done,
                bool(cause),
                cause,
            )
        )
