"""The writer in a loop: what it leaves to the kernel, what to its thread, and that the log is never both's."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from common_raft.core.messages import Entry, EntryKind, HardState
from common_raft.storage import SnapshotMark, Wal, WriteFailed, WriterStopped
from common_raft.storage.loop_writer import LoopWriter
from common_raft.storage.ring import SyncRing

WAIT = 10.0


def entry(size: int = 1) -> Entry:
    return Entry(1, EntryKind.COMMANDS, bytes(size))


class ManualRing(SyncRing):
    """Ends a sync when the test says so, and as it says."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self._ended = None
        self.begun = 0

    def begin(self, descriptor: int) -> None:
        os.fstat(descriptor)  # it is open
        self.begun += 1

    def end(self, result: int = 0) -> None:
        self._ended = result
        os.eventfd_write(self.descriptor, 1)

    def take(self) -> int | None:
        os.eventfd_read(self.descriptor)
        ended, self._ended = self._ended, None
        return ended


class Driver:
    """Hears what the writer tells, and where."""

    def __init__(self, wal: Wal, ring: SyncRing) -> None:
        self.told: list[tuple[str, object]] = []
        self.heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.wal = wal
        self.writer = LoopWriter(
            wal,
            ring,
            lambda number: self._from_thread("thread", number),
            lambda error: self._from_thread("thread failed", error),
            durable=lambda number: self._hear("loop", number),
            failed=lambda error: self._hear("loop failed", error),
        )
        self.writer.start()

    def _hear(self, where: str, what: object) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.told.append((where, what))
        self.heard.set()

    def _from_thread(self, where: str, what: object) -> None:
        assert threading.current_thread() is not threading.main_thread()
        self._loop.call_soon_threadsafe(self._hear, where, what)

    async def hears(self, count: int) -> list[tuple[str, object]]:
        while len(self.told) < count:
            self.heard.clear()
            await asyncio.wait_for(self.heard.wait(), WAIT)
        return self.told

    def submit(self, number: int, *sizes: int) -> None:
        first = sum(1 for _ in self._submitted)
        self._submitted += sizes
        self.writer.submit(number, HardState(1, 1, 0), first + 1, [entry(size) for size in sizes])

    _submitted: tuple[int, ...] = ()


Scenario = Callable[[Driver, ManualRing], Awaitable[None]]


def run(directory: Path, scenario: Scenario, segment_bytes: int = 1 << 20) -> None:
    """The scenario, then an orderly end, and the log read back: it holds all that was submitted, unless it failed."""

    async def whole() -> None:
        wal = Wal.open(directory, cluster_id=1, node_id=1, segment_bytes=segment_bytes)
        ring = ManualRing()
        driver = Driver(wal, ring)
        await scenario(driver, ring)
        await asyncio.wait_for(driver.writer.leave_loop(), WAIT)
        driver.writer.close()
        wal.close()
        os.close(ring.descriptor)
        if not any("failed" in where for where, _ in driver.told):
            wal = Wal.open(directory, cluster_id=1, node_id=1, segment_bytes=segment_bytes)
            assert [len(each.data) for each in wal.recovered.entries] == list(driver._submitted)
            wal.close()

    asyncio.run(whole())


def test_a_small_group_is_written_in_the_loop_and_durable_when_the_kernel_says_so(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, 100)
        assert (ring.begun, driver.wal.last_index, driver.told) == (1, 1, [])
        assert driver.writer.backlog[0] == 1
        ring.end()
        assert await driver.hears(1) == [("loop", 1)]
        assert driver.writer.backlog == (0, 0)

    run(tmp_path, scenario)


def test_what_comes_during_a_sync_is_the_next_group(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, 1)
        driver.submit(2, 2)
        driver.submit(3, 3, 4)
        assert (ring.begun, driver.wal.last_index) == (1, 1)
        ring.end()
        await driver.hears(1)
        assert (ring.begun, driver.wal.last_index) == (2, 4)
        ring.end()
        assert await driver.hears(2) == [("loop", 1), ("loop", 3)]

    run(tmp_path, scenario)


def test_a_large_group_is_the_threads_and_so_is_all_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    sync = os.fdatasync
    monkeypatch.setattr("os.fdatasync", lambda descriptor: (gate.wait(WAIT), sync(descriptor)))

    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, LoopWriter.MOST_BYTES)
        driver.submit(2, 1)
        assert ring.begun == 0
        gate.set()
        told = await driver.hears(1)
        while told[-1][1] != 2:
            told = await driver.hears(len(told) + 1)
        assert {where for where, _ in told} == {"thread"}
        while driver.writer.backlog != (0, 0):  # the thread is just about to say so
            await asyncio.sleep(0.001)
        driver.submit(3, 1)
        assert ring.begun == 1
        ring.end()
        assert (await driver.hears(len(told) + 1))[-1] == ("loop", 3)

    run(tmp_path, scenario)


