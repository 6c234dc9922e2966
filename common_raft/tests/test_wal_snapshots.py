"""The log and its snapshots: marks, purging, starting from a snapshot, and a crash at any step of it."""

from __future__ import annotations

import errno
import os
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import (
    CorruptLog,
    SnapshotMark,
    SnapshotNotWritten,
    Snapshots,
    UnreadableLog,
    UnusableSnapshot,
    Wal,
    WriteFailed,
)
from common_raft.tests.failing_system import Calls


def open_wal(directory: Path, *, max_wals: int = 1, segment_bytes: int = 512, fsync: bool = False) -> Wal:
    return Wal.open(
        directory, cluster_id=1, node_id=2, segment_bytes=segment_bytes, max_wals=max_wals, fsync=fsync
    )


def entry(index: int, term: int = 1) -> Entry:
    return Entry(term, EntryKind.COMMANDS, f"entry {index} of term {term} ".encode() * 5)


def append(wal: Wal, count: int, term: int = 1) -> None:
    for index in range(wal.last_index + 1, wal.last_index + 1 + count):
        wal.append([(HardState(term, 2, index), index, [entry(index, term)])])


def mark(index: int, term: int = 1) -> SnapshotMark:
    return SnapshotMark(index, term, b"meta %d" % index)


def take(wal: Wal, index: int) -> SnapshotMark:
    wal.snapshots.write(mark(index), [b"state after %d" % index])
    wal.mark_snapshot(mark(index))
    return mark(index)


def segments(directory: Path) -> list[int]:
    return [int(path.name[:16], 16) for path in sorted(directory.glob("*.wal"))]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def reopened(wal: Wal, directory: Path) -> Wal:
    wal.close()
    wal = open_wal(directory)
    wal.close()
    return wal


class TestStartingFromASnapshot:
    def test_a_start_takes_the_newest_and_the_entries_behind_it(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 10)
        take(wal, 4)
        append(wal, 2)
        take(wal, 9)
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index) == (mark(9), 10)
        assert recovered.entries == [entry(10), entry(11), entry(12)]
        assert recovered.hard_state == HardState(1, 2, 12)
        assert recovered.unusable == ()

    def test_a_snapshot_of_the_last_entry_leaves_none_and_the_log_goes_on(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 10)
        take(wal, 10)
        wal.purge(10)
        wal.close()
        wal = open_wal(tmp_path)
        assert (wal.recovered.first_index, wal.recovered.entries, wal.last_index) == (11, [], 10)
        append(wal, 2)
        assert reopened(wal, tmp_path).recovered.entries == [entry(11), entry(12)]

    def test_a_snapshot_stands_for_committed_entries_whatever_was_written_of_the_commit(
        self, tmp_path: Path
    ) -> None:
        wal = open_wal(tmp_path)
        wal.append([(HardState(1, 2, 0), 1, [entry(1), entry(2), entry(3)])])
        take(wal, 2)
        with pytest.raises(ValueError, match="replace committed ones, up to 2"):
            wal.append([(None, 2, [entry(2, 9)])])
        append(wal, 20)  # over segments, whose headers repeat the hard state
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index) == (mark(2), 3)
        wal = open_wal(tmp_path / "other")
        wal.append([(HardState(1, 2, 0), 1, [entry(1), entry(2), entry(3)])])
        take(wal, 2)
        assert reopened(wal, tmp_path / "other").recovered.hard_state == HardState(1, 2, 2)

    def test_marks_that_do_not_fit_are_refused_and_not_written(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 5)
        with pytest.raises(ValueError, match="is to be marked in the log, and is not there"):
            wal.mark_snapshot(mark(3))
        wal.snapshots.write(mark(6), [])
        with pytest.raises(ValueError, match="a snapshot of entry 6 in a log that ends with 5"):
            wal.mark_snapshot(mark(6))
        wal.snapshots.write(mark(4), [])
        with pytest.raises(ValueError, match="replaces what is committed, up to 5"):
            wal.append([(None, 1, (), mark(4), True)])
        with pytest.raises(ValueError, match="marks no snapshot of entry 4"):
            wal.purge(4)
        assert reopened(wal, tmp_path).recovered.snapshot is None

    def test_a_path_that_is_not_the_snapshots_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="max_wals is -1"):
            open_wal(tmp_path, max_wals=-1)


