"""The figures wgpy sets itself, and whether recordings hit them.

A target is a limit on a value, on the ratio to the baseline in the same run, or on the
growth along a scaling curve.  `missed` is said as plainly as `hit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.implementations import BASELINE
from benchmarks.model import Recording, Series
from benchmarks.stats import ratio, summary

SUBJECT = "wgpy"
TABLED = "wgpy --policy strict"


class Against(Enum):
    """What the limit applies to."""

    VALUE = "value"
    BASELINE = "ratio to wireguard-go"
    PLAIN = "ratio to the same without the strict table"
    TABLED = "value behind the strict table"
    LAST = "value at the last point of the curve"
    GROWTH = "last point over first point of the curve"


class Verdict(Enum):
    HIT = "hit"
    MILESTONE = "first milestone"
    MISSED = "missed"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """`limit` is a lower bound when `at_least`, else an upper one; in the figure's unit."""

    title: str
    figures: tuple[str, ...]
    against: Against
    at_least: bool
    limit: float
    unit: str
    why: str
    kind: str = "system"
    """The kind of recording that speaks about it."""
    milestone: float | None = None

    def verdict(self, value: float | None) -> Verdict:
        """How a value stands to the limit."""
        if value is None:
            return Verdict.UNMEASURED
        if self._meets(value, self.limit):
            return Verdict.HIT
        if self.milestone is not None and self._meets(value, self.milestone):
            return Verdict.MILESTONE
        return Verdict.MISSED

    def _meets(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


@dataclass(frozen=True, slots=True)
class Finding:
    """One target on one figure in one setting; `value` None when not measured.

    `low` and `high` are the interval (95 %) of a ratio, the value itself for anything else.
    """

    target: Target
    figure: str
    setting: str
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> Verdict:
        return self.target.verdict(self.value)


_TCP = ("tcp1-up", "tcp1-down", "tcp4-up", "tcp4-down")
_UDP = ("udp64-overload", "udp1372-overload", "udp64-highest", "udp1372-highest")

TARGETS: tuple[Target, ...] = (
    Target(
        "TCP throughput", tuple(f"{load}.goodput" for load in _TCP), Against.BASELINE, True,
        8.0, "", "the 2025 wireguard-go gives 5.6 times Debian's, 7.0 with one core per end",
        milestone=5.6,
    ),
    Target(
        "CPU per GB, both ends", tuple(f"{load}.cpu_per_gb" for load in _TCP), Against.VALUE,
        False, 2.4, "s/GB", "wireguard-go of 2025: 3.3, pinned 2.6", milestone=3.3,
    ),
    Target(
        "UDP received", tuple(f"{load}.received" for load in _UDP), Against.BASELINE, True,
        2.0, "", "neither build of wireguard-go is better than the other",
    ),
    Target("flood ping, mean", ("ping.mean",), Against.BASELINE, False, 0.6, "",
           "no goroutine hand-offs"),
    Target(
        "peak memory", tuple(f"{load}.peak_rss" for load in (*_TCP, *_UDP[:2])), Against.VALUE,
        False, 90e6, "B", "wireguard-go of 2025: 160 to 520 MiB",
    ),
    Target("handshakes answered, per core", ("handshakes.answered",), Against.VALUE, True,
           2_500, "1/s", "one X25519 takes about 30 µs", kind="scale"),
    Target("datagrams with a bad mac1 refused", ("bad-mac1.refused",), Against.VALUE, True,
           100_000, "1/s", "a flood must cost less than it costs its sender", kind="scale"),
    Target("start to usable UAPI socket", ("start.usable",), Against.VALUE, False, 0.3, "s",
           "imports dominate"),
    Target(
        "throughput behind the strict table",
        ("tcp1-up.goodput", "tcp1-down.goodput", "tcp4-up.goodput",
         "udp64-overload.received", "udp1372-overload.received"),
        Against.PLAIN, True, 0.95, "", "asked once per flow", kind="strict",
    ),
    Target(
        "CPU time behind the strict table",
        ("path.per_packet", "tcp1-up.cpu_per_gb", "tcp1-down.cpu_per_gb", "tcp4-up.cpu_per_gb",
         "udp64-overload.cpu_per_packet", "udp1372-overload.cpu_per_packet"),
        Against.PLAIN, False, 1.05, "", "what determines throughput, with less noise",
        kind="strict",
    ),
    Target("strict table: lookup on a warm flow", ("flow.lookup",), Against.LAST, False, 100e-9,
           "s", "one dictionary", kind="strict"),
    Target("strict table: 512,000 entries loaded", ("full-table.load",), Against.TABLED, False,
           5.0, "s", "through the control socket", kind="strict"),
    Target("strict table: memory of 512,000 entries", ("full-table.memory",), Against.TABLED,
           False, 200e6, "B", "Cilium's map size", kind="strict"),
    Target("growth of the cost per packet", ("peers.per_packet", "entries.per_packet"),
           Against.GROWTH, False, 1.15, "", "flow cache", kind="scale"),
)  # fmt: skip


def findings(recordings: Sequence[Recording], subject: str = SUBJECT) -> Iterator[Finding]:
    """Every target on every figure, in every setting where it was measured."""
    for target in TARGETS:
        for figure in target.figures:
            measured = False
            for recording in (r for r in recordings if r.kind == target.kind):
                for setting in recording.settings():
                    found = _found(target, figure, recording, setting, subject)
                    if found is not None:
                        measured = True
                        yield Finding(target, figure, setting, *found)
            if not measured:
                yield Finding(target, figure, "", None)


Found = tuple[float, float, float]
"""A value and its interval."""


def _found(
    target: Target, figure: str, recording: Recording, setting: str, subject: str
) -> Found | None:
    match target.against:
        case Against.GROWTH:
            return _growth(recording, figure, setting, subject)
        case Against.LAST:
            places = _places(recording, figure, setting, TABLED)
            return _median(recording, Series(figure, TABLED, setting, _last(places)))
        case Against.PLAIN:
            x = _last(_places(recording, figure, setting, TABLED))
            over, under = (Series(figure, name, setting, x) for name in (TABLED, subject))
            return _ratio(recording, over, under)
        case Against.BASELINE:
            over, under = (Series(figure, name, setting, None) for name in (subject, BASELINE))
            return _ratio(recording, over, under)
        case Against.VALUE | Against.TABLED:
            name = TABLED if target.against is Against.TABLED else subject
            return _median(recording, Series(figure, name, setting, None))


def _median(recording: Recording, series: Series) -> Found | None:
    values = recording.values(*series)
    return (summary(values).median,) * 3 if values else None


def _ratio(recording: Recording, over: Series, under: Series) -> Found | None:
    """Median of the repetitions' own ratios."""
    found = ratio(*recording.pairs(over, under), paired=True)
    return (found.value, found.low, found.high) if found else None


def _growth(recording: Recording, figure: str, setting: str, subject: str) -> Found | None:
    """The greatest x over the smallest; None without two points."""
    places = _places(recording, figure, setting, subject)
    if len(places) < 2:
        return None
    first, last = (Series(figure, subject, setting, x) for x in (places[0], places[-1]))
    return _ratio(recording, last, first)


def _places(recording: Recording, figure: str, setting: str, name: str) -> list[float]:
    """The x of a curve, ascending."""
    return sorted(
        key.x
        for key in recording.series()
        if key.figure == figure
        and key.implementation == name
        and key.setting == setting
        and key.x is not None
    )


def _last(places: Sequence[float]) -> float | None:
    """The greatest x; None if it is not a curve."""
    return places[-1] if places else None
