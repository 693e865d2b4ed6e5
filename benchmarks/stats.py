"""The statistics of every table: median, interquartile range, bootstrap interval of a ratio.

Pure functions on lists of numbers.  The bootstrap draws from a generator with a fixed
seed, so the same file always gives the same table.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Summary:
    """A series in four numbers; `low` and `high` are the quartiles."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Interquartile range over median; 0 for a median of 0."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians with its interval (95 %); the interval is the point for n = 1."""

    value: float
    low: float
    high: float
    paired: bool

    @property
    def distinct(self) -> bool:
        """Whether the interval excludes 1: a difference, not noise."""
        return self.low > 1 or self.high < 1


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value at `share` (0 to 1) of sorted values, linear between neighbours.

    Raises ValueError for no values.
    """
    if not ordered:
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Sequence[float]) -> Summary:
    """Median and quartiles; raises ValueError for no values."""
    ordered = sorted(values)
    return Summary(
        percentile(ordered, 0.5), percentile(ordered, 0.25), percentile(ordered, 0.75), len(ordered)
    )


def ratio(values: Sequence[float], base: Sequence[float], *, paired: bool) -> Ratio | None:
    """`values` over `base` with a bootstrap interval; None when the base is 0 or missing.

    `paired` says that equal positions were measured one beside the other (one interleaved
    run): then the median of the pairs' ratios, which a drifting machine does not move.
    """
    if not values or not base or min(base) <= 0:
        return None
    if paired and len(values) == len(base):
        quotients = [a / b for a, b in zip(values, base, strict=True)]
        low, high = _interval(lambda draw: statistics.median(draw(quotients)))
        return Ratio(statistics.median(quotients), low, high, True)
    value = statistics.median(values) / statistics.median(base)
    low, high = _interval(
        lambda draw: statistics.median(draw(values)) / statistics.median(draw(base))
    )
    return Ratio(value, low, high, False)


Draw = Callable[[Sequence[float]], list[float]]


def _interval(statistic: Callable[[Draw], float]) -> tuple[float, float]:
    generator = random.Random(20_220_316)

    def draw(values: Sequence[float]) -> list[float]:
        return generator.choices(values, k=len(values))

    drawn = sorted(statistic(draw) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return percentile(drawn, tail), percentile(drawn, 1 - tail)