class TestReceiving:
    @pytest.mark.parametrize("index", [7, 10, 11, 500])
    def test_a_snapshot_from_elsewhere_begins_the_log_anew(self, tmp_path: Path, index: int) -> None:
        """Whether the log ends before it, or has conflicting entries there."""
        wal = open_wal(tmp_path)
        append(wal, 5)
        wal.append([(None, 6, [entry(place, 1) for place in range(6, 11)])])
        wal.snapshots.write(mark(index, 3), [b"received"])
        new = [entry(index + 1, 3)]
        wal.append([(HardState(3, 0, index), index + 1, new, mark(index, 3), True)])
        assert wal.last_index == index + 1
        wal.close()
        wal = open_wal(tmp_path)
        recovered = wal.recovered
        assert (recovered.snapshot, recovered.first_index, recovered.entries) == (
            mark(index, 3),
            index + 1,
            new,
        )
        assert recovered.hard_state == HardState(3, 0, index)
        append(wal, 10, term=3)
        wal.purge(index)
        assert segments(tmp_path)[0] > 1
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index) == (mark(index, 3), index + 1)
        assert recovered.entries == [entry(place, 3) for place in range(index + 1, index + 12)]

    def test_it_makes_all_before_it_dispensable(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 10)
        assert len(segments(tmp_path)) > 3
        wal.append([(None, 11, [entry(place) for place in range(11, 15)])])
        wal.snapshots.write(mark(12, 3), [])
        wal.append([(HardState(3, 0, 12), 1, (), mark(12, 3), True)])
        wal.purge(12)
        assert len(segments(tmp_path)) == 1
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index, recovered.entries) == (mark(12, 3), 13, [])

    def test_a_damaged_one_cannot_be_passed_over(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 5)
        take(wal, 3)
        wal.snapshots.write(mark(50, 3), [])
        wal.append([(None, 1, (), mark(50, 3), True)])
        wal.close()
        flip(wal.snapshots.path(mark(50, 3)), 20)
        with pytest.raises(UnusableSnapshot, match=r"32\.snap: not usable, at offset 0: "):
            open_wal(tmp_path)


