"""The log on disk: what goes in comes out again, and whatever stands in the way is named."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import (
    CorruptLog,
    DirectoryInUse,
    ForeignDirectory,
    OutOfSpace,
    StorageError,
    UnreadableLog,
    UnsupportedVersion,
    Wal,
    WriteFailed,
)
from common_raft.storage import records as formats
from common_raft.storage.records import FORMAT_VERSION, FrameEncoder, SegmentHeader
from common_raft.storage.segment import Segment
from common_raft.tests.failing_system import Calls


def entry(term: int, text: str | bytes = b"x") -> Entry:
    return Entry(term, EntryKind.COMMANDS, text.encode() if isinstance(text, str) else text)


def open_wal(directory: Path, *, node_id: int = 2, segment_bytes: int = 4096, fsync: bool = False) -> Wal:
    return Wal.open(directory, cluster_id=1, node_id=node_id, segment_bytes=segment_bytes, fsync=fsync)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.wal"))


def content(directory: Path) -> tuple[HardState, int, list[Entry]]:
    wal = open_wal(directory)
    wal.close()
    return wal.recovered.hard_state, wal.recovered.first_index, wal.recovered.entries


def fill(directory: Path, count: int = 40, *, segment_bytes: int = 1024) -> list[Entry]:
    """A log of several segments."""
    written = [entry(1, f"{place:040}") for place in range(count)]
    wal = open_wal(directory, segment_bytes=segment_bytes)
    for place, one in enumerate(written):
        wal.append([(HardState(1, 2, place), place + 1, [one])])
    wal.close()
    return written


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "log"


class TestRoundTrip:
    def test_a_new_log_is_empty(self, directory: Path) -> None:
        wal = open_wal(directory)
        assert wal.recovered.hard_state == HardState()
        assert (wal.recovered.first_index, wal.recovered.entries, wal.recovered.torn) == (1, [], None)
        assert wal.last_index == 0
        wal.close()

    def test_what_was_appended_is_there_after_reopening(self, directory: Path) -> None:
        wal = open_wal(directory, fsync=True)
        wal.append([(HardState(3, 1, 0), 1, [Entry(3, EntryKind.NOOP, b""), entry(3, "a")])])
        wal.append([(HardState(3, 1, 2), 3, [entry(3, "b")]), (None, 4, [entry(3, "c")])])
        wal.close()
        state, first_index, entries = content(directory)
        assert (state, first_index) == (HardState(3, 1, 2), 1)
        assert entries == [Entry(3, EntryKind.NOOP, b""), entry(3, "a"), entry(3, "b"), entry(3, "c")]

    def test_reopening_again_and_again_changes_nothing(self, directory: Path) -> None:
        fill(directory)
        first = content(directory)
        files = {path: path.read_bytes() for path in segments(directory)}
        for _ in range(3):
            assert content(directory) == first
        assert all(path.read_bytes().rstrip(b"\0") == data.rstrip(b"\0") for path, data in files.items())

    def test_the_largest_ids_terms_and_votes_survive(self, directory: Path) -> None:
        most = (1 << 64) - 1
        wal = Wal.open(directory, cluster_id=most, node_id=most, segment_bytes=512, fsync=False)
        for index in range(1, 9):
            wal.append([(HardState(most, most, index), index, [entry(most, bytes(100))])])
        wal.close()
        wal = Wal.open(directory, cluster_id=most, node_id=most, segment_bytes=512, fsync=False)
        assert wal.recovered.hard_state == HardState(most, most, 8)
        assert wal.recovered.entries == [entry(most, bytes(100))] * 8
        wal.close()

    def test_a_conflicting_suffix_is_replaced(self, directory: Path) -> None:
        wal = open_wal(directory)
        wal.append([(None, 1, [entry(1, "a"), entry(1, "b"), entry(1, "c")])])
        wal.append([(None, 2, [entry(2, "B")])])
        assert wal.last_index == 2
        wal.append([(None, 3, [entry(2, "C")])])
        wal.close()
        assert content(directory)[2] == [entry(1, "a"), entry(2, "B"), entry(2, "C")]

    def test_a_conflict_may_reach_back_into_earlier_segments(self, directory: Path) -> None:
        written = fill(directory)
        wal = open_wal(directory, segment_bytes=1024)
        with pytest.raises(ValueError, match="replace committed ones, up to 39"):
            wal.append([(None, 39, [entry(2, "new")])])
        wal.close()
        other = directory.with_name("other")
        wal = open_wal(other, segment_bytes=1024)
        for place, one in enumerate(written):
            wal.append([(None, place + 1, [one])])
        wal.append([(None, 3, [entry(2, "new")])])
        wal.close()
        assert len(segments(other)) > 2
        assert content(other)[2] == [*written[:2], entry(2, "new")]

    def test_no_entries_leave_the_log_as_it_is(self, directory: Path) -> None:
        wal = open_wal(directory)
        wal.append([(None, 1, [entry(1, "a"), entry(1, "b")])])
        wal.append([(HardState(2, 0, 0), 1, [])])
        wal.close()
        assert content(directory) == (HardState(2, 0, 0), 1, [entry(1, "a"), entry(1, "b")])

    @pytest.mark.parametrize("first_index", [0, 4])
    def test_a_gap_is_refused_and_nothing_written(self, directory: Path, first_index: int) -> None:
        wal = open_wal(directory)
        wal.append([(None, 1, [entry(1), entry(1)])])
        with pytest.raises(ValueError, match="do not fit a log of 1 to 2"):
            wal.append([(HardState(9, 9, 0), first_index, [entry(1)])])
        wal.append([(None, 3, [entry(1)])])
        wal.close()
        assert content(directory) == (HardState(), 1, [entry(1)] * 3)

    def test_a_batch_of_several_megabytes_gets_a_segment_of_its_own(self, directory: Path) -> None:
        large = entry(1, os.urandom(1 << 20) * 5)
        wal = open_wal(directory)
        wal.append([(None, 1, [entry(1, "before")])])
        wal.append([(None, 2, [large])])
        wal.append([(None, 3, [entry(1, "after")])])
        wal.close()
        assert content(directory)[2] == [entry(1, "before"), large, entry(1, "after")]
        assert [path.stat().st_size > 5 << 20 for path in segments(directory)] == [False, True, False]


class TestSegments:
    def test_segments_roll_and_are_named_by_number_and_first_index(self, directory: Path) -> None:
        fill(directory)
        names = [path.name for path in segments(directory)]
        assert len(names) > 3
        assert [int(name[:16], 16) for name in names] == list(range(1, len(names) + 1))
        assert names[0] == "0000000000000001-0000000000000001.wal"
        firsts = [int(name[17:33], 16) for name in names]
        assert firsts == sorted(set(firsts))

    def test_the_open_segment_is_preallocated_and_a_sealed_one_cut_to_its_size(self, directory: Path) -> None:
        wal = open_wal(directory, segment_bytes=65536)
        assert segments(directory)[0].stat().st_size == 65536
        for index in range(1, 4):
            wal.append([(None, index, [entry(1, b"x" * 30000)])])
        sealed, current = segments(directory)
        assert sealed.stat().st_size < 61000
        assert current.stat().st_size == 65536
        wal.close()

    @pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EINVAL])
    def test_a_file_system_without_preallocation_will_do(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        Calls(monkeypatch, "posix_fallocate", error)
        written = fill(directory)
        assert content(directory)[2] == written

    def test_what_a_crash_left_of_a_segment_in_the_making_is_removed(self, directory: Path) -> None:
        written = fill(directory)
        leftover = directory / "0000000000000099-0000000000000001.wal.tmp"
        leftover.write_bytes(b"half")
        assert content(directory)[2] == written
        assert not leftover.exists()

    @pytest.mark.parametrize("remains", [*range(formats.SEAL_FRAME + 1)])
    def test_a_seal_that_a_crash_prevented_or_tore_is_written_again(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, remains: int
    ) -> None:
        def torn_seal(segment: Segment, sequence: int) -> None:
            seal = FrameEncoder().encode_seal(segment.number + 1, sequence, segment.end, segment.salt)
            segment.write(seal[:remains])
            raise OSError(errno.EIO, "crash")

        wal = open_wal(directory)
        wal.append([(None, 1, [entry(1, b"x" * 2500)])])
        with monkeypatch.context() as patch:
            patch.setattr(Segment, "seal", torn_seal)
            with pytest.raises(WriteFailed):
                wal.append([(None, 2, [entry(1, b"y" * 2500)])])
        wal.close()
        assert content(directory)[2] == [entry(1, b"x" * 2500)]
        wal = open_wal(directory)
        assert wal.recovered.torn is None
        wal.append([(None, 2, [entry(1, "next")])])
        wal.close()
        assert len(content(directory)[2]) == 2
        segments(directory)[1].unlink()
        with pytest.raises(CorruptLog, match="segment 2, the next one, is missing"):
            open_wal(directory)

    def test_segments_too_small_to_hold_anything_are_refused(self, directory: Path) -> None:
        with pytest.raises(ValueError, match="must be at least 512"):
            open_wal(directory, segment_bytes=100)


class TestDurability:
    def test_one_append_costs_one_write_and_one_fdatasync(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wal = open_wal(directory, fsync=True)
        writes, syncs = Calls(monkeypatch, "pwrite"), Calls(monkeypatch, "fdatasync")
        wal.append([(HardState(1, 1, 0), index, [entry(1)] * 3) for index in (1, 4, 7)])
        assert (writes.count, syncs.count) == (1, 1)
        wal.close()

    def test_a_batch_with_nothing_in_it_costs_nothing(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wal = open_wal(directory, fsync=True)
        writes, syncs = Calls(monkeypatch, "pwrite"), Calls(monkeypatch, "fdatasync")
        wal.append([(None, 1, []), (None, 7, [])])
        wal.append([])
        assert (writes.count, syncs.count) == (0, 0)
        wal.close()

    def test_without_fsync_nothing_is_synced(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = [Calls(monkeypatch, "fdatasync"), Calls(monkeypatch, "fsync")]
        written = fill(directory)
        assert content(directory)[2] == written
        assert [call.count for call in calls] == [0, 0]

    def test_a_system_that_writes_a_little_at_a_time_is_asked_for_the_rest(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.pwrite
        wal = open_wal(directory)
        monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, bytes(data[:7]), at))
        wal.append([(HardState(1, 1, 0), 1, [entry(1, "abc" * 50)])])
        wal.close()
        assert content(directory)[2] == [entry(1, "abc" * 50)]

    def test_the_last_frame_is_written_again_before_it_is_trusted(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(directory, 3)
        writes, syncs = Calls(monkeypatch, "pwrite"), Calls(monkeypatch, "fdatasync")
        wal = open_wal(directory, fsync=True)
        assert (writes.count, syncs.count) == (1, 1)
        wal.close()


class TestFailure:
    @pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
    def test_a_failed_write_is_final(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        wal = open_wal(directory, fsync=True)
        wal.append([(None, 1, [entry(1, "kept")])])
        with monkeypatch.context() as patch:
            Calls(patch, name, errno.EIO)
            with pytest.raises(WriteFailed, match="Input/output error"):
                wal.append([(None, 2, [entry(1, "lost")])])
        writes, syncs = Calls(monkeypatch, "pwrite"), Calls(monkeypatch, "fdatasync")
        for _ in range(2):
            with pytest.raises(WriteFailed, match="Input/output error"):
                wal.append([(None, 2, [entry(1, "never")])])
        assert (writes.count, syncs.count) == (0, 0)
        wal.close()
        recovered = content(directory)[2]
        assert recovered[0] == entry(1, "kept")
        assert entry(1, "never") not in recovered

    def test_a_disk_that_is_full_when_a_segment_is_due_is_final_too(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wal = open_wal(directory)
        with monkeypatch.context() as patch:
            Calls(patch, "posix_fallocate", errno.ENOSPC)
            wal.append([(None, 1, [entry(1, b"x" * 2500)])])
            with pytest.raises(WriteFailed, match="No space left"):
                wal.append([(None, 2, [entry(1, b"x" * 2500)])])
        with pytest.raises(WriteFailed, match="No space left"):
            wal.append([(None, 2, [entry(1, "small")])])
        wal.close()
        assert list(directory.glob("*.tmp")) == []
        assert content(directory)[2] == [entry(1, b"x" * 2500)]

    def test_a_closed_log_takes_nothing_and_may_be_closed_again(self, directory: Path) -> None:
        wal = open_wal(directory)
        wal.close()
        wal.close()
        with pytest.raises(ValueError, match="append to a closed log"):
            wal.append([(HardState(1, 1, 0), 1, [])])


class TestRefusal:
    def one_line(self, caught: pytest.ExceptionInfo[StorageError], path: Path) -> str:
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        assert re.search(r"; .*(choose|restore|free|run|give|stop|correct|mount|remove|move|see)", message)
        return message

    def test_a_log_in_use(self, directory: Path) -> None:
        wal = open_wal(directory)
        with pytest.raises(DirectoryInUse) as caught:
            open_wal(directory)
        self.one_line(caught, directory)
        wal.append([(None, 1, [entry(1)])])
        wal.close()
        assert content(directory)[2] == [entry(1)]

    @pytest.mark.parametrize(("cluster_id", "node_id", "what"), [(7, 2, "cluster"), (1, 7, "node")])
    def test_a_log_of_another_cluster_or_node(
        self, directory: Path, cluster_id: int, node_id: int, what: str
    ) -> None:
        fill(directory)
        with pytest.raises(ForeignDirectory) as caught:
            Wal.open(directory, cluster_id=cluster_id, node_id=node_id)
        assert f"not to {what} 7" in self.one_line(caught, directory)
        assert len(content(directory)[2]) == 40

    @pytest.mark.parametrize("name", ["cluster_id", "node_id"])
    @pytest.mark.parametrize("value", [-1, 1 << 64])
    def test_an_id_that_is_not_of_64_bits_is_refused_and_nothing_is_made(
        self, directory: Path, name: str, value: int
    ) -> None:
        ids = {"cluster_id": 1, "node_id": 2, name: value}
        with pytest.raises(ValueError, match=rf"{name} is {value}; it must be from 0 to 2\*\*64 - 1"):
            Wal.open(directory, cluster_id=ids["cluster_id"], node_id=ids["node_id"])
        assert not directory.exists()

    def test_a_log_of_another_format(self, directory: Path) -> None:
        fill(directory, 2)
        header = SegmentHeader(FORMAT_VERSION + 1, 5, 0, 1, 2, 1, 1, HardState())
        path = segments(directory)[0]
        with path.open("r+b") as file:
            file.write(FrameEncoder().encode_header(header, 0))
        with pytest.raises(UnsupportedVersion) as caught:
            open_wal(directory)
        assert "log format 3" in self.one_line(caught, path)

    def test_a_path_that_is_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("hello")
        with pytest.raises(UnreadableLog) as caught:
            open_wal(path)
        self.one_line(caught, path)
        with pytest.raises(UnreadableLog) as caught:
            open_wal(path / "below")
        self.one_line(caught, path)
        assert path.read_text() == "hello"

    @pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
    def test_a_directory_that_may_not_be_written(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        Calls(monkeypatch, "open", error)
        with pytest.raises(UnreadableLog) as caught:
            open_wal(directory)
        self.one_line(caught, directory)

    def test_a_segment_that_may_not_be_read(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(directory)
        path = segments(directory)[1]

        def refuse(self: Path, *arguments: Any) -> Any:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(UnreadableLog) as caught:
            open_wal(directory)
        assert "permission denied; give the user" in self.one_line(caught, path)

    def test_something_else_in_a_segments_place(self, directory: Path) -> None:
        fill(directory, 1)
        path = directory / "0000000000000002-0000000000000002.wal"
        path.mkdir()
        with pytest.raises(UnreadableLog) as caught:
            open_wal(directory)
        self.one_line(caught, path)
        path.rename(directory / "backup.wal")
        with pytest.raises(CorruptLog, match="its name is not a segment's"):
            open_wal(directory)

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
    def test_no_space_for_the_first_segment(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        with monkeypatch.context() as patch:
            Calls(patch, "posix_fallocate", error)
            with pytest.raises(OutOfSpace) as caught:
                open_wal(directory)
        self.one_line(caught, directory)
        assert content(directory)[2] == []

    def test_after_a_refusal_the_lock_is_free(self, directory: Path) -> None:
        fill(directory)
        for _ in range(2):
            with pytest.raises(ForeignDirectory):
                open_wal(directory, node_id=9)
        assert len(content(directory)[2]) == 40


# --- what is counted --------------------------------------------------------------------------------------------


def test_each_append_counts_its_sync_and_its_bytes(directory: Path) -> None:
    wal = open_wal(directory, fsync=True)
    for place in range(5):
        wal.append([(HardState(1, 2, place), place + 1, [entry(1)])])
    wal.append([])
    wal.close()
    assert sum(wal.measures.fsyncs.counts) == 5
    assert wal.measures.fsyncs.sum > 0
    assert wal.measures.written_bytes > 5 * len(b"x")


def test_without_fsync_no_sync_is_counted(directory: Path) -> None:
    wal = open_wal(directory)
    wal.append([(HardState(1, 2, 0), 1, [entry(1)])])
    wal.close()
    assert sum(wal.measures.fsyncs.counts) == 0
    assert wal.measures.written_bytes > 0
