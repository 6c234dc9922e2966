"""A torn write is cut and reported; everything else that is wrong with a log is refused, and nothing changed.

The tests go through every offset of small logs.  What is asserted everywhere: content that was durable either comes
back as it was, or the log is refused with the place named.  It never comes back different.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import CorruptLog, Recovered, Wal
from common_raft.storage.records import (
    END,
    HEADER_FRAME,
    SECTOR,
    Frame,
    FrameEncoder,
    Kind,
    decode_header,
    read_frame,
)
from common_raft.storage.recovery import read_log

#: Data without long runs of one byte, the same at each run.
NOISE = random.Random(5).randbytes(1 << 14)


def entry(data: bytes) -> Entry:
    return Entry(3, EntryKind.COMMANDS, data)


def open_wal(directory: Path, segment_bytes: int = 4096) -> Wal:
    return Wal.open(directory, cluster_id=1, node_id=2, segment_bytes=segment_bytes, fsync=False)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.wal"))


def frames(path: Path) -> list[tuple[int, Frame]]:
    """All frames of a sound segment but its header, with their offsets."""
    data = path.read_bytes()
    header = read_frame(data, 0, 0, None)
    assert isinstance(header, Frame)
    salt, last, at = decode_header(header.payload).salt, header.sequence, header.end
    found = []
    while isinstance(frame := read_frame(data, at, salt, last), Frame):
        found.append((at, frame))
        at, last = frame.end, frame.sequence
    return found


def write_log(directory: Path, datas: list[bytes], segment_bytes: int = 4096) -> list[Entry]:
    """A log with one entry and one hard state a batch."""
    entries = [entry(data) for data in datas]
    wal = open_wal(directory, segment_bytes)
    for index, one in enumerate(entries, 1):
        wal.append([(HardState(3, 2, index - 1), index, [one])])
    wal.close()
    return entries


@dataclass
class Log:
    """A log of one segment, with its sound bytes at hand, so that each damage starts from them."""

    path: Path
    sound: bytes
    entries: list[Entry]
    frames: list[tuple[int, Frame]]

    @classmethod
    def of(cls, directory: Path, datas: list[bytes], segment_bytes: int = 4096) -> Log:
        entries = write_log(directory, datas, segment_bytes)
        (path,) = segments(directory)
        return cls(path, path.read_bytes(), entries, frames(path))

    @property
    def used(self) -> int:
        return self.frames[-1][1].end

    def survivors(self, damaged: bytes) -> int:
        """How many frames are still there, but for a part of END, before the first that is not."""
        damaged = damaged.ljust(len(self.sound), b"\0")
        whole = [damaged[at : f.end - len(END)] == self.sound[at : f.end - len(END)] for at, f in self.frames]
        return (*whole, False).index(False)

    def recover(self, damaged: bytes) -> Recovered:
        self.path.write_bytes(damaged)
        wal = open_wal(self.path.parent)
        wal.close()
        return wal.recovered

    def assert_cut(self, damaged: bytes) -> None:
        """``damaged`` is recovered up to the tear, reports it, goes on, and is sound from then on."""
        count = self.survivors(damaged)
        recovered = self.recover(damaged)
        assert recovered.entries == self.entries[:count]
        assert recovered.hard_state == (HardState(3, 2, count - 1) if count else HardState())
        begin = self.frames[count - 1][1].end if count else HEADER_FRAME
        rest = len(damaged[begin:].rstrip(b"\0"))
        if rest:
            assert recovered.torn is not None
            assert (recovered.torn.file, recovered.torn.offset) == (self.path, begin)
            assert recovered.torn.bytes_cut == rest
            assert f"{rest} bytes at offset {begin}" in str(recovered.torn)
        else:
            assert recovered.torn is None
        wal = open_wal(self.path.parent)
        assert wal.recovered.torn is None
        more = [entry(b"more"), entry(NOISE[:700])]
        wal.append([(None, count + 1, more[:1])])
        wal.append([(None, count + 2, more[1:])])
        wal.close()
        wal = open_wal(self.path.parent)
        wal.close()
        assert wal.recovered.entries == self.entries[:count] + more
        assert wal.recovered.torn is None

    def assert_refused(self, damaged: bytes, offset: int) -> None:
        self.path.write_bytes(damaged)
        with pytest.raises(CorruptLog) as caught:
            open_wal(self.path.parent)
        assert (caught.value.file, caught.value.offset) == (self.path, offset)
        assert f"{self.path}: damaged at offset {offset}: " in str(caught.value)
        assert self.path.read_bytes() == damaged


def without_sectors(log: Log, lost: set[int]) -> bytes:
    """The last frame's part of these sectors (numbers in the file) was never written."""
    begin, frame = log.frames[-1]
    damaged = bytearray(log.sound)
    for sector in lost:
        start, end = max(begin, sector * SECTOR), min(frame.end, (sector + 1) * SECTOR)
        damaged[start:end] = bytes(end - start)
    return bytes(damaged)


