"""The writer's thread: groups, order, limits, and what happens when the disk fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import (
    Record,
    SnapshotMark,
    Wal,
    WalWriter,
    WriteFailed,
    WriterOverloaded,
    WriterStopped,
)

WAIT = 10.0


def entry(size: int = 1) -> Entry:
    return Entry(1, EntryKind.COMMANDS, bytes(size))


class SlowLog:
    """A log whose writes wait until they are let through; it fits the writer's use of ``Wal``."""

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.last_sync = 0.0

    def append(self, batch: Sequence[Record]) -> None:
        self.batches.append(list(batch))
        self.entered.release()
        assert self.gate.acquire(timeout=WAIT)
        if self.failure is not None:
            raise self.failure


class Driver:
    """Hears what the writer tells."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.durable: list[int] = []
        self.failures: list[BaseException] = []
        self.told = threading.Semaphore(0)
        self.writer = WalWriter(log, self.on_durable, self.on_failure)

    def on_durable(self, number: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self.durable.append(number)
        self.told.release()

    def on_failure(self, error: BaseException) -> None:
        self.failures.append(error)
        self.told.release()

    def wait(self) -> None:
        assert self.told.acquire(timeout=WAIT)


@pytest.fixture
def make() -> Iterator[Callable[[Any], Driver]]:
    drivers = []

    def driver(log: Any) -> Driver:
        drivers.append(Driver(log))
        return drivers[-1]

    yield driver
    for one in drivers:
        if isinstance(one.log, SlowLog):
            one.log.gate.release(1000)
        one.writer.close()


def test_what_is_submitted_during_a_write_becomes_one_group(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    driver = make(log)
    driver.writer.start()
    driver.writer.submit(1, HardState(1, 1, 0), 1, [entry()])
    assert log.entered.acquire(timeout=WAIT)
    for number in range(2, 6):
        driver.writer.submit(number, None, number, [entry()])
    assert driver.durable == []
    log.gate.release(2)
    driver.wait()
    driver.wait()
    assert driver.durable == [1, 5]
    assert [[first for _, first, _ in batch] for batch in log.batches] == [[1], [2, 3, 4, 5]]


def test_what_was_submitted_before_the_start_is_written_then(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    driver = make(log)
    driver.writer.submit(1, None, 1, [entry()])
    driver.writer.submit(2, None, 2, [entry()])
    log.gate.release()
    driver.writer.start()
    driver.wait()
    assert driver.durable == [2]


def test_close_writes_what_is_queued(tmp_path: Path, make: Callable[[Any], Driver]) -> None:
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    driver.writer.start()
    for number in range(1, 101):
        driver.writer.submit(number, None, number, [entry(100)])
    driver.writer.close()
    assert driver.durable == sorted(set(driver.durable))
    assert driver.durable[-1] == 100
    assert driver.writer.backlog == (0, 0)
    wal.close()
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1)
    assert len(wal.recovered.entries) == 100
    wal.close()


def test_a_ready_with_nothing_to_write_takes_its_turn_without_a_write(
    tmp_path: Path, make: Callable[[Any], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    monkeypatch.setattr("os.fdatasync", lambda _: pytest.fail("nothing is to be synced"))
    driver.writer.start()
    driver.writer.submit(7, None, 1, [])
    driver.wait()
    assert (driver.durable, driver.failures) == ([7], [])
    driver.writer.close()
    wal.close()


def test_a_full_queue_says_so_before_and_refuses_after(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    driver = make(log)
    writer = driver.writer
    writer.start()
    assert writer.has_room
    writer.submit(1, None, 1, [entry(WalWriter.MAX_BYTES)])
    assert log.entered.acquire(timeout=WAIT)
    assert not writer.has_room  # what is being written counts until it is durable
    with pytest.raises(WriterOverloaded, match="hold back until has_room"):
        writer.submit(2, None, 2, [entry()])
    log.gate.release()
    driver.wait()
    assert writer.has_room
    for number in range(2, 2 + WalWriter.MAX_ITEMS):
        writer.submit(number, None, 1, [])
    assert not writer.has_room
    assert writer.backlog == (WalWriter.MAX_ITEMS, 0)
    with pytest.raises(WriterOverloaded, match="4096 writes"):
        writer.submit(9999, None, 1, [])


def test_a_failed_write_is_told_once_and_nothing_is_taken_after_it(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    log.failure = WriteFailed(Path("segment"), OSError("broken"))
    driver = make(log)
    driver.writer.start()
    driver.writer.submit(1, None, 1, [entry()])
    driver.writer.submit(2, None, 2, [entry()])
    log.gate.release(2)
    driver.wait()
    assert driver.failures == [log.failure]
    with pytest.raises(WriterStopped) as caught:
        driver.writer.submit(3, None, 3, [entry()])
    assert caught.value.__cause__ is log.failure
    driver.writer.close()
    assert driver.durable == []
    assert driver.failures == [log.failure]


def test_a_driver_that_fails_when_told_stops_the_writer_too(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    driver = make(log)
    driver.writer._on_durable = lambda number: (_ for _ in ()).throw(RuntimeError("the loop is closed"))
    driver.writer.start()
    driver.writer.submit(1, None, 1, [entry()])
    log.gate.release()
    driver.wait()
    assert [str(error) for error in driver.failures] == ["the loop is closed"]


def test_a_closed_writer_takes_nothing_and_may_be_closed_again(make: Callable[[Any], Driver]) -> None:
    driver = make(SlowLog())
    driver.writer.start()
    driver.writer.close()
    driver.writer.close()
    with pytest.raises(WriterStopped, match="start the node again"):
        driver.writer.submit(1, None, 1, [])


def test_a_writer_that_was_never_started_can_be_closed(make: Callable[[Any], Driver]) -> None:
    make(SlowLog()).writer.close()


class TestSnapshots:
    @pytest.fixture
    def wal(self, tmp_path: Path) -> Iterator[Wal]:
        wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=512, max_wals=1)
        yield wal
        wal.close()

    def snapshot(self, wal: Wal, index: int) -> SnapshotMark:
        mark = SnapshotMark(index, 1, b"")
        wal.snapshots.write(mark, [b"state"])
        return mark

    def reopened(self, wal: Wal, tmp_path: Path) -> Wal:
        wal.close()
        wal = Wal.open(tmp_path, cluster_id=1, node_id=1)
        wal.close()
        return wal

    def test_a_mark_takes_its_turn_and_what_it_stands_for_is_removed(
        self, wal: Wal, tmp_path: Path, make: Callable[[Any], Driver]
    ) -> None:
        driver = make(wal)
        for number in range(1, 21):
            driver.writer.submit(number, HardState(1, 1, number), number, [entry(100)])
        self.snapshot(wal, 20)
        told: list[tuple[int, list[int], bool]] = []

        def done() -> None:
            gone = not (tmp_path / f"{1:016x}-{1:016x}.wal").exists()
            told.append((len(told), list(driver.durable), gone))

        driver.writer.mark_snapshot(SnapshotMark(20, 1, b""), done)
        driver.writer.submit(21, None, 21, [entry()])
        driver.writer.start()
        driver.writer.close()
        assert driver.failures == []
        assert told == [(0, [21], True)]  # one group; the mark was durable before its Readies were confirmed
        assert driver.writer.backlog == (0, 0)
        recovered = self.reopened(wal, tmp_path).recovered
        assert recovered.snapshot == SnapshotMark(20, 1, b"")
        assert recovered.entries == [entry()]

    def test_a_mark_alone_confirms_no_ready(self, wal: Wal, make: Callable[[Any], Driver]) -> None:
        wal.append([(HardState(1, 1, 1), 1, [entry()])])
        driver = make(wal)
        told = threading.Event()
        driver.writer.mark_snapshot(self.snapshot(wal, 1), told.set)
        driver.writer.start()
        assert told.wait(WAIT)
        assert (driver.durable, driver.failures) == ([], [])

    def test_a_received_snapshot_and_what_follows_it_are_one_write(
        self, wal: Wal, tmp_path: Path, make: Callable[[Any], Driver]
    ) -> None:
        wal.append([(HardState(1, 1, 1), 1, [entry()])])
        driver = make(wal)
        mark = self.snapshot(wal, 50)
        driver.writer.submit(1, HardState(1, 1, 50), 51, [entry(7)], mark)
        driver.writer.start()
        driver.writer.close()
        assert driver.durable == [1]
        recovered = self.reopened(wal, tmp_path).recovered
        assert (recovered.snapshot, recovered.first_index, recovered.entries) == (mark, 51, [entry(7)])

    def test_a_mark_without_its_file_stops_the_writer(self, wal: Wal, make: Callable[[Any], Driver]) -> None:
        wal.append([(HardState(1, 1, 1), 1, [entry()])])
        driver = make(wal)
        driver.writer.mark_snapshot(SnapshotMark(1, 1, b""), lambda: pytest.fail("it was not marked"))
        driver.writer.start()
        driver.wait()
        assert "is not there" in str(driver.failures[0])
        with pytest.raises(WriterStopped):
            driver.writer.mark_snapshot(SnapshotMark(1, 1, b""), lambda: None)


def test_a_small_write_to_an_idle_quick_log_is_made_at_once(
    tmp_path: Path, make: Callable[[Any], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    driver.writer.start()
    threads: list[threading.Thread] = []
    monkeypatch.setattr("os.fdatasync", lambda _: threads.append(threading.current_thread()))
    wal.last_sync = 0.0002
    assert driver.writer.write_at_once(HardState(1, 1, 0), 1, [entry(100)])
    assert threads == [threading.main_thread()]
    assert wal.last_index == 1
    assert (driver.durable, driver.writer.backlog) == ([], (0, 0))
    driver.writer.close()
    wal.close()


def test_a_larger_write_is_left_to_the_thread(tmp_path: Path, make: Callable[[Any], Driver]) -> None:
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    driver.writer.start()
    assert not driver.writer.write_at_once(None, 1, [entry(1), entry(1), entry(1)])
    assert not driver.writer.write_at_once(None, 1, [entry(WalWriter.SMALL_BYTES)])
    assert wal.last_index == 0
    driver.writer.close()
    wal.close()


def test_a_slow_disk_is_left_to_the_thread_until_it_is_quick_again(
    tmp_path: Path, make: Callable[[Any], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    driver.writer.start()
    wal.last_sync = 0.5
    assert not driver.writer.write_at_once(None, 1, [entry()])
    monkeypatch.setattr("os.fdatasync", lambda _: None)
    driver.writer.submit(1, None, 1, [entry()])
    driver.wait()
    driver.writer.close()
    assert wal.last_sync < WalWriter.QUICK_SECONDS
    wal.close()


def test_nothing_is_written_at_once_while_the_thread_has_the_log(make: Callable[[Any], Driver]) -> None:
    log = SlowLog()
    driver = make(log)
    assert not driver.writer.write_at_once(None, 1, [entry()])  # before the start
    driver.writer.start()
    driver.writer.submit(1, None, 1, [entry()])
    assert log.entered.acquire(timeout=WAIT)
    assert not driver.writer.write_at_once(None, 2, [entry()])
    log.gate.release()
    driver.wait()
    driver.writer.close()
    assert not driver.writer.write_at_once(None, 2, [entry()])
    assert len(log.batches) == 1


def test_nothing_is_written_at_once_before_old_segments_are_gone(
    make: Callable[[Any], Driver],
) -> None:
    log = SlowLog()
    log.gate.release()
    purging = threading.Semaphore(0)
    log.purge = lambda _index: (purging.release(), log.gate.acquire(timeout=WAIT))  # type: ignore[attr-defined]
    driver = make(log)
    driver.writer.start()
    driver.writer.mark_snapshot(SnapshotMark(1, 1, b""), lambda: None)
    assert purging.acquire(timeout=WAIT)
    assert not driver.writer.write_at_once(None, 2, [entry()])


def test_a_failure_of_a_write_made_at_once_is_final(
    tmp_path: Path, make: Callable[[Any], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    wal = Wal.open(tmp_path, cluster_id=1, node_id=1, segment_bytes=65536)
    driver = make(wal)
    driver.writer.start()
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", fail)
        with pytest.raises(WriteFailed, match="Input/output error"):
            driver.writer.write_at_once(None, 1, [entry()])
    assert not driver.writer.write_at_once(None, 1, [entry()])
    with pytest.raises(WriterStopped):
        driver.writer.submit(1, None, 1, [entry()])
    driver.writer.close()
    wal.close()