class TestPurging:
    def test_whole_segments_behind_the_snapshot_go_oldest_first_down_to_the_limit(
        self, tmp_path: Path
    ) -> None:
        for limit in (0, 1, 2, 3, 5, 99):
            directory = tmp_path / str(limit)
            wal = open_wal(directory, max_wals=limit)
            append(wal, 20)
            take(wal, 20)
            before = segments(directory)
            assert len(before) > 6
            removed = wal.purge(20)
            # The one with the mark has to stay, and what is behind it.
            assert segments(directory) == (before[-limit:] if limit else before)
            assert [int(path.name[:16], 16) for path in removed] == before[
                : len(before) - len(segments(directory))
            ]
            recovered = reopened(wal, directory).recovered
            assert (recovered.snapshot, recovered.first_index, recovered.entries) == (mark(20), 21, [])

    def test_what_a_start_needs_stays_however_much_it_is(self, tmp_path: Path) -> None:
        for index in range(1, 21):
            directory = tmp_path / str(index)
            wal = open_wal(directory)
            append(wal, 20)
            take(wal, index)
            wal.purge(index)
            append(wal, 3)
            recovered = reopened(wal, directory).recovered
            assert (recovered.snapshot, recovered.first_index) == (mark(index), index + 1)
            assert recovered.entries == [entry(place) for place in range(index + 1, 24)]

    def test_the_mark_stays_where_the_entries_behind_the_snapshot_are_in_later_segments(
        self, tmp_path: Path
    ) -> None:
        for before in range(8, 16):
            directory = tmp_path / str(before)
            wal = open_wal(directory)
            append(wal, before)
            take(wal, before)
            append(wal, 9)
            wal.purge(before)
            recovered = reopened(wal, directory).recovered
            assert (recovered.snapshot, recovered.first_index) == (mark(before), before + 1)

    def test_a_conflict_that_reaches_back_into_what_was_removed_is_read(self, tmp_path: Path) -> None:
        """Entries 3 to 12 are replaced from 6 on in a later segment, and a snapshot comes after that."""
        found = 0
        for conflict in range(2, 12):
            directory = tmp_path / str(conflict)
            wal = open_wal(directory)
            for index in range(1, 13):
                wal.append([(None, index, [entry(index)])])
            for index in range(conflict, 13):
                wal.append([(None, index, [entry(index, 2)])])
            wal.append([(HardState(2, 0, 12), 1, ())])
            take(wal, 12)
            wal.append([(None, 13, [entry(13, 2)])])
            wal.purge(12)
            with next(directory.glob("*.wal")).open("rb") as file:
                found += b"entry %d of term 2" % conflict in file.read(500)
            recovered = reopened(wal, directory).recovered
            assert (recovered.snapshot, recovered.first_index) == (mark(12), 13)
            assert recovered.entries == [entry(13, 2)]
        wal = open_wal(tmp_path / "kept", max_wals=3)
        for index in range(1, 13):
            wal.append([(None, index, [entry(index)])])
        wal.append([(None, 2, [entry(index, 2) for index in range(2, 6)])])
        take(wal, 3)
        wal.purge(3)
        assert segments(tmp_path / "kept")[0] > 1
        assert reopened(wal, tmp_path / "kept").recovered.entries == [entry(4, 2), entry(5, 2)]

    def test_the_disk_stays_bounded_under_endless_writes(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path, max_wals=3, segment_bytes=1024)
        most = 0
        for turn in range(1, 60):
            append(wal, 5)
            take(wal, turn * 5)
            wal.purge(turn * 5)
            wal.snapshots.purge(2, mark(turn * 5))
            if turn % 7 == 0:
                wal.close()
                wal = open_wal(tmp_path, max_wals=3, segment_bytes=1024)
                assert wal.recovered.snapshot == mark(turn * 5)
            most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
        assert most < 6 * 1024
        assert len(wal.snapshots.files()) == 2
        wal.close()

    def test_a_segment_that_cannot_be_removed_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wal = open_wal(tmp_path)
        append(wal, 20)
        take(wal, 20)
        oldest = min(tmp_path.glob("*.wal"))

        def refuse(path: Path, **_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            with pytest.raises(UnreadableLog, match=f"{oldest}: input/output error"):
                wal.purge(20)
        wal.purge(20)
        assert reopened(wal, tmp_path).recovered.snapshot == mark(20)


class TestDamage:
    @pytest.fixture
    def wal(self, tmp_path: Path) -> Wal:
        """Snapshots of 5, 10 and 15 in a log up to 20 that reaches back to 5."""
        wal = open_wal(tmp_path, max_wals=3)
        for _ in range(3):
            append(wal, 5)
            take(wal, wal.last_index)
        append(wal, 5)
        wal.purge(5)
        assert segments(tmp_path)[0] > 1
        wal.close()
        return wal

    def test_the_newest_good_snapshot_is_used_as_far_as_the_log_reaches_back(
        self, wal: Wal, tmp_path: Path
    ) -> None:
        newest, middle, oldest = [wal.snapshots.path(mark(index)) for index in (15, 10, 5)]
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.wal")}
        flip(newest, newest.stat().st_size - 20)
        recovered = reopened(open_wal(tmp_path), tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index) == (mark(10), 11)
        assert recovered.entries == [entry(place) for place in range(11, 21)]
        assert [error.file for error in recovered.unusable] == [newest]
        flip(middle, 0)
        recovered = reopened(open_wal(tmp_path), tmp_path).recovered
        assert (recovered.snapshot, len(recovered.entries)) == (mark(5), 15)
        assert [(error.file, error.offset) for error in recovered.unusable][1] == (middle, 0)
        flip(oldest, 30)
        with pytest.raises(UnusableSnapshot) as caught:
            open_wal(tmp_path)
        assert caught.value.file == newest
        assert str(caught.value).startswith(f"{newest}: not usable, at offset {caught.value.offset}: ")
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.wal")} == before
        assert newest.exists()

    def test_a_snapshot_file_that_went_missing_is_passed_over_or_named(
        self, wal: Wal, tmp_path: Path
    ) -> None:
        newest = wal.snapshots.path(mark(15))
        newest.unlink()
        recovered = reopened(open_wal(tmp_path), tmp_path).recovered
        assert recovered.snapshot == mark(10)
        assert f"{newest}: not usable, at offset 0: the log marks it, and it is not there" in str(
            recovered.unusable[0]
        )
        for index in (5, 10):
            wal.snapshots.path(mark(index)).unlink()
        with pytest.raises(UnusableSnapshot, match=f"{newest}: not usable"):
            open_wal(tmp_path)

    def test_older_snapshots_that_were_removed_are_no_flaw(self, wal: Wal, tmp_path: Path) -> None:
        wal.snapshots.purge(1, mark(15))
        assert reopened(open_wal(tmp_path), tmp_path).recovered.unusable == ()

    def test_another_clusters_snapshot_is_passed_over(self, wal: Wal, tmp_path: Path) -> None:
        other = Wal.open(tmp_path / "other", cluster_id=7, node_id=2)
        file = other.snapshots.write(mark(15), [b"theirs"])
        other.close()
        file.path.rename(wal.snapshots.path(mark(15)))
        recovered = reopened(open_wal(tmp_path), tmp_path).recovered
        assert recovered.snapshot == mark(10)
        assert "at offset 16: it belongs to cluster 7, not to 1" in str(recovered.unusable[0])

    def test_a_log_that_is_whole_needs_no_snapshot(self, tmp_path: Path) -> None:
        wal = open_wal(tmp_path)
        append(wal, 5)
        flip(wal.snapshots.path(take(wal, 3)), 7)
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index, len(recovered.entries)) == (None, 1, 5)
        assert len(recovered.unusable) == 1

    def test_missing_first_segments_that_a_snapshot_stands_for_are_fine_and_others_are_named(
        self, tmp_path: Path
    ) -> None:
        wal = open_wal(tmp_path, max_wals=0)
        append(wal, 20)
        take(wal, 12)
        wal.close()
        paths = sorted(tmp_path.glob("*.wal"))
        covered = [path for path in paths[1:] if int(path.name[17:33], 16) <= 13]
        for place, path in enumerate(paths[:-1]):
            data = path.read_bytes()
            path.unlink()
            if paths[place + 1] in covered:
                assert reopened(open_wal(tmp_path), tmp_path).recovered.entries == [
                    entry(i) for i in range(13, 21)
                ]
            else:
                with pytest.raises(CorruptLog) as caught:
                    open_wal(tmp_path)
                assert caught.value.file == paths[place + 1]
                assert f"segment {place + 1}, which should be there too, is missing" in str(caught.value)
                assert "no snapshot stands for the entries up to" in str(caught.value)
                path.write_bytes(data)
                break
        assert 1 <= place == len(covered)
        paths[place + 1].unlink()
        with pytest.raises(CorruptLog, match=f"segment {place + 2}, which should be there too, is missing"):
            open_wal(tmp_path)

    def test_a_disk_that_does_not_let_the_snapshot_be_read_is_not_passed_over(
        self, wal: Wal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Path.open

        def refuse(path: Path, *arguments: object, **named: object) -> object:
            if path.suffix == ".snap":
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return real(path, *arguments, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(UnreadableLog, match=r"0f\.snap: input/output error; the disk may be failing"):
            open_wal(tmp_path)


class PowerCut(BaseException):
    """The machine stops: nothing that would have come after it happens."""


class Power:
    """Ends everything from the ``cut_at``-th change to the disk on."""

    CHANGES = (
        "open",
        "pwrite",
        "fsync",
        "fdatasync",
        "rename",
        "unlink",
        "mkdir",
        "ftruncate",
        "posix_fallocate",
    )

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cut_at: int | None = None) -> None:
        self.count = 0
        self.cut_at = cut_at
        for name in self.CHANGES:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            if self.cut_at is not None and self.count >= self.cut_at:
                raise PowerCut
            return real(*arguments, **named)

        return call


@pytest.mark.thorough
class TestCrashes:
    """A crash before any one change to the disk, from a snapshot's first byte to the last file's removal."""

    @pytest.fixture(autouse=True)
    def sender(self, tmp_path: Path) -> None:
        """Another node's snapshot of entry 9."""
        snapshots = Snapshots(tmp_path / "sender", cluster_id=1)
        self.sent = snapshots.write(mark(9, 2), [b"state after 9"]).path.read_bytes()

    def taken(self, wal: Wal) -> Iterator[int]:
        """Entries, snapshots, purging; tells each index that was acknowledged."""
        for turn in range(1, 4):
            for _ in range(4):
                append(wal, 1)
                yield wal.last_index
            take(wal, turn * 4 - 1)
            wal.purge(turn * 4 - 1)
            wal.snapshots.purge(2, mark(turn * 4 - 1))

    def received(self, wal: Wal) -> Iterator[int]:
        append(wal, 3)
        yield 3
        wal.append([(None, 4, [entry(4), entry(5)])])
        yield 5
        sink = wal.snapshots.begin(mark(9, 2))
        for offset in range(0, len(self.sent), 30):
            sink.write(offset, self.sent[offset : offset + 30])
        sink.finish()
        wal.append([(HardState(2, 0, 9), 10, [entry(10, 2)], mark(9, 2), True)])
        yield 10
        append(wal, 1, term=2)
        yield 11
        wal.purge(9)

    @pytest.mark.parametrize("history", ["taken", "received"])
    def test_nothing_acknowledged_is_lost(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: str
    ) -> None:
        with monkeypatch.context() as patch:
            power = Power(patch)
            wal = open_wal(tmp_path / "whole", max_wals=2, fsync=True)
            begun = power.count
            for _ in getattr(self, history)(wal):
                pass
            wal.close()
            steps = power.count
        assert steps - begun > 25
        for cut_at in range(begun + 1, steps + 1):
            self.crash_and_start(tmp_path / str(cut_at), monkeypatch, history, cut_at)

    def until_the_cut(self, acknowledgements: Iterator[int]) -> int | None:
        try:
            return next(acknowledgements)
        except PowerCut:
            return None
        except WriteFailed as error:
            if isinstance(error.__cause__, PowerCut):
                return None
            raise

    def crash_and_start(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, history: str, cut_at: int
    ) -> None:
        acknowledged: int | None = 0
        with monkeypatch.context() as patch:
            Power(patch, cut_at)
            wal = open_wal(directory, max_wals=2, fsync=True)
            acknowledgements = getattr(self, history)(wal)
            while acknowledged is not None:
                last = acknowledged
                acknowledged = self.until_the_cut(acknowledgements)
        acknowledged = last
        wal.close()
        wal = open_wal(directory, max_wals=2)
        recovered = wal.recovered
        assert recovered.unusable == ()
        if recovered.snapshot is not None:
            index = recovered.snapshot.index
            assert recovered.first_index == index + 1
            assert list(wal.snapshots.chunks(recovered.snapshot)) == [b"state after %d" % index]
            assert recovered.hard_state.commit >= index
        assert wal.last_index >= acknowledged
        for index, one in enumerate(recovered.entries, recovered.first_index):
            assert one == entry(index, one.term)
        marked = {recovered.snapshot} | {m.snapshot for m in wal._marks}
        assert {file.path for file in wal.snapshots.files()} <= {wal.snapshots.path(m) for m in marked if m}
        assert not list(directory.rglob("*.tmp")) + list(directory.rglob("*.part"))
        append(wal, 2, term=3)
        take(wal, wal.last_index)
        wal.purge(wal.last_index)
        assert reopened(wal, directory).recovered.snapshot == mark(wal.last_index)


class TestFullDisk:
    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
    def test_a_mark_that_cannot_be_written_ends_the_log_and_is_not_there_afterwards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        wal = open_wal(tmp_path)
        append(wal, 5)
        wal.snapshots.write(mark(5), [])
        with monkeypatch.context() as patch:
            Calls(patch, "pwrite", error)
            with pytest.raises(WriteFailed, match=os.strerror(error)):
                wal.mark_snapshot(mark(5))
        recovered = reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, len(recovered.entries)) == (None, 5)
        assert wal.snapshots.files() == []

    def test_a_snapshot_that_finds_the_disk_full_leaves_the_log_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wal = open_wal(tmp_path)
        append(wal, 5)
        with monkeypatch.context() as patch:
            Calls(patch, "pwrite", errno.ENOSPC, 2)
            with pytest.raises(SnapshotNotWritten, match=r"snap\.tmp: writing the snapshot failed at offset"):
                take(wal, 5)
        append(wal, 1)
        assert len(reopened(wal, tmp_path).recovered.entries) == 6


