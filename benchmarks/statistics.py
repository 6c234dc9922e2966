"""Medians, ratios and spreads of rounds.  Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median as _median


@dataclass(frozen=True, slots=True)
class Ratio:
    """A target next to the yardstick: the median of the rounds' ratios, and the smallest and largest of them.

    Targets run in turns, so the two runs of a round saw the machine in about the same mood.  A ratio of each round
    cancels that mood; a ratio of medians would not.
    """

    median: float
    low: float
    high: float


def median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are known; None if there are none."""
    known = [value for value in values if value is not None]
    return float(_median(known)) if known else None


def spread(values: Sequence[float | None]) -> float | None:
    """Half the distance between the extremes as a share of the median: 0.05 reads "within 5 % either way"."""
    known = [value for value in values if value is not None]
    middle = median(known)
    if not known or not middle:
        return None
    return (max(known) - min(known)) / 2 / middle


def ratio(values: Sequence[float | None], yardstick: Sequence[float | None]) -> Ratio | None:
    """The ratios of ``values`` to the ``yardstick`` of the same round; None if no round has both."""
    ratios = [
        value / base
        for value, base in zip(values, yardstick, strict=False)
        if value is not None and base is not None and base > 0
    ]
    if not ratios:
        return None
    return Ratio(float(_median(ratios)), min(ratios), max(ratios))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; ``values`` is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
