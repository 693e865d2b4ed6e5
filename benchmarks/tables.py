"""Recordings as tables: built once, shown in the terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.implementations import BASELINE, TURBO
from benchmarks.model import Recording, Series
from benchmarks.stats import ratio, summary
from benchmarks.targets import (
    SUBJECT,
    TARGETS,
    Against,
    Finding,
    Target,
    Verdict,
    findings,
)
from benchmarks.units import show, three

DETAIL = ("_left_user", "_left_system", "_right_user", "_right_system", "_left", "_right")
"""Ends of measure names that only the full table shows."""


@dataclass(frozen=True, slots=True)
class Table:
    """Plain text cells; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def markdown(self) -> str:
        """A GitHub table without its title."""
        lines = ["| " + " | ".join(self.header) + " |", "|---" * len(self.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + (f"\n\n{self.caption}" if self.caption else "") + "\n"


def result_tables(recording: Recording, *, details: bool = False) -> list[Table]:
    """One table a setting (a row a figure), and one a scaling curve (a row a point)."""
    return [*_plain_tables(recording, details), *_curve_tables(recording)]


def target_table(recordings: Sequence[Recording]) -> Table:
    """Every target with the measured value and the verdict; also for ``--turbo``, if measured."""
    heads: tuple[str, ...] = ("target", "figure", "wanted", "measured", "verdict")
    compiled = {
        (found.target.title, found.figure, found.setting): found
        for found in findings(recordings, TURBO)
        if found.value is not None and found.target.kind != "strict"
    }
    if compiled:
        heads += ("with --turbo", "verdict")
    rows = []
    for finding in findings(recordings):
        setting = f" ({finding.setting})" if finding.setting else ""
        row: tuple[str, ...] = (
            finding.target.title, finding.figure + setting, wanted(finding.target),
            _measured(finding), finding.verdict.value,
        )  # fmt: skip
        if compiled:
            beside = compiled.get((finding.target.title, finding.figure, finding.setting))
            row += (_measured(beside), beside.verdict.value) if beside else ("", "")
        rows.append(row)
    return Table(
        "Targets", heads, tuple(rows),
        f"× is the ratio to {baseline(recordings)} in the same run, behind the strict table "
        "the ratio to the same without it, and for growth the last point of the curve over the "
        "first: the median of the repetitions' own ratios, in brackets its 95 % interval.",
    )  # fmt: skip


HEADLINES = ("TCP throughput", "CPU per GB, both ends", "UDP received", "flood ping, mean",
             "peak memory")  # fmt: skip


def headline_table(recordings: Sequence[Recording]) -> Table:
    """The targets in a few lines for the front page: from the least to the greatest figure.

    Whole tunnels without pinning; ``--turbo`` in a column of its own.
    """
    measured = [
        [f for f in findings(recordings, name) if f.value is not None and f.setting == "free"]
        for name in (SUBJECT, TURBO, BASELINE)
    ]
    rows = []
    for title in HEADLINES:
        target = next(t for t in TARGETS if t.title == title)
        against = f", ÷ {baseline(recordings)}" if target.against is Against.BASELINE else ""
        *ours, base = ([f for f in found if f.target is target] for found in measured)
        cells = [f"{_range(found)}{_reached(found)}" for found in ours]
        rows.append((title + against, *cells, _range(base), wanted(target)))
    return Table("Figures", ("", SUBJECT, TURBO, baseline(recordings), "goal"), tuple(rows))


def baseline(recordings: Sequence[Recording]) -> str:
    """The baseline with its version; without one where recordings differ."""
    labels = {r.label(BASELINE) for r in recordings if BASELINE in r.implementations()}
    return labels.pop() if len(labels) == 1 else BASELINE


def _range(found: Sequence[Finding]) -> str:
    """Least and greatest of the measured values; nothing where there is none."""
    values = sorted((f.value, _limit(f.target, f.value)) for f in found if f.value is not None)
    return " – ".join(dict.fromkeys(text for _, text in (values[:1] + values[-1:])))


def _reached(found: Sequence[Finding]) -> str:
    """How many of them meet the goal."""
    hit = sum(f.verdict is Verdict.HIT for f in found)
    if not found:
        return ""
    words = {0: "not reached", len(found): "reached"}
    return f" ({words.get(hit, f'{hit} of {len(found)} reached')})"


def wanted(target: Target) -> str:
    """The limit as text: ``≥ 8 ×``."""
    sign = "≥" if target.at_least else "≤"
    return f"{sign} {_limit(target, target.limit)}"


def _measured(finding: Finding) -> str:
    if finding.value is None:
        return ""
    text = _limit(finding.target, finding.value)
    if finding.low is None or finding.high is None or finding.low == finding.high:
        return text
    return f"{text} ({three(finding.low)} – {three(finding.high)})"


def _limit(target: Target, value: float) -> str:
    return show(value, target.unit) if target.unit else f"{three(value)} ×"


def _plain_tables(recording: Recording, details: bool) -> list[Table]:
    tables = []
    names = recording.implementations()
    plain = {s.figure for s in recording.samples if s.x is None}
    for setting in recording.settings():
        rows = []
        for figure, unit in recording.figures().items():
            if figure not in plain or (not details and figure.endswith(DETAIL)):
                continue
            cells = [_cell(recording, figure, unit, name, setting) for name in names]
            if any(cells):
                rows.append((figure, *cells))
        if rows:
            title = recording.kind + (f", {setting}" if setting else "")
            tables.append(Table(
                title, ("figure", *map(recording.label, names)), tuple(rows), _caption(recording)
            ))
    return tables


def _caption(recording: Recording) -> str:
    count = max((len(v) for v in recording.series().values()), default=0)
    base = ""
    if BASELINE in recording.implementations():
        base = f"; × is the ratio to {recording.label(BASELINE)}"
    return f"Median of up to {count} ± half the interquartile range{base}."


def _cell(recording: Recording, figure: str, unit: str, name: str, setting: str) -> str:
    values = recording.values(figure, name, setting)
    if not values:
        return ""
    found = summary(values)
    text = show(found.median, unit)
    if found.count > 1:
        text += f" ± {found.spread / 2:.0%}"
    against = None
    if name != BASELINE and unit != "1":
        series = (Series(figure, each, setting, None) for each in (name, BASELINE))
        against = ratio(*recording.pairs(*series), paired=True)
    return text + (f" ({three(against.value)} ×)" if against else "")


def _curve_tables(recording: Recording) -> list[Table]:
    tables = []
    for figure, unit in recording.figures().items():
        places = sorted({s.x for s in recording.samples if s.figure == figure and s.x is not None})
        if not places:
            continue
        columns = list(
            dict.fromkeys((s.implementation, s.setting) for s in recording.samples
                          if s.figure == figure and s.x is not None)
        )  # fmt: skip
        rows = []
        for place in places:
            cells = [recording.values(figure, name, setting, place) for name, setting in columns]
            texts = [show(summary(values).median, unit) if values else "" for values in cells]
            rows.append((f"{place:,.0f}", *texts))
        header = tuple(f"{recording.label(name)} {setting}".strip() for name, setting in columns)
        tables.append(Table(figure, (axis(figure), *header), tuple(rows)))
    return tables


def axis(figure: str) -> str:
    """What a curve's x counts."""
    special = {"peers": "peers", "initiations": "initiations per second"}
    return special.get(figure.partition(".")[0], "entries")


def verdict_style(text: str) -> str:
    """rich style (and CSS class) of a verdict's text; empty for anything else."""
    return {
        Verdict.HIT.value: "green",
        Verdict.MILESTONE.value: "yellow",
        Verdict.MISSED.value: "red",
        Verdict.UNMEASURED.value: "dim",
    }.get(text, "")