#: What the version before snapshots wrote: two segments in format 1, less the zeros at their ends.
FORMAT_1 = {
    "0000000000000001-0000000000000001.wal": """
UkYxSEgAAAAAAAAAAAAAAAAAAAAfEH26AQAAAL1ggIsAAAAAAAAAAMEAAAAAAAAAoQAAAAAAAAABAAAAAAAAAAEAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAbaLUIqVawzxSRjFCDgAAAAEAAAAAAAAAAAAAANcCYIORk5MBzKEAAZGTAQDEAAAAFx9eiqVa
wzxSRjFCNgAAAAIAAAAAAAAAAAAAAIsK9XaRk5MBzKEBApGTAQHEKGNvbW1hbmQgMiBjb21tYW5kIDIgY29tbWFuZCAyIGNvbW1h
bmQgMiAAAI/5yRWlWsM8UkYxQjYAAAADAAAAAAAAAAAAAADkRlDtkZOTAcyhAgORkwEBxChjb21tYW5kIDMgY29tbWFuZCAzIGNv
bW1hbmQgMyBjb21tYW5kIDMgAADu0JoopVrDPFJGMUI2AAAABAAAAAAAAAAAAAAAa6/ImZGTkwHMoQMEkZMBAcQoY29tbWFuZCA0
IGNvbW1hbmQgNCBjb21tYW5kIDQgY29tbWFuZCA0IAAAx9SNYKVawzxSRjFTCAAAAAQAAAAAAAAAAAAAAB1OpdgCAAAAAAAAAA9G
2SSlWsM8""",
    "0000000000000002-0000000000000005.wal": """
UkYxSEgAAAAEAAAAAAAAAAAAAABgK3u5AQAAABCAmxm9YICLAAAAAMEAAAAAAAAAoQAAAAAAAAACAAAAAAAAAAUAAAAAAAAAAQAA
AAAAAAChAAAAAAAAAAMAAAAAAAAAwMpzFqVawzxSRjFCNgAAAAUAAAAAAAAAAAAAAMZaOZ6Rk5MBzKEEBZGTAQHEKGNvbW1hbmQg
NSBjb21tYW5kIDUgY29tbWFuZCA1IGNvbW1hbmQgNSAAAMnO5HGlWsM8UkYxQjYAAAAGAAAAAAAAAAAAAAA2iKfpkZOTAcyhBQaR
kwEBxChjb21tYW5kIDYgY29tbWFuZCA2IGNvbW1hbmQgNiBjb21tYW5kIDYgAABt2EZLpVrDPFJGMUI2AAAABwAAAAAAAAAAAAAA
WcQCcpGTkwHMoQYHkZMBAcQoY29tbWFuZCA3IGNvbW1hbmQgNyBjb21tYW5kIDcgY29tbWFuZCA3IAAADPEVdqVawzxSRjFCGwAA
AAgAAAAAAAAAAAAAAAxi4x6Rk5MCzLIGB5GTAgHEDWluIHBsYWNlIG9mIDcAAAAAAM6+sgOlWsM8""",
}


