"""A node that is behind takes in what the others have no faster than they can do without the processor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from common_raft.drivers import pace
from common_raft.drivers.pace import BYTES_PER_SECOND, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    return clock


def test_pieces_that_come_faster_are_put_off_and_their_work_counts(clock: Clock) -> None:
    flow = Pace()
    for _ in range(10):
        clock.now += 0.1  # of work
        flow.keep(BYTES_PER_SECOND)
    assert clock.now == pytest.approx(110)
    assert clock.slept == pytest.approx([0.9] * 10)


def test_who_is_slower_in_any_case_never_sleeps(clock: Clock) -> None:
    flow = Pace()
    for _ in range(10):
        clock.now += 1.5
        flow.keep(BYTES_PER_SECOND)
    assert clock.slept == []


def test_time_that_was_lost_is_not_made_up_for(clock: Clock) -> None:
    flow = Pace()
    clock.now += 60
    flow.keep(BYTES_PER_SECOND)
    flow.keep(BYTES_PER_SECOND)
    assert clock.slept == pytest.approx([1.0])
