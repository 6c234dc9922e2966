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
from common_raft.storage import MemoryStorage, Record, Wal
from common_raft.storage.records import HEADER_FRAME, Frame, FrameEncoder, decode_batch, read_frame

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


@given(
    batch=st.lists(st.tuples(hard_states, st.integers(1, 2**64 - 1), entries), min_size=1, max_size=4),
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
    assert decode_batch(frame.payload) == [tuple(record) for record in batch]


class AnyHistory(RuleBasedStateMachine):
    """Appends with conflicts, reopenings, torn writes and refusals, beside a log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="wal-history-"))
        self.model = MemoryStorage()
        self.committed = 0

    def open(self) -> None:
        self.wal = Wal.open(
            self.directory, cluster_id=1, node_id=1, segment_bytes=self.segment_bytes, fsync=False
        )

    @initialize(segment_bytes=st.sampled_from([512, 1024, 3000, 65536]))
    def begin(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
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
        assert recovered.entries == self.model.entries
        assert recovered.hard_state == self.model.hard_state
        assert recovered.first_index == self.model.first_index

    def teardown(self) -> None:
        if hasattr(self, "wal"):
            self.reopen()
            self.wal.close()
        shutil.rmtree(self.directory)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)

#: Appends until it is killed; prints each index once it is durable, and its term and vote first.
APPENDER = """
import os, sys, threading
from pathlib import Path
from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import Wal, WalWriter

wal = Wal.open(Path(sys.argv[1]), cluster_id=1, node_id=1, segment_bytes=16384)
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
"""


@pytest.mark.processes
def test_no_acknowledged_entry_is_lost_when_the_process_is_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random()
    acknowledged = term = 0
    for _ in range(8):
        appender = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE)
        assert appender.stdout is not None
        first = appender.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        appender.kill()
        lines = (first + appender.stdout.read()).splitlines(keepends=True)
        assert appender.wait() == -9
        whole = [line for line in lines if line.endswith(b"\n")]
        term, acknowledged = map(int, whole[-1].split())
        wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=16384)
        wal.close()
        recovered = wal.recovered
        assert recovered.hard_state.term == term
        assert recovered.hard_state.vote == 7
        assert len(recovered.entries) >= acknowledged
        for index, one in enumerate(recovered.entries, 1):
            assert one.data == b"%d:%d " % (one.term, index) * (1 + index % 50)
    assert term == 8
    assert len(list(tmp_path.glob("*.wal"))) > 1