class TestTheFormatBefore:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        for name, text in FORMAT_1.items():
            (tmp_path / name).write_bytes(b64decode(text))
        (tmp_path / "wal.lock").write_text("The log of node a1 in cluster c1 is in this directory.\n")
        return tmp_path

    def open(self, directory: Path) -> Wal:
        return Wal.open(directory, cluster_id=0xC1, node_id=0xA1, segment_bytes=4096, max_wals=1)

    def test_its_log_is_read_and_gone_on_with(self, directory: Path) -> None:
        entries = [Entry(1, EntryKind.NOOP, b"")]
        entries += [Entry(1, EntryKind.COMMANDS, b"command %d " % place * 4) for place in range(2, 7)]
        entries += [Entry(2, EntryKind.COMMANDS, b"in place of 7")]
        wal = self.open(directory)
        assert (wal.recovered.first_index, wal.recovered.entries) == (1, entries)
        assert (wal.recovered.hard_state, wal.recovered.snapshot) == (HardState(2, 0xB2, 6), None)
        assert wal.recovered.torn is None
        append(wal, 1, term=2)
        wal.close()
        wal = self.open(directory)
        wal.close()
        assert wal.recovered.entries == [*entries, entry(8, 2)]

    def test_a_mark_goes_into_a_segment_of_this_format(self, directory: Path) -> None:
        wal = self.open(directory)
        take(wal, 6)
        old, new = sorted(directory.glob("*.wal"))[1:]
        assert (old.read_bytes()[24], new.read_bytes()[24]) == (1, 2)
        append(wal, 1, term=2)
        wal.purge(6)
        wal.close()
        wal = self.open(directory)
        wal.close()
        assert (wal.recovered.snapshot, wal.recovered.first_index) == (mark(6), 7)
        assert [one.data[:11] for one in wal.recovered.entries] == [b"in place of", b"entry 8 of "]


