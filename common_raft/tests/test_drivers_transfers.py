"""A snapshot's way from a leader to a follower: pieces are lost, ends are started anew, files are bad."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from common_raft.core import Configuration, InstallSnapshot, Message, SnapshotMeta
from common_raft.drivers import transfers
from common_raft.drivers.marks import mark_of
from common_raft.drivers.transfers import MAX_SILENCES, PATIENCE_SECONDS, Receiving, Run, RunError, Sending
from common_raft.storage import SnapshotMark, Snapshots, StorageError
from common_raft.transport.messages import SnapshotAck, SnapshotChunk

LEADER, FOLLOWER = 1, 2
MARK = mark_of(SnapshotMeta(50, 3, Configuration((1, 2, 3))), b"the members")
NEWER = mark_of(SnapshotMeta(70, 3, Configuration((1, 2, 3))), b"the members")
STATE = [bytes([number]) * 100 for number in range(20)]
PIECE = 256


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "CHUNK_BYTES", PIECE)
    monkeypatch.setattr(transfers, "WINDOW_BYTES", 3 * PIECE)


class Core:
    def __init__(self, node: int) -> None:
        self.id, self.term, self.commit = node, 3, 0
        self.stepped: list[Message] = []
        self.reported: list[tuple[int, bool]] = []

    def step(self, message: Message) -> None:
        self.stepped.append(message)

    def report_snapshot(self, peer: int, ok: bool) -> None:
        self.reported.append((peer, ok))


class Ends:
    """Both ends, and what is on its way between them; what runs beside waits until it is let run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wire: deque[SnapshotChunk | SnapshotAck] = deque()
        self.beside: deque[tuple[Core, Callable[[], None]]] = deque()
        self.alters: Callable[[SnapshotChunk], SnapshotChunk] = lambda chunk: chunk
        self.passed: list[SnapshotChunk | SnapshotAck] = []
        self.now = 0.0
        self.leader, self.follower = Core(LEADER), Core(FOLLOWER)
        self.theirs = Snapshots(directory / "leader", cluster_id=7, fsync=False)
        self.ours = Snapshots(directory / "follower", cluster_id=7, fsync=False)
        self.sending = Sending(self.leader, self.theirs, self.wire.append, self.run_at(self.leader))
        self.receiving = self.follower_end()
        for mark in (MARK, NEWER):
            self.theirs.write(mark, STATE)

    def follower_end(self) -> Receiving:
        run = self.run_at(self.follower)
        return Receiving(self.follower, self.ours, self.wire.append, run, lambda: self.now)

    def run_at(self, core: Core) -> Run:
        def run(call: Callable[[], Any], done: Callable[[Any, RunError | None], None]) -> None:
            def both() -> None:
                try:
                    result = call()
                except StorageError as error:
                    done(None, error)
                else:
                    done(result, None)

            self.beside.append((core, both))

        return run

    def start(self, mark: SnapshotMark = MARK) -> None:
        self.sending.start(FOLLOWER, mark, self.now)

    def restart_follower(self) -> None:
        self.beside = deque((core, call) for core, call in self.beside if core is self.leader)
        self.receiving = self.follower_end()

    def steps(
        self, number: int, *, loses: Callable[[SnapshotChunk | SnapshotAck], bool] = lambda _: False
    ) -> None:
        for _ in range(number):
            if self.beside:
                self.beside.popleft()[1]()
            if self.wire:
                message = self.wire.popleft()
                self.passed.append(message)
                if loses(message):
                    continue
                if isinstance(message, SnapshotChunk):
                    self.receiving.take(self.alters(message))
                else:
                    self.sending.take(message, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.sending.tick(self.now)

    def in_flight(self) -> int:
        return sum(isinstance(message, SnapshotChunk) for message in self.wire)

    def check_arrived(self, mark: SnapshotMark = MARK) -> None:
        assert list(self.ours.chunks(mark)) == STATE
        meta = SnapshotMeta(mark.index, 3, Configuration((1, 2, 3)))
        assert self.follower.stepped[-1] == InstallSnapshot(FOLLOWER, LEADER, 3, meta)
        assert self.leader.reported[-1] == (FOLLOWER, True)
        assert self.receiving.received == mark


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


def test_a_snapshot_arrives_as_it_was_and_the_core_gets_it_once(ends: Ends) -> None:
    ends.start()
    for _ in range(200):
        ends.steps(1)
        assert ends.in_flight() <= 3
    ends.check_arrived()
    assert len(ends.follower.stepped) == len(ends.leader.reported) == 1
    assert not ends.wire
    assert not ends.beside


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_what_is_lost_is_sent_again(ends: Ends, loss: float) -> None:
    random = Random(1)
    ends.start()
    while (FOLLOWER, True) not in ends.leader.reported:
        ends.steps(20, loses=lambda _: random.random() < loss)
        ends.wait(PATIENCE_SECONDS)
        assert ends.now < 1000
    ends.check_arrived()


def test_the_sender_goes_on_from_what_a_follower_has_already(ends: Ends) -> None:
    ends.start()
    ends.steps(9)
    ends.wire.clear()
    ends.steps(5)  # what was taken is still written
    ends.wire.clear()
    ends.passed.clear()
    ends.sending.stop()
    ends.start()  # the leader's core has offered it again
    ends.steps(200)
    ends.check_arrived()
    sent = sum(len(message.data) for message in ends.passed if isinstance(message, SnapshotChunk))
    assert sent < ends.theirs.path(MARK).stat().st_size


def test_a_follower_that_was_started_anew_gets_all_of_it(ends: Ends) -> None:
    ends.start()
    ends.steps(12)
    ends.restart_follower()
    for _ in range(3):
        ends.steps(100)
        ends.wait(PATIENCE_SECONDS)
    ends.check_arrived()


def test_a_follower_that_stays_silent_is_given_up_and_said_to_be(ends: Ends) -> None:
    ends.start()
    for _ in range(MAX_SILENCES + 1):
        assert ends.leader.reported == []
        ends.steps(20, loses=lambda _: True)
        ends.wait(PATIENCE_SECONDS)
    assert ends.leader.reported == [(FOLLOWER, False)]
    ends.steps(20)
    ends.wait(100 * PATIENCE_SECONDS)
    assert len(ends.leader.reported) == 1


def test_a_newer_snapshot_takes_the_place_of_one_that_is_coming(ends: Ends) -> None:
    ends.start()
    ends.steps(8)
    ends.start(NEWER)
    ends.steps(200)
    ends.check_arrived(NEWER)
    assert ends.leader.reported == [(FOLLOWER, True)]
    assert [path.suffix for path in (ends.directory / "follower").iterdir()] == [".snap"]


def test_a_snapshot_is_awaited_while_it_comes_and_not_long_after_it_stopped_coming(ends: Ends) -> None:
    assert not ends.receiving.is_awaited
    ends.start()
    ends.steps(10)
    assert ends.receiving.is_awaited
    ends.now += PATIENCE_SECONDS
    assert not ends.receiving.is_awaited
    ends.sending.tick(ends.now)
    while ends.receiving._finishing is None:
        ends.steps(1)
    ends.now += PATIENCE_SECONDS
    assert ends.receiving.is_awaited  # it is being checked, which may take long
    ends.steps(10)
    ends.check_arrived()
    assert not ends.receiving.is_awaited


def test_what_the_log_holds_already_is_not_received(ends: Ends) -> None:
    ends.follower.commit = 50
    ends.start()
    ends.steps(10)
    assert ends.leader.reported == [(FOLLOWER, True)]
    assert len(ends.follower.stepped) == 1  # the core answers with how far it is
    assert not (ends.directory / "follower").exists()


def test_a_leader_that_is_none_any_more_is_not_listened_to(ends: Ends) -> None:
    ends.follower.term = 4
    ends.start()
    ends.steps(20)
    assert ends.follower.stepped == []
    assert not (ends.directory / "follower").exists()


def damaged(chunk: SnapshotChunk) -> SnapshotChunk:
    fields = [getattr(chunk, name) for name in chunk.__struct_fields__]
    return SnapshotChunk(*fields[:-1], bytes(len(chunk.data)))


def test_a_snapshot_that_arrives_damaged_is_refused_and_not_kept(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    ends.alters = lambda chunk: damaged(chunk) if chunk.offset >= 1000 else chunk
    ends.start()
    ends.steps(100)
    assert ends.leader.reported == [(FOLLOWER, False)]
    assert ends.follower.stepped == []
    assert list((ends.directory / "follower").iterdir()) == []
    assert "not usable, at offset" in caplog.text


def test_a_meta_that_is_none_is_refused(ends: Ends) -> None:
    nonsense = SnapshotMark(90, 3, b"\xc1")
    ends.theirs.write(nonsense, STATE)
    ends.start(nonsense)
    ends.steps(20)
    assert ends.leader.reported == [(FOLLOWER, False)]
    assert ends.follower.stepped == []


def test_a_disk_that_is_full_is_said_and_refuses(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common_raft.storage.snapshots.write_all", full)
    ends.start()
    ends.steps(20)
    assert ends.leader.reported == [(FOLLOWER, False)]
    assert "No space left" in next(m.cause for m in ends.passed if isinstance(m, SnapshotAck) and m.refused)


def test_a_file_that_is_gone_or_cut_off_is_reported(ends: Ends) -> None:
    ends.theirs.path(MARK).unlink()
    ends.start()
    assert ends.leader.reported == [(FOLLOWER, False)]
    ends.start(NEWER)
    ends.steps(4)
    with ends.theirs.path(NEWER).open("r+b") as file:
        file.truncate(600)
    ends.steps(50)
    assert ends.leader.reported == [(FOLLOWER, False)] * 2


def test_answers_about_another_snapshot_change_nothing(ends: Ends) -> None:
    ends.start()
    ends.sending.take(SnapshotAck(LEADER, FOLLOWER, 49, 3, 0, done=True), 0)
    ends.sending.take(SnapshotAck(LEADER, 3, 50, 3, 0, done=True), 0)
    assert ends.leader.reported == []
    ends.steps(200)
    ends.check_arrived()
