"""CPU and memory of processes while a load runs.

A thread reads the counters every tenth of a second; afterwards the counters at any moment between are found by
interpolation, because a load generator tells the window that it measured only when it has ended.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

INTERVAL = 0.1  # s


@dataclass(frozen=True, slots=True)
class Sample:
    """``at`` on the monotonic clock; CPU seconds (user + system) since their start and bytes, of all processes."""

    at: float
    cpu: float
    memory: int


def cpu_between(samples: Sequence[Sample], began: float, ended: float) -> float:
    """CPU seconds used from ``began`` to ``ended``."""
    return _cpu_at(samples, ended) - _cpu_at(samples, began)


def memory_between(samples: Sequence[Sample], began: float, ended: float) -> int:
    """The largest memory in use from ``began`` to ``ended``, in bytes."""
    within = [sample.memory for sample in samples if began <= sample.at <= ended]
    return max(within or [sample.memory for sample in samples[-1:]], default=0)


def _cpu_at(samples: Sequence[Sample], at: float) -> float:
    position = bisect_right(samples, at, key=lambda sample: sample.at)
    if position == 0:
        return samples[0].cpu if samples else 0.0
    before = samples[position - 1]
    if position == len(samples):
        return before.cpu
    after = samples[position]
    share = (at - before.at) / (after.at - before.at) if after.at > before.at else 0.0
    return before.cpu + share * (after.cpu - before.cpu)


class Sampler:
    """Samples the processes ``pids`` and their children, from ``with`` to the end of its block."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._processes: list[psutil.Process] = []
        self._last_cpu: dict[int, float] = {}  # a process that has ended keeps what it used
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._processes = list(_with_children(self._pids))
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._take()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._take()

    def _take(self) -> None:
        memory = 0
        for process in self._processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue
            self._last_cpu[process.pid] = times.user + times.system
        self.samples.append(Sample(time.monotonic(), sum(self._last_cpu.values()), memory))


def _with_children(pids: Sequence[int]) -> Iterable[psutil.Process]:
    for pid in pids:
        try:
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)
        except psutil.Error:
            continue