def test_what_gathers_and_becomes_large_goes_to_the_thread(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, 1)
        driver.submit(2, LoopWriter.MOST_BYTES // 2)
        driver.submit(3, LoopWriter.MOST_BYTES // 2)
        ring.end()
        told = await driver.hears(2)
        while told[-1][1] != 3:
            told = await driver.hears(len(told) + 1)
        assert ring.begun == 1
        assert ("loop", 1) in told
        assert told[-1] == ("thread", 3)

    run(tmp_path, scenario)


def test_a_segment_that_is_full_is_ended_by_the_thread(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        for number in range(1, 21):
            driver.submit(number, 200)
            if driver.writer._group:
                ring.end()
            await driver.hears(number)
            while driver.writer.backlog != (0, 0):
                await asyncio.sleep(0.001)
        assert 0 < [where for where, _ in driver.told].count("thread") < 10

    run(tmp_path, scenario, segment_bytes=1024)
    assert len(list(tmp_path.glob("*.wal"))) > 3


def test_a_slow_disk_is_the_threads(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.wal.last_sync = 2 * LoopWriter.SLOW_SECONDS
        driver.submit(1, 1)
        assert await driver.hears(1) == [("thread", 1)]
        assert ring.begun == 0

    run(tmp_path, scenario)


def test_a_mark_that_comes_during_a_sync_follows_it_in_the_thread(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        mark = SnapshotMark(1, 1, b"")
        driver.wal.snapshots.path(mark).parent.mkdir(exist_ok=True)
        driver.wal.snapshots.path(mark).write_bytes(b"")
        done = threading.Event()
        driver.submit(1, 1)
        driver.writer.mark_snapshot(mark, done.set)
        driver.submit(2, 1)
        assert not done.is_set()
        ring.end()
        told = await driver.hears(2)
        assert done.is_set()
        assert told == [("loop", 1), ("thread", 2)]

    run(tmp_path, scenario)
    wal = Wal.open(tmp_path, cluster_id=1, node_id=1)
    assert wal.recovered.unusable  # it is marked, and the file is empty
    wal.close()


@pytest.mark.parametrize("following", [(), (2, 3)])
def test_a_sync_that_fails_is_final(tmp_path: Path, following: tuple[int, ...]) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, 1)
        for number in following:
            driver.submit(number, 1)
        ring.end(-5)
        [(where, error)] = await driver.hears(1)
        assert where == "loop failed"
        assert isinstance(error, WriteFailed)
        assert "Input/output error" in str(error)
        assert driver.wal.last_index == 1  # nothing follows
        with pytest.raises(WriterStopped):
            driver.submit(4, 1)

    run(tmp_path, scenario)


def test_an_order_that_the_kernel_does_not_take_is_final(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        ring.begin = lambda _: (_ for _ in ()).throw(SystemError("no"))  # type: ignore[method-assign]
        with pytest.raises(SystemError):
            driver.submit(1, 1)
        driver.told.append(("failed", None))
        with pytest.raises(WriterStopped):
            driver.submit(2, 1)

    run(tmp_path, scenario)


def test_leaving_waits_for_what_is_under_way_and_what_follows(tmp_path: Path) -> None:
    async def scenario(driver: Driver, ring: ManualRing) -> None:
        driver.submit(1, 1)
        driver.submit(2, 1)
        leaving = asyncio.ensure_future(driver.writer.leave_loop())
        await asyncio.sleep(0)
        ring.end()
        await driver.hears(1)
        assert not leaving.done()
        ring.end()
        await asyncio.wait_for(leaving, WAIT)
        assert driver.told == [("loop", 1), ("loop", 2)]

    run(tmp_path, scenario)


@pytest.mark.skipif(SyncRing.open() is None, reason="no io_uring here")
class TestTheKernelsRing:
    def test_a_file_is_synced_and_the_loop_told(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            wal = Wal.open(tmp_path, cluster_id=1, node_id=1)
            ring = SyncRing.open()
            assert ring is not None
            driver = Driver(wal, ring)
            for number in range(1, 51):
                driver.submit(number, number)
                if number % 3:
                    await driver.hears(len(driver.told) + 1)
            await driver.writer.leave_loop()
            driver.writer.close()
            wal.close()
            assert driver.told[-1] == ("loop", 50)
            wal = Wal.open(tmp_path, cluster_id=1, node_id=1)
            assert len(wal.recovered.entries) == 50
            wal.close()

        asyncio.run(scenario())

    def test_an_error_is_its_number_with_a_minus_sign(self) -> None:
        async def scenario() -> int:
            ring = SyncRing.open()
            assert ring is not None
            ended = asyncio.get_running_loop().create_future()

            def look() -> None:
                result = ring.take()
                if result is not None:
                    ended.set_result(result)

            asyncio.get_running_loop().add_reader(ring.descriptor, look)
            read, write = os.pipe()
            ring.begin(read)  # a pipe cannot be synced
            result: int = await asyncio.wait_for(ended, WAIT)
            os.close(read)
            os.close(write)
            return result

        assert asyncio.run(scenario()) == -22


def test_without_the_library_there_is_no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common_raft.storage.ring.Context", None)
    assert SyncRing.open() is None


def test_a_kernel_that_refuses_has_no_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise SystemError(1, "Operation not permitted")

    monkeypatch.setattr("common_raft.storage.ring.Context", refuse)
    assert SyncRing.open() is None
