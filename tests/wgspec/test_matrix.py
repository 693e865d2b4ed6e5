"""The page with all targets: complete, self-contained, and nothing from outside runs in it."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wgspec import matrix
from wgspec.case import SECTIONS
from wgspec.cases import all_cases
from wgspec.cli import spec


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved results of one real run."""
    path = tmp_path_factory.mktemp("matrix") / "engine.json"
    words = ["run", "--sut", "engine", "--seed", "1", "--report", str(path)]
    ran = CliRunner().invoke(spec, [*words, "R-01", "R-09", "R-60", "R-105"])
    assert ran.exit_code == 0, ran.output
    return path


def other(path: Path, name: str, **verdicts: str) -> Path:
    """The same results as another target's, with other verdicts."""
    document = json.loads(path.read_text())
    document["target"] = name
    for result in document["results"]:
        wanted = verdicts.get(result["id"].replace("-", ""))
        if wanted:
            result |= {"verdict": wanted, "actual": "<b>bad</b>", "reason": "</script><i>x"}
    made = path.with_name("other.json")
    made.write_text(json.dumps(document))
    return made


class Page(HTMLParser):
    """What the tests ask of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._id = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id") or "" if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.scripts[self._id] = self.scripts.get(self._id, "") + data


def made(tmp_path: Path, *files: Path) -> tuple[str, Page]:
    output = tmp_path / "page.html"
    ran = CliRunner().invoke(spec, ["matrix", *map(str, files), "--output", str(output)])
    assert ran.exit_code == 0, ran.output
    text = output.read_text()
    return text, Page(text)


def test_rows_cells_and_details(tmp_path: Path, engine: Path) -> None:
    text, page = made(tmp_path, engine, other(engine, "other", R60="XFAIL", R09="FAIL"))
    buttons = [a for tag, a in page.tags if tag == "button" and "data-id" in a]
    assert len(buttons) == 2 * 4
    assert {a["class"] for a in buttons} == {"v PASS", "v XFAIL", "v FAIL", "v UNSUPPORTED"}
    assert sum(tag == "tr" and "data-text" in a for tag, a in page.tags) == len(all_cases())
    assert all(title in text for title in SECTIONS.values())
    details: list[dict[str, Any]] = json.loads(page.scripts["details"])
    cell = details[1]["R-09"]
    assert cell["verdict"] == "FAIL" and any("initiation" in line for line in cell["transcript"])
    capture = base64.b64decode(cell["capture"])
    assert capture[:4] == bytes.fromhex("0a0d0d0a") and b"LOCAL_STATIC_PRIVATE_KEY" in capture


def test_it_loads_nothing_and_runs_nothing_of_the_results(tmp_path: Path, engine: Path) -> None:
    text, page = made(tmp_path, other(engine, "bad<script>alert(1)</script>", R01="FAIL"))
    assert not [a for _, a in page.tags if {"src", "srcset"} & set(a) or a.get("href")]
    assert not re.search(r"@import|url\(|https?://", text)
    assert sum(tag == "script" for tag, _ in page.tags) == 3  # two with data, one that shows it
    assert "<b>bad</b>" not in text and "<i>x" not in text


def test_the_grid_is_part_of_it(tmp_path: Path, engine: Path) -> None:
    cells = [
        {"initiator": a, "responder": b, "psk": psk, "outer": outer, "verdict": "PASS",
         "steps": {}, "reason": "", "packets_delivered": 1, "seconds": 1.0}
        for a, b in (("one", "two"), ("two", "one"))
        for outer in ("IPv4", "IPv6") for psk in (False, True)
    ]  # fmt: skip
    cells[0] |= {"verdict": "FAIL", "reason": "lost"}
    grid = tmp_path / "grid.json"
    grid.write_text(json.dumps({"targets": {}, "packets_each_way": 1000, "cells": cells}))
    text, page = made(tmp_path, engine, grid)
    assert "1,000 packets" in text
    shown = [a for tag, a in page.tags if tag == "b" and (a.get("title") or "").startswith("IPv")]
    assert [a["class"] for a in shown].count("v PASS") == 7
    assert shown[0]["title"] == "IPv4: FAIL: lost"


def test_targets_are_run_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [c for c in all_cases() if c.id in ("R-01", "R-74")]
    monkeypatch.setattr("wgspec.run.select", lambda *_, **__: cases)
    words = ["matrix", "--sut", "engine", "--seed", "3", "--save", str(tmp_path / "kept")]
    output = tmp_path / "deep" / "page.html"
    ran = CliRunner().invoke(spec, [*words, "--output", str(output)])
    assert ran.exit_code == 0, ran.output
    kept = matrix.run_of(matrix.read(tmp_path / "kept" / "engine.json"))
    assert (kept.counts["PASS"], kept.ran) == (2, 2)
    assert kept.seed == 3 and kept.suite.startswith("wgspec ") and output.exists()
    assert kept.date in output.read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results'])
def test_a_file_without_results_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    ran = CliRunner().invoke(spec, ["matrix", str(path)])
    assert ran.exit_code == 1 and "bad.json" in ran.output
