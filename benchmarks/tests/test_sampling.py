import os
import time

import pytest

from benchmarks.sampling import Sample, Sampler, cpu_between, memory_between

SAMPLES = [Sample(0.0, 1.0, 10), Sample(1.0, 2.0, 30), Sample(2.0, 4.0, 20)]


def test_cpu_of_a_window_is_interpolated_between_samples():
    assert cpu_between(SAMPLES, 0.0, 2.0) == 3.0
    assert cpu_between(SAMPLES, 0.5, 1.5) == pytest.approx(0.5 + 1.0)
    assert cpu_between(SAMPLES, -1.0, 9.0) == 3.0
    assert cpu_between([], 0.0, 1.0) == 0.0


def test_memory_of_a_window_is_the_most_in_it():
    assert memory_between(SAMPLES, 0.0, 2.0) == 30
    assert memory_between(SAMPLES, 1.5, 2.0) == 20
    assert memory_between(SAMPLES, 1.2, 1.3) == 20
    assert memory_between([], 0.0, 1.0) == 0


def test_a_busy_process_is_seen():
    began = time.monotonic()
    with Sampler([os.getpid()]) as sampler:
        while time.process_time() and time.monotonic() < began + 0.3:
            pass
    assert cpu_between(sampler.samples, began, time.monotonic()) > 0.05
    assert memory_between(sampler.samples, began, time.monotonic()) > 1_000_000


def test_a_process_that_is_gone_counts_nothing():
    with Sampler([2**22 + 1]) as sampler:
        pass
    assert sampler.samples[-1].cpu == 0
