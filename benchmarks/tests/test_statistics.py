import pytest

from benchmarks.statistics import Ratio, median, ratio, spread


def test_a_median_ignores_what_is_unknown():
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0]) == 2.5
    assert median([None]) is None
    assert median([]) is None


def test_a_spread_is_half_the_range_as_a_share_of_the_median():
    assert spread([90.0, 100.0, 110.0]) == pytest.approx(0.1)
    assert spread([7.0]) == 0
    assert spread([]) is None
    assert spread([0.0, 0.0]) is None


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians():
    # Round 2 was slow for both: the medians are 300 and 200, but the target was twice as fast in each round.
    assert ratio([400.0, 20.0, 300.0], [200.0, 10.0, 150.0]) == Ratio(2.0, 2.0, 2.0)
    assert ratio([100.0, 300.0, 200.0], [100.0, 100.0, 100.0]) == Ratio(2.0, 1.0, 3.0)


def test_rounds_that_lack_one_side_do_not_count():
    assert ratio([100.0, None, 300.0], [50.0, 50.0, None]) == Ratio(2.0, 2.0, 2.0)
    assert ratio([100.0], [0.0]) is None
    assert ratio([100.0], []) is None
