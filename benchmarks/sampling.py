"""CPU and memory of groups of processes (a node each) while a load runs.

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
    """``at`` on the monotonic clock; for each group: CPU seconds (user + system) since their start, and bytes."""

    at: float
    cpu: tuple[float, ...]
    memory: tuple[int, ...]


def cpu_between(samples: Sequence[Sample], began: float, ended: float) -> tuple[float, ...]:
    """CPU seconds that each group used from ``began`` to ``ended``."""
    before, after = _cpu_at(samples, began), _cpu_at(samples, ended)
    return tuple(later - earlier for earlier, later in zip(before, after, strict=True))


def memory_between(samples: Sequence[Sample], began: float, ended: float) -> tuple[int, ...]:
    """The most that each group held from ``began`` to ``ended``, in bytes."""
    within = [sample.memory for sample in samples if began <= sample.at <= ended]
    return tuple(
        max(each) for each in zip(*(within or [sample.memory for sample in samples[-1:]]), strict=True)
    )


def _cpu_at(samples: Sequence[Sample], at: float) -> tuple[float, ...]:
    position = bisect_right(samples, at, key=lambda sample: sample.at)
    if position == 0:
        return samples[0].cpu if samples else ()
    before = samples[position - 1]
    if position == len(samples):
        return before.cpu
    after = samples[position]
    share = (at - before.at) / (after.at - before.at) if after.at > before.at else 0.0
    return tuple(
        earlier + share * (later - earlier) for earlier, later in zip(before.cpu, after.cpu, strict=True)
    )


class Sampler:
    """Samples each group of processes (``pids``) and their children, from ``with`` to the end of its block."""

    def __init__(self, groups: Iterable[Sequence[int]]) -> None:
        self._groups = [list(pids) for pids in groups]
        self._processes: list[list[psutil.Process]] = []
        self._last_cpu: list[dict[int, float]] = []  # a process that has ended keeps what it used
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._processes = [list(_with_children(pids)) for pids in self._groups]
        self._last_cpu = [{} for _ in self._groups]
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
        memory = tuple(map(self._read, self._processes, self._last_cpu))
        self.samples.append(
            Sample(time.monotonic(), tuple(sum(used.values()) for used in self._last_cpu), memory)
        )

    @staticmethod
    def _read(processes: Sequence[psutil.Process], last_cpu: dict[int, float]) -> int:
        """Notes the CPU that each has used; the memory of all."""
        memory = 0
        for process in processes:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.Error:
                continue
            last_cpu[process.pid] = times.user + times.system
        return memory


def cpu_used(pids: Iterable[int]) -> float:
    """CPU seconds that the processes and their children have used since their start."""
    used = 0.0
    for process in _with_children(pids):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        used += times.user + times.system
    return used


def _with_children(pids: Iterable[int]) -> Iterable[psutil.Process]:
    for pid in pids:
        try:
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)
        except psutil.Error:
            continue
