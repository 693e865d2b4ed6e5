"""All targets on one page: rows are requirements, cells verdicts that open to transcript
and capture.

Made from the JSON of `wgpy spec run --json` (and of `wgpy spec grid --json`); the page is one
file that loads nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgspec.case import LEVELS, SECTIONS
from wgspec.cases import all_cases
from wgspec.report import page as template
from wgspec.verdict import MEANING, Verdict

Json = dict[str, Any]

DEFAULT = ("wireguard-go", "wgpy", "engine", "microvm 6.1", "microvm 6.12", "boringtun")
SIGNS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.XFAIL: "≠",
    Verdict.XPASS: "!",
    Verdict.UNSUPPORTED: "–",
    Verdict.SKIPPED: "·",
}
LINES = 400
"""Transcript lines of one cell."""


class BadResults(ValueError):
    """A file that holds no results; the text names it and the fix."""


@dataclass(frozen=True, slots=True)
class Saved:
    """One target's results as they were saved."""

    target: str
    version: str
    profile: str
    seed: int
    results: dict[str, Json]
    suite: str = ""
    date: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """How many of each verdict, in the order of `Verdict`."""
        counts = Counter(r["verdict"] for r in self.results.values())
        return {v.value: counts[v.value] for v in Verdict if counts[v.value]}

    @property
    def ran(self) -> int:
        """How many cases were not left out."""
        return len(self.results) - self.counts.get(Verdict.SKIPPED.value, 0)


def read(path: Path) -> Json:
    """A JSON file of `run` or `grid`; raises `BadResults`."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise BadResults(f"{path}: {error.strerror}") from error
    except ValueError:  # Not UTF-8, or not JSON.
        document = None
    if not isinstance(document, dict) or not {"results", "cells"} & set(document):
        raise BadResults(
            f"{path}: not the results of a run: make them with `wgpy spec run --report FILE.json`"
            " or `wgpy spec grid --report FILE.json`"
        )
    return document


def run_of(document: Json) -> Saved:
    """A target's run from its document."""
    return Saved(
        target=document["target"],
        version=document.get("version", ""),
        profile=document.get("profile", ""),
        seed=document["seed"],
        results={result["id"]: result for result in document["results"]},
        suite=document.get("suite", ""),
        date=document.get("date", "")[:10],
    )


def page(runs: Sequence[Saved], grids: Sequence[Json] = ()) -> str:
    """The whole page."""
    text: str = template("matrix.html.j2").render(
        runs=runs,
        sections=_sections(runs),
        shown={v.value: {"sign": SIGNS[v], "text": text} for v, text in MEANING.items()},
        levels=LEVELS,
        details=_details(runs),
        grids=[_grid(document) for document in grids],
        total=len(all_cases()),
    )
    return text


def _sections(runs: Sequence[Saved]) -> list[Json]:
    """Sections with rows; a row has one result (or None) per run."""
    out: list[Json] = []
    for letter, title in SECTIONS.items():
        rows = []
        for case in (c for c in all_cases() if c.section == letter):
            cells = [run.results.get(case.id) for run in runs]
            verdicts = {cell["verdict"] for cell in cells if cell is not None}
            plain = verdicts <= {Verdict.PASS.value, Verdict.SKIPPED.value}
            rows.append({"case": case, "cells": cells, "differs": not plain})
        out.append({"letter": letter, "title": title, "rows": rows})
    return out


def _details(runs: Sequence[Saved]) -> list[dict[str, Json]]:
    """What a cell opens to, per run and case."""
    keep = ("verdict", "reason", "expected", "actual", "reports", "repeat", "seconds")
    out: list[dict[str, Json]] = []
    for run in runs:
        cells: dict[str, Json] = {}
        for id, result in run.results.items():
            cells[id] = {key: result[key] for key in keep if result.get(key)}
            lines = result.get("transcript", [])
            cells[id]["transcript"] = lines[:LINES]
            if len(lines) > LINES:
                cells[id]["transcript"].append(f"… and {len(lines) - LINES} more lines")
            cells[id]["capture"] = result.get("capture", "")
        out.append(cells)
    return out


def _grid(document: Json) -> Json:
    """The interop grid as rows (initiators), columns (responders), four variants each."""
    cells: dict[tuple[str, str], list[Json]] = {}
    names: list[str] = []
    for cell in document["cells"]:
        cells.setdefault((cell["initiator"], cell["responder"]), []).append(cell)
        for name in (cell["initiator"], cell["responder"]):
            if name not in names:
                names.append(name)
    return {
        "names": names,
        "packets": document["packets_each_way"],
        "rows": [(a, [cells.get((a, b)) for b in names]) for a in names],
    }
