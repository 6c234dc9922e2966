"""Whatever is done to a log, and whenever its process dies, it holds what was acknowledged."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import MemoryStorage, Record, SnapshotMark, Wal
from common_raft.storage.records import (
    HEADER_FRAME,
    Frame,
    FrameEncoder,
    StoredRecord,
    decode_batch,
    read_frame,
)

entries = st.lists(
    st.builds(
        Entry,
        st.integers(0, 2**64 - 1),
        st.sampled_from(EntryKind),
        st.one_of(st.binary(max_size=40), st.integers(0, 1500).map(bytes)),
    ),
    max_size=4,
)
hard_states = st.none() | st.builds(HardState, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


numbers = st.integers(1, 2**64 - 1)
records = st.tuples(hard_states, numbers, entries)
marking = st.builds(
    lambda record, mark, received: (*record, mark, received),
    records,
    st.builds(SnapshotMark, numbers, numbers, st.binary(max_size=40)),
    st.booleans(),
)


@given(
    batch=st.lists(records | marking, min_size=1, max_size=4),
    sequence=st.integers(1, 2**64 - 1),
    salt=st.integers(0, 2**32 - 1),
    place=st.integers(0, 200),
)
@settings(max_examples=60, deadline=None)
def test_a_frame_is_read_as_it_was_encoded(batch: list[Record], sequence: int, salt: int, place: int) -> None:
    encoder = FrameEncoder()
    encoded = bytes(encoder.finish(encoder.encode_batch(batch, sequence), place * 8, salt))
    frame = read_frame(bytes(place * 8) + encoded + bytes(99), place * 8, salt, sequence - 1)
    assert isinstance(frame, Frame)
    assert (frame.sequence, frame.end, frame.ended) == (sequence, place * 8 + len(encoded), True)
    assert decode_batch(frame.payload) == [StoredRecord(*record) for record in batch]


class AnyHistory(RuleBasedStateMachine):
    """Appends with conflicts, snapshots, reopenings, torn writes and refusals, beside a log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="wal-history-"))
        self.model = MemoryStorage()
        self.committed = 0
        self.snapshot: SnapshotMark | None = None

    def open(self) -> None:
        self.wal = Wal.open(
            self.directory,
            cluster_id=1,
            node_id=1,
            segment_bytes=self.segment_bytes,
            max_wals=self.max_wals,
            fsync=False,
        )

    @initialize(segment_bytes=st.sampled_from([512, 1024, 3000, 65536]), max_wals=st.integers(0, 3))
    def begin(self, segment_bytes: int, max_wals: int) -> None:
        self.segment_bytes, self.max_wals = segment_bytes, max_wals
        self.open()

    @rule(data=st.data(), count=st.integers(1, 4))
    def append(self, data: st.DataObject, count: int) -> None:
        """A group commit of several Readies, some of which replace a suffix that is not committed."""
        batch: list[tuple[HardState | None, int, Sequence[Entry]]] = []
        for _ in range(count):
            first = data.draw(st.integers(self.committed + 1, self.model.last_index + 1))
            new = data.draw(entries)
            last = first + len(new) - 1 if new else self.model.last_index
            state = data.draw(hard_states)
            if state is not None:
                self.committed = data.draw(st.integers(self.committed, last))
                state = HardState(state.term, state.vote, self.committed)
            batch.append((state, first, new))
            self.model.append(state, first, new)
        self.wal.append(batch)

    @precondition(lambda self: self.committed > (self.snapshot.index if self.snapshot else 0))
    @rule(data=st.data(), crash=st.booleans())
    def take_a_snapshot(self, data: st.DataObject, crash: bool) -> None:
        """Of something that is committed; a crash may come before the log marks it."""
        index = data.draw(st.integers(self.snapshot.index + 1 if self.snapshot else 1, self.committed))
        mark = self.write_snapshot(index)
        if crash:
            self.reopen()
            assert not self.wal.snapshots.path(mark).exists()
            return
        self.wal.mark_snapshot(mark)
        self.snapshot = mark
        self.wal.purge(index)

    @rule(data=st.data(), new=entries, further=st.integers(0, 50))
    def receive_a_snapshot(self, data: st.DataObject, new: list[Entry], further: int) -> None:
        """Of something beyond what is known to be committed; entries may follow in the same write."""
        index = data.draw(st.integers(self.committed + 1, self.model.last_index + 1)) + further
        mark = self.write_snapshot(index)
        state = data.draw(hard_states)
        self.committed = index
        if state is not None:
            state = HardState(state.term, state.vote, index)
        self.wal.append([(state, index + 1, new, mark, True)])
        before = self.model.hard_state
        after = HardState(before.term, before.vote, index) if state is None else state
        self.model = MemoryStorage(after, index + 1, new)
        self.snapshot = mark

    def write_snapshot(self, index: int) -> SnapshotMark:
        mark = SnapshotMark(index, 1, b"meta %d" % index)
        self.wal.snapshots.write(mark, [b"state %d" % index])
        return mark

    @precondition(lambda self: self.snapshot)
    @rule()
    def purge(self) -> None:
        before = len(list(self.directory.glob("*.wal")))
        removed = self.wal.purge(self.snapshot.index)
        left = list(self.directory.glob("*.wal"))
        assert len(left) == before - len(removed)
        assert not removed or len(left) >= self.max_wals

    @rule()
    def reopen(self) -> None:
        self.wal.close()
        self.open()
        assert self.wal.recovered.torn is None
        self.compare()

    @rule(cut=st.integers(1, 300))
    def lose_an_unfinished_write(self, cut: int) -> None:
        """The process dies in a write; nobody was told that it was done."""
        before = self.wal._segment
        end = before.end
        unfinished = [Entry(1, EntryKind.NOOP, b"x" * 300)]
        self.wal.append([(None, self.model.last_index + 1, unfinished)])
        current = self.wal._segment
        begin = end if current is before else HEADER_FRAME
        self.wal.close()
        with current.path.open("r+b") as file:
            file.truncate(begin + cut)
        self.open()
        torn = self.wal.recovered.torn
        assert torn is not None
        assert (torn.file, torn.offset) == (current.path, begin)
        assert 0 < torn.bytes_cut <= cut
        self.compare()

    @precondition(lambda self: self.model.entries)
    @rule()
    def append_with_a_gap(self) -> None:
        with pytest.raises(ValueError, match="do not fit"):
            self.wal.append([(None, self.model.last_index + 2, [Entry(1, EntryKind.NOOP, b"")])])

    @invariant()
    def the_last_index_is_known(self) -> None:
        if hasattr(self, "wal"):
            assert self.wal.last_index == self.model.last_index

    def compare(self) -> None:
        recovered = self.wal.recovered
        first = self.model.first_index if self.snapshot is None else self.snapshot.index + 1
        assert recovered.snapshot == self.snapshot
        assert recovered.unusable == ()
        assert recovered.first_index == first
        assert recovered.entries == self.model.entries[first - self.model.first_index :]
        assert recovered.hard_state == self.model.hard_state

    def teardown(self) -> None:
        if hasattr(self, "wal"):
            self.reopen()
            self.wal.close()
        shutil.rmtree(self.directory)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)

