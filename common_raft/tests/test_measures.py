"""Counters, each by itself: what is counted is what is shown."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common_raft.measures import RATE_MESSAGES, Histogram, Latency, Rate, doubling
from common_raft.web.golang import json_number

SECONDS = st.floats(min_value=0, max_value=1e6, allow_nan=False)


def test_buckets_double_exactly_as_those_of_etcd_do() -> None:
    assert [repr(bound) for bound in doubling(0.001, 14)] == [
        "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024", "2.048",
        "4.096", "8.192",
    ]  # fmt: skip


@given(st.lists(SECONDS))
def test_each_observation_is_in_the_first_bucket_that_holds_it(observed: list[float]) -> None:
    histogram = Histogram(doubling(0.001, 14))
    for value in observed:
        histogram.observe(value)
    for place, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in observed)
    assert sum(histogram.counts) == len(observed)
    assert histogram.sum == pytest.approx(sum(observed))


@given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1))
def test_a_latency_is_what_the_observations_say(observed: list[float]) -> None:
    latency = Latency()
    for seconds in observed:
        latency.observe(seconds)
    mean = sum(observed) / len(observed)
    assert (latency.succeeded, latency.current) == (len(observed), observed[-1])
    assert (latency.minimum, latency.maximum) == (min(observed), max(observed))
    assert latency.average == pytest.approx(mean)
    variance = sum((each - mean) ** 2 for each in observed) / len(observed)
    assert latency.deviation == pytest.approx(math.sqrt(variance), abs=1e-3)


def test_a_latency_without_observations_is_nothing() -> None:
    latency = Latency()
    assert (latency.average, latency.deviation, latency.minimum) == (0, 0, None)


def test_a_rate_is_that_of_the_last_messages() -> None:
    rate = Rate()
    for number in range(3 * RATE_MESSAGES):
        rate.add(number * 0.01, 1000 if number < 10 else 50)
    last = (3 * RATE_MESSAGES - 1) * 0.01
    messages, size = rate.per_second(last + 1.0)
    assert messages == pytest.approx(RATE_MESSAGES / ((RATE_MESSAGES - 1) * 0.01))
    assert size == pytest.approx(50 * messages)


def test_a_rate_ends_a_second_after_the_last_message_and_needs_two() -> None:
    rate = Rate()
    assert rate.per_second(0) == (0, 0)
    rate.add(5, 10)
    assert rate.per_second(5) == (0, 0)
    rate.add(5.5, 10)
    assert rate.per_second(6.5) == (4, 40)
    assert rate.per_second(6.6) == (0, 0)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (83.2837284342282, "83.2837284342282"),
        (0.00011, "0.00011"),
        (0.0000011, "0.0000011"),
        (1.5e-7, "1.5e-7"),
        (1e-12, "1e-12"),
        (float(1 << 63), "9223372036854776000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (2.5e300, "2.5e+300"),
    ],
)
def test_numbers_are_written_as_go_writes_them(number: float, text: str) -> None:
    assert json_number(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_written_is_the_number_that_is_read(number: float) -> None:
    assert float(json.loads(json_number(number))) == number
