"""SVG plots of recordings, readable on light and dark backgrounds.

matplotlib draws text and axes in one ink colour, which is replaced by ``currentColor``,
so that a plot inside a page takes the page's ink.  Text stays text (no glyph outlines).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.model import Recording
from benchmarks.stats import summary
from benchmarks.tables import axis
from benchmarks.units import show

INK = "#102030"
SERIES = ("#4c8dd6", "#e0872e", "#3aa76d", "#c75c9c", "#8a7ad6", "#b8a02a", "#5aa9b5", "#c05a4a")
"""Colours of implementations; each has enough contrast on white and on near-black."""

_GROWING = (".load", ".memory")
"""Curves that grow with x by nature: both axes logarithmic."""

_BARS = (
    ("throughput", "TCP throughput", "goodput", "Gbit/s", 1e9),
    ("cpu-per-gb", "CPU seconds per GB, both ends", "cpu_per_gb", "s/GB", 1.0),
    ("udp", "UDP datagrams received", "received", "1000/s", 1e3),
    ("memory", "Peak resident memory, larger end", "peak_rss", "MB", 1e6),
    ("pings", "Pings beside a stream, 99th percentile", "p99", "ms", 1e-3),
    ("recovery", "From a flood's end to an answer under new keys", "recovery", "s", 1.0),
)


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` is an ``<svg>`` element without XML prologue; `name` a file name's stem."""

    name: str
    title: str
    svg: str


def draw_all(recordings: Sequence[Recording]) -> list[Plot]:
    """Every plot the recordings have data for."""
    plots: list[Plot] = []
    for recording in recordings:
        for setting in recording.settings():
            plots += _setting_plots(recording, setting)
        plots += _curves(recording)
    return plots


def save(plots: Sequence[Plot], folder: Path) -> None:
    """One SVG file per plot."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / f"{plot.name}.svg").write_text(standalone(plot.svg))


def standalone(svg: str) -> str:
    """An SVG file of its own, with ink and ground for both schemes."""
    style = (
        "<style>svg{color:#1b1f24;background:#fff}"
        "@media (prefers-color-scheme:dark){svg{color:#e8eaed;background:#16181b}}</style>"
    )
    opening = svg.index(">") + 1
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg[:opening]}{style}{svg[opening:]}\n'


def _setting_plots(recording: Recording, setting: str) -> Iterator[Plot]:
    suffix = f"-{setting}" if setting else ""
    place = f" ({setting})" if setting else ""
    for name, title, measure, unit, scale in _BARS:
        figures = [f for f in recording.figures() if f.partition(".")[2] == measure]
        figures = [f for f in figures if any(
            recording.values(f, i, setting) for i in recording.implementations())]  # fmt: skip
        if figures:
            svg = _bars(recording, setting, figures, unit, scale)
            yield Plot(f"{recording.kind}-{name}{suffix}", title + place, svg)
    if any(d.setting == setting for d in recording.distributions):
        yield Plot(
            f"{recording.kind}-latency{suffix}",
            f"Flood-ping round trips{place}",
            _latency(recording, setting),
        )


def _bars(
    recording: Recording, setting: str, figures: Sequence[str], unit: str, scale: float
) -> str:
    """Grouped bars, one group per load; whiskers are the quartiles."""
    names = _with_values(recording, setting, figures)
    figure, axes = _figure()
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        legend = _first(recording, name, setting, figures)
        for group, load in enumerate(figures):
            values = recording.values(load, name, setting)
            if not values:
                continue
            found = summary(values)
            whiskers = [[found.median - found.low], [found.high - found.median]]
            axes.bar(
                group + (place - (len(names) - 1) / 2) * width, found.median / scale, width * 0.92,
                yerr=[[w[0] / scale] for w in whiskers], color=colour(recording, name),
                ecolor=INK, label=recording.label(name) if group == legend else None,
            )  # fmt: skip
    axes.set_xticks(range(len(figures)), [f.partition(".")[0].replace("-", "\n") for f in figures])
    axes.set_ylabel(unit)
    return _finished(figure, axes)


def _with_values(recording: Recording, setting: str, figures: Sequence[str]) -> list[str]:
    return [
        name
        for name in recording.implementations()
        if any(recording.values(figure, name, setting) for figure in figures)
        and not (name == "none" and figures[0].startswith("tcp"))
    ] or recording.implementations()


def _first(recording: Recording, name: str, setting: str, figures: Sequence[str]) -> int:
    """The first group in which `name` has a bar: that one carries the legend."""
    return next(i for i, f in enumerate(figures) if recording.values(f, name, setting))


def _latency(recording: Recording, setting: str) -> str:
    """Share of round trips above a time, both axes logarithmic: the tail is visible."""
    figure, axes = _figure()
    seen: set[str] = set()
    for distribution in recording.distributions:
        if distribution.setting != setting:
            continue
        name, count = distribution.implementation, len(distribution.values)
        ranks = tail_ranks(count)
        axes.step(
            [distribution.values[rank] * 1e6 for rank in ranks],
            [(count - rank) / count for rank in ranks], where="post",
            color=colour(recording, name), linewidth=1.4,
            label=recording.label(name) if name not in seen else None,
        )  # fmt: skip
        seen.add(name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("round trip, µs")
    axes.set_ylabel("share of round trips above")
    return _finished(figure, axes)


def tail_ranks(count: int, points: int = 150) -> list[int]:
    """Ranks from 0 to count - 1, closer together the nearer to the tail."""
    left = {max(1, round(count ** (step / (points - 1)))) for step in range(points)}
    return sorted(count - remaining for remaining in left)


def _curves(recording: Recording) -> Iterator[Plot]:
    for name, unit in recording.figures().items():
        points = [key for key in recording.series() if key.figure == name and key.x is not None]
        if not points:
            continue
        figure, axes = _figure()
        for line in dict.fromkeys((p.implementation, p.setting) for p in points):
            mine = sorted(
                (p.x or 0.0, summary(recording.values(*p)))
                for p in points
                if (p.implementation, p.setting) == line and recording.values(*p)
            )
            middle = [found.median for _, found in mine]
            reach = [
                [found.median - found.low for _, found in mine],
                [found.high - found.median for _, found in mine],
            ]
            axes.errorbar(
                [x for x, _ in mine], middle, yerr=reach, marker="o", markersize=4,
                color=colour(recording, line[0]), linestyle="--" if line[1] else "-",
                label=f"{recording.label(line[0])} {line[1]}".strip(),
            )  # fmt: skip
        axes.set_xscale("log")
        if name.endswith(_GROWING):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _, unit=unit: show(value, unit))
        axes.set_xlabel(axis(name))
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        yield Plot(f"{recording.kind}-{slug}", _title(name), _finished(figure, axes))


def _title(figure: str) -> str:
    """``peers.per_packet_spread`` for people: ``per packet spread, over peers``."""
    what = figure.partition(".")[2].replace("_", " ")
    return f"{what.capitalize()}, over {axis(figure)} ({figure})"


def colour(recording: Recording, name: str) -> str:
    """The same colour for an implementation in every plot of a recording."""
    return SERIES[recording.implementations().index(name) % len(SERIES)]


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(which="both", colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.set_axisbelow(True)
    return figure, axes


def _finished(figure: Any, axes: Any) -> str:
    from matplotlib import rc_context

    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wgpy", "font.size": 11}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor").strip()