#: Appends until it is killed, and takes snapshots if it is told to; prints each index once it is durable, and its
#: term and vote first.
APPENDER = """
import os, sys, threading
from pathlib import Path
from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import SnapshotMark, Wal, WalWriter

wal = Wal.open(Path(sys.argv[1]), cluster_id=1, node_id=1, segment_bytes=16384, max_wals=1)
every = int(sys.argv[2])
term = wal.recovered.hard_state.term + 1
base = wal.last_index
slots = threading.Semaphore(3)

def durable(number):
    os.write(1, b"%d %d\\n" % (term, base + number))
    slots.release()

writer = WalWriter(wal, durable, lambda error: os._exit(3))
writer.start()
number = 0
while True:
    slots.acquire()
    number += 1
    index = base + number
    entry = Entry(term, EntryKind.COMMANDS, b"%d:%d " % (term, index) * (1 + index % 50))
    writer.submit(number, HardState(term, 7, index - 1), index, [entry])
    if every and number % every == 0:
        mark = SnapshotMark(index - 1, term, b"")
        wal.snapshots.write(mark, [b"state after %d" % mark.index])
        writer.mark_snapshot(mark, lambda mark=mark: wal.snapshots.purge(2, mark))
"""


@pytest.mark.processes
@pytest.mark.parametrize("snapshot_every", [0, 7])
def test_no_acknowledged_entry_is_lost_when_the_process_is_killed_at_any_moment(
    tmp_path: Path, snapshot_every: int
) -> None:
    chance = random.Random()
    acknowledged = term = 0
    for _ in range(8):
        command = [sys.executable, "-c", APPENDER, str(tmp_path), str(snapshot_every)]
        appender = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert appender.stdout is not None
        first = appender.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        appender.kill()
        lines = (first + appender.stdout.read()).splitlines(keepends=True)
        assert appender.wait() == -9
        whole = [line for line in lines if line.endswith(b"\n")]
        term, acknowledged = map(int, whole[-1].split())
        wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=16384, max_wals=1)
        wal.close()
        recovered = wal.recovered
        assert recovered.hard_state.term == term
        assert recovered.hard_state.vote == 7
        assert wal.last_index >= acknowledged
        if snapshot_every:
            assert recovered.unusable == ()
        if recovered.snapshot is not None:
            index = recovered.snapshot.index
            assert list(wal.snapshots.chunks(recovered.snapshot)) == [b"state after %d" % index]
        for index, one in enumerate(recovered.entries, recovered.first_index):
            assert one.data == b"%d:%d " % (one.term, index) * (1 + index % 50)
    assert term == 8
    if snapshot_every:
        assert recovered.snapshot is not None
        assert recovered.first_index == recovered.snapshot.index + 1
        assert len(wal.snapshots.files()) <= 4
    else:
        assert (recovered.snapshot, recovered.first_index) == (None, 1)
        assert len(list(tmp_path.glob("*.wal"))) > 1
