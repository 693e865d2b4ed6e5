"""What a benchmark run leaves behind: samples, distributions and the environment.

A `Sample` is one measured number with everything that tells it from the others.  Files
are JSON with ``"format": "wgpy-bench/1"``; `load` refuses anything else by name.
Invariant: nothing derived (median, ratio, verdict) is stored, only what was measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

FORMAT = "wgpy-bench/1"


class RecordingError(ValueError):
    """The file is not a recording of this version."""


class Series(NamedTuple):
    """What samples of one series share; repetitions of a series are its spread.

    `figure` is ``LOAD.MEASURE`` (``tcp1-up.goodput``), `setting` how the machine was used
    (``free``, ``pinned``, or empty), `x` the place on a scaling curve, None elsewhere.
    """

    figure: str
    implementation: str
    setting: str
    x: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One number.  `foreign` is the share of the machine that others used (0 to 1)."""

    figure: str
    unit: str
    implementation: str
    value: float
    setting: str = ""
    repetition: int = 0
    x: float | None = None
    attempt: int = 1
    foreign: float = 0.0
    disturbed: bool = False

    @property
    def series(self) -> Series:
        """The series this sample belongs to."""
        return Series(self.figure, self.implementation, self.setting, self.x)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Sorted values at evenly spaced ranks (first the minimum, last the maximum)."""

    figure: str
    unit: str
    implementation: str
    values: tuple[float, ...]
    count: int
    setting: str = ""
    repetition: int = 0


OWN_PROGRAM: Final = "wireguard-py"
_VERSION: Final = re.compile(r"\d+(\.\d+)+[\w.+-]*")
"""The version in a program's `--version` output."""


@dataclass(slots=True)
class Recording:
    """A whole run.  `notes` are sentences for people: what failed, what was repeated."""

    kind: str
    environment: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self) -> dict[Series, list[Sample]]:
        """Samples by series, in the order first seen; see `usable` for which."""
        grouped: dict[Series, list[Sample]] = {}
        for sample in self.samples:
            grouped.setdefault(sample.series, []).append(sample)
        return {key: usable(samples) for key, samples in grouped.items()}

    def implementations(self) -> list[str]:
        """Names in the order first seen."""
        return list(dict.fromkeys(sample.implementation for sample in self.samples))

    def label(self, name: str) -> str:
        """The name of an implementation for tables and plots: a rival's with its version.

        A figure of "wireguard-go" is meaningless without it: the builds differ by a factor of five.
        """
        said = self.environment.get("implementations", {}).get(name, "")
        version = _VERSION.search(said)
        if version is None or said.startswith(OWN_PROGRAM):
            return name
        return f"{name} {version[0]}"

    def settings(self) -> list[str]:
        """Settings in the order first seen."""
        return list(dict.fromkeys(sample.setting for sample in self.samples))

    def figures(self) -> dict[str, str]:
        """Figure to unit, in the order first seen."""
        return {sample.figure: sample.unit for sample in self.samples}

    def values(
        self, figure: str, implementation: str, setting: str = "", x: float | None = None
    ) -> list[float]:
        """Usable values of one series, by repetition; empty when not measured."""
        wanted = Series(figure, implementation, setting, x)
        return [s.value for s in usable([s for s in self.samples if s.series == wanted])]

    def pairs(self, over: Series, under: Series) -> tuple[list[float], list[float]]:
        """Usable values of two series, of the repetitions that have both, side by side."""
        first, second = (
            {s.repetition: s.value for s in usable([s for s in self.samples if s.series == wanted])}
            for wanted in (over, under)
        )
        both = [repetition for repetition in first if repetition in second]
        return [first[r] for r in both], [second[r] for r in both]

    def disturbed(self) -> list[Sample]:
        """Samples in use although other load disturbed them."""
        return [s for samples in self.series().values() for s in samples if s.disturbed]

    def to_json(self) -> str:
        """The file's text."""
        parts = []
        for key, value in {"format": FORMAT, **asdict(self)}.items():
            if isinstance(value, list) and value:  # One item per line: small, and it can be diffed.
                text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
            else:
                text = json.dumps(value, indent=1).replace("\n", "\n ")
            parts.append(f' "{key}": {text}')
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.to_json())
        partial.replace(path)


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """One sample per repetition: the first undisturbed attempt, or else the least disturbed.

    Choosing by disturbance and never by value avoids a bias.
    """
    attempts: dict[int, list[Sample]] = {}
    for sample in samples:
        attempts.setdefault(sample.repetition, []).append(sample)
    return [
        min(tries, key=lambda s: (s.disturbed, s.foreign if s.disturbed else 0.0, s.attempt))
        for _repetition, tries in sorted(attempts.items())
    ]


def evenly_ranked(values: Iterable[float], points: int = 1001) -> tuple[float, ...]:
    """At most `points` of the sorted values, at evenly spaced ranks, both ends included."""
    ordered = sorted(values)
    if len(ordered) <= points:
        return tuple(ordered)
    last = len(ordered) - 1
    return tuple(ordered[round(rank * last / (points - 1))] for rank in range(points))


def load(path: Path) -> Recording:
    """Read a file; raises `RecordingError` naming the file and what is wrong with it."""
    try:
        document = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordingError(f"{path}: not a readable JSON file: {error}") from error
    found = document.get("format") if isinstance(document, Mapping) else None
    if found != FORMAT:
        raise RecordingError(
            f'{path}: "format" is {found!r}, not {FORMAT!r}; write the file with `wgpy bench`'
        )
    try:
        return Recording(
            kind=document["kind"],
            environment=document["environment"],
            options=document["options"],
            samples=list(_samples(document["samples"])),
            distributions=[
                Distribution(**{**entry, "values": tuple(entry["values"])})
                for entry in document["distributions"]
            ],
            notes=list(document["notes"]),
        )
    except (KeyError, TypeError) as error:
        raise RecordingError(f"{path}: key missing or not understood: {error}") from error


def _samples(entries: Iterable[Mapping[str, Any]]) -> Iterator[Sample]:
    for entry in entries:
        yield Sample(**entry)