def test_a_log_whose_end_is_gone_is_refused_if_snapshots_show_it_and_they_stay(tmp_path: Path) -> None:
    wal = open_wal(tmp_path, max_wals=0, segment_bytes=1 << 20)
    append(wal, 4)
    (path,) = tmp_path.glob("*.wal")
    early = path.read_bytes().rstrip(b"\0")
    for index in (10, 20):
        append(wal, 10)
        take(wal, index)
    wal.close()
    path.write_bytes(early)
    held = sorted((tmp_path / "snap").iterdir())
    with pytest.raises(
        CorruptLog, match="ends with entry 4, but there are 2 snapshots of later ones, up to entry 20"
    ):
        open_wal(tmp_path, max_wals=0, segment_bytes=1 << 20)
    assert sorted((tmp_path / "snap").iterdir()) == held
    assert path.read_bytes() == early


def test_a_file_where_the_snapshots_belong_is_said_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "snap").write_text("not a directory")
    with pytest.raises(UnreadableLog, match=r"/snap: not a directory, and the snapshots are kept there"):
        Wal.open(tmp_path, cluster_id=1, node_id=2, fsync=False)
    assert not list(tmp_path.glob("*.wal"))
    (tmp_path / "snap").unlink()
    Wal.open(tmp_path, cluster_id=1, node_id=2, fsync=False).close()
