import os
import time

import pytest

from benchmarks.sampling import Sample, Sampler, cpu_between, cpu_used, memory_between

SAMPLES = [
    Sample(0.0, (1.0, 5.0), (10, 1)),
    Sample(1.0, (2.0, 5.0), (30, 2)),
    Sample(2.0, (4.0, 6.0), (20, 3)),
]


def test_cpu_of_a_window_is_interpolated_between_samples():
    assert cpu_between(SAMPLES, 0.0, 2.0) == (3.0, 1.0)
    assert cpu_between(SAMPLES, 0.5, 1.5) == pytest.approx((0.5 + 1.0, 0.5))
    assert cpu_between(SAMPLES, -1.0, 9.0) == (3.0, 1.0)
    assert cpu_between([], 0.0, 1.0) == ()


def test_memory_of_a_window_is_the_most_in_it():
    assert memory_between(SAMPLES, 0.0, 2.0) == (30, 3)
    assert memory_between(SAMPLES, 1.5, 2.0) == (20, 3)
    assert memory_between(SAMPLES, 1.2, 1.3) == (20, 3)
    assert memory_between([], 0.0, 1.0) == ()


def test_a_busy_process_is_seen_in_its_group():
    began = time.monotonic()
    with Sampler([[os.getpid()], [2**22 + 1]]) as sampler:
        while time.process_time() and time.monotonic() < began + 0.3:
            pass
    busy, gone = cpu_between(sampler.samples, began, time.monotonic())
    assert busy > 0.05
    assert gone == 0
    assert memory_between(sampler.samples, began, time.monotonic())[0] > 1_000_000


def test_processes_of_one_node_are_counted_together():
    with Sampler([[os.getpid(), os.getppid()], [os.getpid()]]) as sampler:
        pass
    both, alone = sampler.samples[-1].memory
    assert both > alone


def test_what_processes_have_used_is_their_sum_and_nothing_for_one_that_is_gone():
    assert cpu_used([os.getpid(), 2**22 + 1]) > 0
    assert cpu_used([2**22 + 1]) == 0
