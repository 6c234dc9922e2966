"""Snapshot files: what was written is read, whole or not at all, and whatever is wrong is named with its place."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from common_raft.storage import (
    SnapshotFile,
    SnapshotMark,
    SnapshotNotWritten,
    Snapshots,
    UnreadableLog,
    UnusableSnapshot,
)
from common_raft.storage.snapshots import MAX_CHUNK, MAX_META, SYNC_BYTES
from common_raft.tests.failing_system import Calls

MARK = SnapshotMark(7, 3, b"who belongs to it")
CHUNKS = [b"one", random.Random(5).randbytes(700), bytes(600), b"end"]


def open_snapshots(directory: Path, cluster_id: int = 1, *, fsync: bool = False) -> Snapshots:
    return Snapshots(directory / "snap", cluster_id=cluster_id, fsync=fsync)


def mark(index: int, term: int = 1) -> SnapshotMark:
    return SnapshotMark(index, term, b"meta")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "snap").iterdir())


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return open_snapshots(tmp_path)


class TestWriting:
    def test_the_chunks_come_back_as_they_were_written(self, tmp_path: Path) -> None:
        snapshots = open_snapshots(tmp_path, fsync=True)
        file = snapshots.write(MARK, CHUNKS)
        assert file == SnapshotFile(snapshots.path(MARK), 7, 3, file.path.stat().st_size)
        assert list(snapshots.chunks(MARK)) == CHUNKS
        assert snapshots.files() == [file]
        assert names(tmp_path) == ["0000000000000003-0000000000000007.snap"]

    def test_empty_chunks_are_left_out_and_none_at_all_will_do(self, snapshots: Snapshots) -> None:
        snapshots.write(mark(1), [b"", b"a", b"", b"b"])
        snapshots.write(mark(2), [])
        assert list(snapshots.chunks(mark(1))) == [b"a", b"b"]
        assert list(snapshots.chunks(mark(2))) == []

    def test_the_format_is_what_it_was(self, snapshots: Snapshots) -> None:
        file = snapshots.write(SnapshotMark(2, 1, b"m"), [b"chunk"])
        assert file.path.read_bytes().hex(" ", -4) == (
            "5246534e 41500d0a 01000000 01000000 01000000 00000000 02000000 00000000 01000000 00000000 6d2e2544 "
            "3c050000 006d74e3 c7636875 6e6b0000 000072c7 a3cb"
        )

    def test_files_are_listed_newest_first(self, snapshots: Snapshots) -> None:
        assert snapshots.files() == []
        for one in (mark(5, 1), mark(100, 2), mark(7, 2)):
            snapshots.write(one, [])
        assert [(file.term, file.index) for file in snapshots.files()] == [(2, 100), (2, 7), (1, 5)]

    def test_a_snapshot_that_is_not_there_has_no_size(self, snapshots: Snapshots) -> None:
        file = snapshots.write(mark(5), [b"chunk"])
        assert snapshots.size(mark(5)) == file.size == file.path.stat().st_size
        assert snapshots.size(mark(6)) == 0

    def test_it_is_synced_before_it_has_its_name_and_in_portions(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []
        for name in ("fdatasync", "fsync"):
            monkeypatch.setattr(os, name, lambda _, name=name: done.append(name))
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda path, to: (done.append("rename"), rename(path, to))[1])
        snapshots = open_snapshots(tmp_path, fsync=True)
        snapshots.write(mark(1), [bytes(SYNC_BYTES)] * 2 + [b"rest"])
        assert done == ["fsync", "fdatasync", "fdatasync", "fdatasync", "rename", "fsync"]

    def test_what_is_too_large_is_refused(self, snapshots: Snapshots, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="chunk of"):
            snapshots.write(mark(1), [bytes(MAX_CHUNK + 1)])
        with pytest.raises(ValueError, match="meta of"):
            snapshots.write(SnapshotMark(1, 1, bytes(MAX_META + 1)), [])
        assert names(tmp_path) == []

    def test_chunks_that_fail_leave_nothing_behind(self, snapshots: Snapshots, tmp_path: Path) -> None:
        def broken() -> Iterator[bytes]:
            yield b"some"
            raise ConnectionError("the store is away")

        with pytest.raises(ConnectionError, match="the store is away"):
            snapshots.write(mark(1), broken())
        assert names(tmp_path) == []

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
    @pytest.mark.parametrize(
        ("name", "calls"), [("pwrite", range(1, 7)), ("fdatasync", [1]), ("fsync", [1, 2]), ("open", [1, 2])]
    )
    def test_a_disk_that_fails_at_any_step_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: range, error: int
    ) -> None:
        for call in calls:
            directory = tmp_path / str(call)
            snapshots = open_snapshots(directory, fsync=True)
            if name != "fsync":  # the first is for the new directory's name
                snapshots.write(mark(1), CHUNKS)
            with monkeypatch.context() as patch:
                Calls(patch, name, error, call)
                with pytest.raises(SnapshotNotWritten) as caught:
                    snapshots.write(mark(2), CHUNKS)
            message = str(caught.value)
            assert str(snapshots.path(mark(2)).with_suffix(".snap.tmp")) in message
            assert f"failed at offset {caught.value.offset} (" in message
            assert os.strerror(error) in message
            assert "\n" not in message
            snapshots.write(mark(3), CHUNKS)
            assert mark(2).index not in [file.index for file in snapshots.files()]
            assert not list((directory / "snap").glob("*.tmp"))
            for file in snapshots.files():
                assert list(snapshots.chunks(mark(file.index))) == CHUNKS

    def test_a_path_that_is_a_file_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "snap").write_text("hello")
        with pytest.raises(UnreadableLog, match=r"/snap: not a directory.*move it away"):
            open_snapshots(tmp_path)


@pytest.mark.thorough
class TestDamage:
    def refused(self, snapshots: Snapshots, offset: int | None = None) -> UnusableSnapshot:
        path = snapshots.path(MARK)
        with pytest.raises(UnusableSnapshot) as caught:
            snapshots.verify(MARK)
        message = str(caught.value)
        assert message.startswith(f"{path}: not usable, at offset {caught.value.offset}: ")
        assert "\n" not in message
        assert offset in (None, caught.value.offset)
        return caught.value

    def test_any_flipped_byte_is_found_with_the_place_of_its_part(self, snapshots: Snapshots) -> None:
        path = snapshots.write(MARK, CHUNKS).path
        sound = path.read_bytes()
        starts = [40 + len(MARK.meta) + 4]
        for chunk in CHUNKS:
            starts.append(starts[-1] + 8 + len(chunk))
        assert starts[-1] + 8 == len(sound)
        for offset in range(len(sound)):
            for changed in (sound[offset] ^ 1, sound[offset] ^ 0x80, sound[offset] ^ 0xFF):
                path.write_bytes(sound[:offset] + bytes([changed]) + sound[offset + 1 :])
                if offset < starts[0]:
                    assert self.refused(snapshots).offset in (0, 8)
                else:
                    self.refused(snapshots, max(start for start in starts if start <= offset))

    def test_a_file_cut_anywhere_is_found(self, snapshots: Snapshots) -> None:
        path = snapshots.write(MARK, CHUNKS).path
        sound = path.read_bytes()
        for size in range(len(sound)):
            path.write_bytes(sound[:size])
            assert self.refused(snapshots).offset <= size
        path.write_bytes(sound + b"\0")
        self.refused(snapshots, len(sound))

    def test_chunks_swapped_dropped_or_doubled_are_found(self, snapshots: Snapshots) -> None:
        path = snapshots.write(MARK, [b"a" * 10, b"b" * 10, b"c" * 10]).path
        sound = path.read_bytes()
        first = 40 + len(MARK.meta) + 4
        head, parts, end = sound[:first], [sound[at : at + 18] for at in range(first, len(sound) - 8, 18)], -8
        for order, wrong in (((0, 2, 1), 1), ((0, 1), 2), ((0, 1, 1, 2), 2), ((1, 0, 2), 0), ((), 0)):
            path.write_bytes(head + b"".join(parts[place] for place in order) + sound[end:])
            self.refused(snapshots, first + 18 * wrong)

    def test_another_clusters_snapshot_is_refused(self, snapshots: Snapshots, tmp_path: Path) -> None:
        snapshots.write(MARK, CHUNKS)
        other = open_snapshots(tmp_path, cluster_id=0x2A)
        assert "belongs to cluster 1, not to 2a" in str(self.refused(other, 16))

    def test_another_snapshots_content_is_refused(self, snapshots: Snapshots) -> None:
        for different in (mark(8), SnapshotMark(7, 3, b"others")):
            snapshots.write(different, CHUNKS).path.rename(snapshots.path(MARK))
            self.refused(snapshots, 24)

    def test_another_format_is_refused(self, snapshots: Snapshots) -> None:
        path = snapshots.write(MARK, CHUNKS).path
        sound = path.read_bytes()
        path.write_bytes(sound[:8] + b"\2" + sound[9:])
        assert "snapshot format 2, and this version reads format 1" in str(self.refused(snapshots, 8))

    def test_a_file_that_is_not_there_or_cannot_be_read_is_said(
        self, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(UnreadableLog, match="no such file"):
            snapshots.verify(MARK)
        snapshots.write(MARK, CHUNKS)

        def refuse(path: Path, *_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(UnreadableLog, match="the disk may be failing"):
            snapshots.verify(MARK)


class TestReceiving:
    @pytest.fixture
    def content(self, tmp_path: Path) -> bytes:
        return open_snapshots(tmp_path / "sender").write(MARK, CHUNKS).path.read_bytes()

    def test_a_file_that_is_read_piece_by_piece_arrives_as_it_was(self, tmp_path: Path) -> None:
        ours, theirs = open_snapshots(tmp_path / "a"), open_snapshots(tmp_path / "b", fsync=True)
        ours.write(MARK, CHUNKS)
        sink = theirs.begin(MARK)
        with ours.open(MARK) as reader:
            ours.path(MARK).unlink()  # purged while it is sent
            while sink.offset < reader.size:
                sink.write(sink.offset, reader.read(sink.offset, 100))
        assert theirs.files() == []
        file = sink.finish()
        sink.abort()
        assert theirs.files() == [file]
        assert list(theirs.chunks(MARK)) == CHUNKS
        assert names(tmp_path / "b") == [file.path.name]

    def test_pieces_sent_again_or_too_early_change_nothing(
        self, snapshots: Snapshots, content: bytes
    ) -> None:
        sink = snapshots.begin(MARK)
        assert sink.write(0, content[:50]) == 50
        assert sink.write(60, content[60:]) == 50
        assert sink.write(0, content[:50]) == sink.write(10, content[10:20]) == 50
        assert sink.write(40, content[40:70]) == sink.offset == 70
        assert sink.write(70, content[70:]) == len(content)
        sink.finish()
        assert list(snapshots.chunks(MARK)) == CHUNKS

    def test_what_arrived_damaged_or_cut_or_is_another_is_removed(
        self, snapshots: Snapshots, content: bytes, tmp_path: Path
    ) -> None:
        flipped = content[:200] + bytes([content[200] ^ 1]) + content[201:]
        for wrong in (flipped, content[:-1], b""):
            sink = snapshots.begin(MARK)
            sink.write(0, wrong)
            with pytest.raises(UnusableSnapshot):
                sink.finish()
        sink = snapshots.begin(mark(9))
        sink.write(0, content)
        with pytest.raises(UnusableSnapshot, match="it is the snapshot of entry 7"):
            sink.finish()
        assert names(tmp_path) == []

    def test_an_aborted_one_is_removed(self, snapshots: Snapshots, content: bytes, tmp_path: Path) -> None:
        sink = snapshots.begin(MARK)
        sink.write(0, content[:100])
        sink.abort()
        sink.abort()
        assert names(tmp_path) == []

    @pytest.mark.parametrize("name", ["pwrite", "fdatasync", "fsync"])
    def test_a_failing_disk_ends_it(
        self, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        snapshots = open_snapshots(tmp_path, fsync=True)
        sink = snapshots.begin(MARK)
        Calls(monkeypatch, name, errno.ENOSPC)

        def receive() -> None:
            sink.write(0, content)
            sink.finish()

        with pytest.raises(SnapshotNotWritten, match="No space left"):
            receive()
        assert names(tmp_path) == []


class TestRemoving:
    def test_the_oldest_go_and_the_newest_stay(self, snapshots: Snapshots) -> None:
        for index in (1, 2, 3, 4):
            snapshots.write(mark(index), [])
        assert snapshots.purge(0, mark(4)) == snapshots.purge(4, mark(4)) == []
        assert snapshots.purge(3, mark(4)) == [snapshots.path(mark(1))]
        assert len(snapshots.purge(1, mark(4))) == 2
        assert [file.index for file in snapshots.files()] == [4]

    def test_what_the_log_does_not_mark_yet_displaces_nothing(self, snapshots: Snapshots) -> None:
        for index in (1, 2, 3):
            snapshots.write(mark(index), [])
        assert snapshots.purge(1, mark(2)) == [snapshots.path(mark(1))]
        assert [file.index for file in snapshots.files()] == [3, 2]

    def test_what_a_crash_left_is_removed(self, snapshots: Snapshots, tmp_path: Path) -> None:
        for index in (1, 2):
            snapshots.write(mark(index), [])
        for name in ("x.snap.tmp", "0000000000000001-0000000000000009.snap.part"):
            (tmp_path / "snap" / name).write_bytes(b"half")
        (tmp_path / "snap" / "notes.txt").write_text("somebody's")
        removed = snapshots.remove_leftovers([mark(1)])
        assert len(removed) == 3
        assert names(tmp_path) == ["0000000000000001-0000000000000001.snap", "notes.txt"]

    def test_a_directory_that_is_not_there_holds_nothing(self, snapshots: Snapshots, tmp_path: Path) -> None:
        assert snapshots.remove_leftovers([]) == snapshots.purge(1, mark(1)) == []
        assert not (tmp_path / "snap").exists()


def test_what_is_written_and_received_is_counted(tmp_path: Path) -> None:
    ours, theirs = (open_snapshots(tmp_path / name, fsync=True) for name in ("a", "b"))
    data = ours.write(MARK, CHUNKS).path.read_bytes()
    sink = theirs.begin(MARK)
    sink.write(0, data)
    sink.finish()
    assert [sum(each.measures.fsyncs.counts) for each in (ours, theirs)] == [1, 1]
    assert [sum(each.measures.saves.counts) for each in (ours, theirs)] == [1, 0]
