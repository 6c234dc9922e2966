"""The writer's thread: groups, order, limits, and what happens when the disk fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import Record, Wal, WalWriter, WriteFailed, WriterOverloaded, WriterStopped

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
