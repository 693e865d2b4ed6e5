"""Two recordings side by side: ratios with their spread, and whether they are more than noise.

The state of the machine differs between runs, so a ratio between them is only an indication.
If both runs measured the baseline, the last column relates each value to the baseline *of
its own run*: trust that column.
"""

from __future__ import annotations

from benchmarks.implementations import BASELINE
from benchmarks.model import Recording, Series
from benchmarks.stats import Ratio, ratio, summary
from benchmarks.tables import DETAIL, Table
from benchmarks.units import show, three

_MORE_IS_BETTER = {"bit/s", "1/s", "B/s"}
_NEITHER = {"1"}


class NothingInCommon(ValueError):
    """The recordings share no series."""


def compare(before: Recording, after: Recording, *, details: bool = False) -> Table:
    """A row for every series that both have.  Raises `NothingInCommon`."""
    units = before.figures()
    common = [
        key
        for key in before.series()
        if key in after.series() and (details or not key.figure.endswith(DETAIL))
    ]
    if not common:
        raise NothingInCommon("the two recordings have no figure in common")
    rows = tuple(_row(before, after, key, units[key.figure]) for key in common)
    header = ("figure", "implementation", "before", "after", "ratio (95 %)", "verdict",
              f"each over its own {BASELINE}")  # fmt: skip
    return Table("comparison", header, rows, "Medians ± half the interquartile range.")


def _row(before: Recording, after: Recording, key: Series, unit: str) -> tuple[str, ...]:
    old, new = before.values(*key), after.values(*key)
    change = ratio(new, old, paired=False)
    relative = ratio(_over_baseline(after, key), _over_baseline(before, key), paired=False)
    place = key.figure + (f" {key.setting}" if key.setting else "")
    if key.x is not None:
        place += f" at {key.x:,.0f}"
    return (
        place,
        key.implementation,
        _value(old, unit),
        _value(new, unit),
        _interval(change),
        verdict(change, unit),
        _interval(relative),
    )


def verdict(change: Ratio | None, unit: str) -> str:
    """``better``, ``worse`` or, when the interval holds 1, ``same``."""
    if change is None or unit in _NEITHER or not change.distinct:
        return "" if change is None or unit in _NEITHER else "same"
    return "better" if (change.value > 1) == (unit in _MORE_IS_BETTER) else "worse"


def _over_baseline(recording: Recording, key: Series) -> list[float]:
    """The repetitions' quotients to the baseline; empty without one, or for the baseline."""
    if key.implementation == BASELINE:
        return []
    own = recording.values(*key)
    base = recording.values(*key._replace(implementation=BASELINE))
    if len(own) != len(base) or any(value <= 0 for value in base):
        return []
    return [a / b for a, b in zip(own, base, strict=True)]


def _value(values: list[float], unit: str) -> str:
    found = summary(values)
    return show(found.median, unit) + (f" ± {found.spread / 2:.0%}" if found.count > 1 else "")


def _interval(found: Ratio | None) -> str:
    if found is None:
        return ""
    if found.low == found.high:
        return f"{three(found.value)} ×"
    return f"{three(found.value)} × ({three(found.low)} to {three(found.high)})"
