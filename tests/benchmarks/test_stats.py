"""Medians, quartiles, ratios and their intervals; which attempt of a repetition counts."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.model import Sample, evenly_ranked, usable
from benchmarks.stats import percentile, ratio, summary

VALUES = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=30)


@given(VALUES)
def test_summary_is_the_median_between_the_quartiles(values: list[float]) -> None:
    found = summary(values)
    assert found.median == pytest.approx(statistics.median(values))
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.count == len(values)


def test_percentiles_of_nothing_raise() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_percentile_is_linear_between_neighbours() -> None:
    assert percentile([0, 10], 0.25) == 2.5
    assert percentile([7], 0.999) == 7


def test_paired_ratio_survives_a_drifting_machine() -> None:
    """Both halve from pair to pair: the ratio is still exactly two, without spread."""
    base = [1.0, 2.0, 4.0, 8.0]
    found = ratio([2 * value for value in base], base, paired=True)
    assert found is not None
    assert (found.value, found.low, found.high) == (2, 2, 2)
    assert found.distinct and found.paired
    loose = ratio([2 * value for value in base], base, paired=False)
    assert loose is not None and loose.low < 2 < loose.high


def test_noise_is_not_a_difference() -> None:
    found = ratio([9.0, 10.0, 11.0], [10.0, 9.0, 11.0], paired=False)
    assert found is not None and not found.distinct


def test_ratio_is_the_same_every_time() -> None:
    first, second = (ratio([3.0, 5.0, 9.0], [1.0, 2.0, 2.5], paired=False) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("values", "base"), [([], [1.0]), ([1.0], []), ([1.0], [0.0])])
def test_no_ratio_without_both_or_over_zero(values: list[float], base: list[float]) -> None:
    assert ratio(values, base, paired=True) is None


def sample(value: float, repetition: int, attempt: int, foreign: float) -> Sample:
    return Sample(
        "f.g", "s", "wgpy", value, repetition=repetition, attempt=attempt, foreign=foreign,
        disturbed=foreign > 0.05,
    )  # fmt: skip


def test_the_first_undisturbed_attempt_counts_and_not_the_best() -> None:
    attempts = [sample(9, 0, 1, 0.5), sample(1, 0, 2, 0.04), sample(99, 0, 3, 0.0)]
    assert [s.value for s in usable(attempts)] == [1]


def test_the_least_disturbed_attempt_counts_when_all_are() -> None:
    attempts = [sample(9, 0, 1, 0.5), sample(1, 0, 2, 0.1), sample(99, 0, 3, 0.3)]
    assert [s.value for s in usable(attempts)] == [1]
    assert usable(attempts)[0].disturbed


def test_repetitions_stay_in_order() -> None:
    mixed = [sample(3, 2, 1, 0), sample(1, 0, 1, 0), sample(2, 1, 1, 0)]
    assert [s.value for s in usable(mixed)] == [1, 2, 3]


@given(st.lists(st.integers(), min_size=1, max_size=300), st.integers(2, 50))
def test_ranks_keep_both_ends_and_the_order(values: list[int], points: int) -> None:
    kept = evenly_ranked(values, points)
    assert len(kept) == min(points, len(values))
    assert list(kept) == sorted(kept)
    assert (kept[0], kept[-1]) == (min(values), max(values))