def last_sectors(log: Log) -> range:
    begin, frame = log.frames[-1]
    return range(begin // SECTOR, (frame.end - 1) // SECTOR + 1)


class TestTornTail:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Log:
        return Log.of(tmp_path, [b"one", b"", NOISE[:520], b"four" * 3, NOISE[:50]])

    def test_a_write_cut_at_any_byte_is_cut_off_with_zeros_behind_it(self, log: Log) -> None:
        for cut in range(HEADER_FRAME, log.used + 1):
            log.assert_cut(log.sound[:cut].ljust(len(log.sound), b"\0"))

    def test_a_write_cut_at_any_byte_is_cut_off_at_the_files_end(self, log: Log) -> None:
        for cut in range(HEADER_FRAME, log.used + 1):
            log.assert_cut(log.sound[:cut])

    def test_a_checksum_that_ends_with_zeros_may_be_cut_there(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [b"first"])
        wal = open_wal(tmp_path)
        encoder, segment = FrameEncoder(), wal._segment
        for number in itertools.count():
            batch = [(HardState(3, 2, 1), 2, [entry(b"%d" % number)])]
            if encoder.finish(encoder.encode_batch(batch, 2), segment.end, segment.salt)[-5] == 0:
                break
        wal.append(batch)
        wal.close()
        log = Log(log.path, log.path.read_bytes(), [*log.entries, *batch[0][2]], frames(log.path))
        for cut in range(log.used - 8, log.used + 1):
            log.assert_cut(log.sound[:cut])
            log.assert_cut(log.sound[:cut].ljust(len(log.sound), b"\0"))

    def test_a_segment_that_lost_its_header_is_refused(self, log: Log) -> None:
        for cut in range(HEADER_FRAME):
            log.assert_refused(log.sound[:cut], 0)
            log.assert_refused(log.sound[:cut].ljust(len(log.sound), b"\0"), 0)

    def test_sectors_of_the_last_frame_that_were_never_written_make_it_torn(self, tmp_path: Path) -> None:
        for shift in range(0, SECTOR, 8):
            log = Log.of(tmp_path / str(shift), [NOISE[: 300 + shift], NOISE[:1100]])
            sectors = last_sectors(log)
            assert len(sectors) >= 3
            for size in range(1, len(sectors) + 1):
                for lost in itertools.combinations(sectors, size):
                    log.assert_cut(without_sectors(log, set(lost)))

    def test_sectors_lost_from_a_write_that_was_also_cut_make_it_torn(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [NOISE[:333], NOISE[:1500]])
        begin, frame = log.frames[-1]
        for lost in last_sectors(log):
            damaged = without_sectors(log, {lost})
            for cut in range(begin, frame.end, 31):
                log.assert_cut(damaged[:cut])

    def test_a_torn_value_that_contains_a_log_is_still_a_torn_value(self, tmp_path: Path) -> None:
        inner = Log.of(tmp_path / "inner", [NOISE[:100]] * 5)
        for shift in range(0, SECTOR, 40):
            outer = Log.of(tmp_path / f"outer{shift}", [NOISE[: 200 + shift], inner.sound[: inner.used] * 2])
            for lost in last_sectors(outer):
                outer.assert_cut(without_sectors(outer, {lost}))

    def test_a_tear_in_a_later_segment_is_cut_too(self, tmp_path: Path) -> None:
        entries = write_log(tmp_path, [NOISE[:700]] * 3, 1024)
        last = segments(tmp_path)[-1]
        begin, frame = frames(last)[-1]
        last.write_bytes(last.read_bytes()[: frame.end - 20])
        wal = open_wal(tmp_path, 1024)
        wal.close()
        assert wal.recovered.entries == entries[:-1]
        assert wal.recovered.torn is not None
        assert (wal.recovered.torn.file, wal.recovered.torn.offset) == (last, begin)


def flips(byte: int) -> Iterator[int]:
    """Every change of one bit, of all bits, and to zero."""
    yield from (byte ^ 1 << bit for bit in range(8))
    yield byte ^ 0xFF
    if byte:
        yield 0


@pytest.mark.thorough
class TestFlippedBytes:
    def read(self, directory: Path) -> tuple[HardState, list[Entry]]:
        log = read_log(directory, 1, 2)
        assert log is not None
        return log.hard_state, log.entries

    def test_any_flipped_byte_is_refused_with_its_place_or_does_no_harm(self, tmp_path: Path) -> None:
        write_log(tmp_path, [NOISE[:90], NOISE[:70], NOISE[:200], NOISE[:40], NOISE[:600], b"end"], 512)
        sound = self.read(tmp_path)
        assert len(segments(tmp_path)) == 4
        for path in segments(tmp_path):
            data = path.read_bytes()
            places = [(0, HEADER_FRAME), *((at, frame.end) for at, frame in frames(path))]
            with path.open("r+b", buffering=0) as file:
                for at, end in places:
                    for offset in range(at, end):
                        for changed in flips(data[offset]):
                            self.change(file, offset, changed)
                            harmless = changed == 0 and offset == end - 1 and end == places[-1][1]
                            if harmless:  # a part of END that an interrupted write may lack
                                assert self.read(tmp_path) == sound
                                continue
                            with pytest.raises(CorruptLog) as caught:
                                self.read(tmp_path)
                            assert (caught.value.file, caught.value.offset) == (path, at)
                        self.change(file, offset, data[offset])
        assert self.read(tmp_path) == sound

    def change(self, file: object, offset: int, value: int) -> None:
        file.seek(offset)  # type: ignore[attr-defined]
        file.write(bytes([value]))  # type: ignore[attr-defined]

    def test_a_flipped_byte_behind_the_last_frame_does_no_harm(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [NOISE[:90]], 1024)
        for offset in (*range(log.used, log.used + 40), *range(log.used + 40, len(log.sound), 7)):
            for changed in (1, ord("R")):
                damaged = bytearray(log.sound)
                damaged[offset] = changed
                if self.is_cut_header(log, offset, changed) or offset // SECTOR > log.used // SECTOR:
                    assert log.recover(bytes(damaged)).entries == log.entries
                else:
                    log.assert_refused(bytes(damaged), log.used)

    def is_cut_header(self, log: Log, offset: int, changed: int) -> bool:
        return offset == log.used and changed == ord("R")

    def test_opening_a_log_with_a_flipped_byte_changes_nothing(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [NOISE[:90], NOISE[:700]])
        for at, frame in [(0, None), *log.frames]:
            for offset in range(at, frame.end - len(END) if frame else HEADER_FRAME, 3):
                damaged = bytearray(log.sound)
                damaged[offset] ^= 0x10
                log.assert_refused(bytes(damaged), at)

    def test_a_value_full_of_zeros_does_not_make_damage_look_like_a_tear(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [b"first", NOISE[:800] + bytes(2000) + NOISE[:800]])
        begin, frame = log.frames[-1]
        for offset in range(begin, frame.end - len(END), 29):
            damaged = bytearray(log.sound)
            damaged[offset] ^= 0x10
            log.assert_refused(bytes(damaged), begin)
        assert log.recover(log.sound).entries == log.entries

    def test_a_value_full_of_zeros_may_be_torn(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path, [b"first", NOISE[:800] + bytes(1000) + NOISE[:800]])
        begin, frame = log.frames[-1]
        for cut in range(begin, frame.end, 29):
            log.assert_cut(log.sound[:cut])
        for lost in last_sectors(log):
            damaged = without_sectors(log, {lost})
            if damaged != log.sound:
                log.assert_cut(damaged)


class TestFramesBehindTheDamage:
    """What would pass for a torn write is damage when anything was written after it."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Log:
        return Log.of(tmp_path, [NOISE[:300], NOISE[:1500], NOISE[:300], b"last"])

    def test_lost_sectors_before_a_sound_frame_are_refused(self, log: Log) -> None:
        begin, frame = log.frames[1]
        for sector in range(begin // SECTOR, frame.end // SECTOR):
            damaged = bytearray(log.sound)
            start = max(begin, sector * SECTOR)
            damaged[start : (sector + 1) * SECTOR] = bytes((sector + 1) * SECTOR - start)
            log.assert_refused(bytes(damaged), begin)

    def test_a_whole_frame_that_was_lost_before_a_sound_one_is_refused(self, log: Log) -> None:
        for begin, frame in log.frames[:-1]:
            damaged = bytearray(log.sound)
            damaged[begin : frame.end] = bytes(frame.end - begin)
            log.assert_refused(bytes(damaged), begin)

    def test_a_frame_without_its_end_before_a_sound_one_is_refused(self, log: Log) -> None:
        for begin, frame in log.frames[:-1]:
            for missing in range(1, 30):
                damaged = bytearray(log.sound)
                damaged[frame.end - missing : frame.end] = bytes(missing)
                log.assert_refused(bytes(damaged), begin)

    def test_frames_that_were_swapped_dropped_or_doubled_are_refused(self, tmp_path: Path) -> None:
        log = Log.of(tmp_path / "same", [NOISE[:100]] * 4)
        spans = [log.sound[at : frame.end] for at, frame in log.frames]
        starts = [at for at, _ in log.frames]
        head = log.sound[:HEADER_FRAME]
        for order, wrong in (([0, 2, 1, 3], 1), ([0, 2, 3], 1), ([0, 1, 1, 2, 3], 2), ([1, 0], 0), ([3], 0)):
            damaged = (head + b"".join(spans[place] for place in order)).ljust(len(log.sound), b"\0")
            log.assert_refused(damaged, starts[wrong])

    def test_a_tear_with_a_segment_behind_it_is_refused(self, tmp_path: Path) -> None:
        write_log(tmp_path, [NOISE[:700]] * 3, 1024)
        first = segments(tmp_path)[0]
        sound = first.read_bytes()
        (begin, frame), _ = frames(first)
        for cut in (begin, begin + 9, frame.end - 9, frame.end - 2):
            first.write_bytes(sound[:cut])
            with pytest.raises(CorruptLog) as caught:
                open_wal(tmp_path, 1024)
            assert (caught.value.file, caught.value.offset) == (first, begin)
            assert first.read_bytes() == sound[:cut]
        first.write_bytes(sound + b"\0\0\0\0more")
        with pytest.raises(CorruptLog, match="something behind the segment's seal"):
            open_wal(tmp_path, 1024)


class TestSegmentsOutOfOrder:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        write_log(tmp_path, [NOISE[:700]] * 5, 1024)
        assert len(segments(tmp_path)) == 5
        return tmp_path

    def refused(self, directory: Path, path: Path, reason: str) -> None:
        before = {file: file.read_bytes() for file in segments(directory)}
        with pytest.raises(CorruptLog, match=reason) as caught:
            open_wal(directory, 1024)
        assert caught.value.file == path
        assert {file: file.read_bytes() for file in segments(directory)} == before

    def test_a_missing_segment_is_refused(self, directory: Path) -> None:
        paths = segments(directory)
        for place, path in enumerate(paths[:-1]):
            data = path.read_bytes()
            path.unlink()
            self.refused(directory, paths[place + 1], f"segment {place + 1}, which should be there")
            path.write_bytes(data)

    def test_a_missing_last_segment_is_refused(self, directory: Path) -> None:
        paths = segments(directory)
        paths[-1].unlink()
        self.refused(directory, paths[-2], "segment 5, the next one, is missing")

    def test_a_log_of_which_no_segment_is_left_is_refused(self, directory: Path) -> None:
        for path in segments(directory):
            path.unlink()
        self.refused(directory, directory, "no segment is there")

    def test_swapped_segments_are_refused(self, directory: Path) -> None:
        paths = segments(directory)
        for one, other in itertools.combinations(paths, 2):
            spare = directory / "spare"
            for source, target in ((one, spare), (other, one), (spare, other)):
                source.rename(target)
            self.refused(directory, one, "its content is that of segment")
            for source, target in ((one, spare), (other, one), (spare, other)):
                source.rename(target)
        open_wal(directory).close()

    def test_a_segment_doubled_under_another_name_is_refused(self, directory: Path) -> None:
        paths = segments(directory)
        copy = directory / f"{6:016x}-{6:016x}.wal"
        copy.write_bytes(paths[2].read_bytes())
        self.refused(directory, copy, "its content is that of segment 3 from entry 3 on")
        copy = copy.rename(directory / f"{3:016x}-{9:016x}.wal")
        self.refused(directory, copy, "its content is that of segment 3")

    def test_a_segment_from_an_earlier_life_of_the_node_is_refused(
        self, directory: Path, tmp_path: Path
    ) -> None:
        earlier = tmp_path / "earlier"
        write_log(earlier, [NOISE[:700]] * 5, 1024)
        ours = segments(directory)
        for place, theirs in enumerate(segments(earlier)):
            sound = ours[place].read_bytes()
            ours[place].write_bytes(theirs.read_bytes())
            self.refused(directory, ours[max(place, 1)], "it does not belong to the same log")
            ours[place].write_bytes(sound)

    def test_an_empty_last_segment_is_refused(self, directory: Path) -> None:
        last = segments(directory)[-1]
        last.write_bytes(b"")
        self.refused(directory, last, "the header of the segment is wrong")


def test_a_seal_is_the_last_frame_of_every_segment_but_one(tmp_path: Path) -> None:
    write_log(tmp_path, [NOISE[:300]] * 9, 1024)
    *sealed, current = [frames(path)[-1][1].kind for path in segments(tmp_path)]
    assert set(sealed) == {Kind.SEAL}
    assert current is Kind.BATCH
