"""Which implementations and options a command line means."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from benchmarks.cli import bench, system_options
from benchmarks.implementations import ImplementationError, Kind, parse
from benchmarks.loads import LOADS
from tests.benchmarks import recordings

DEFAULTS: dict[str, Any] = {
    "implementations": ("none",), "quick": False, "repetitions": None, "seconds": None,
    "pinning": "free", "cores": "0,1", "loads": (), "tries": None, "congestion": None, "mtu": 1420,
}  # fmt: skip


def test_a_program_by_path_with_arguments() -> None:
    found = parse(f"new={sys.executable} --fast")
    assert (found.name, found.kind) == ("new", Kind.USERSPACE)
    assert found.command == (str(Path(sys.executable).absolute()), "--fast", "-f")


def test_wgpy_with_arguments_keeps_them_in_its_name() -> None:
    found = parse("wgpy --no-offload")
    assert found.name == "wgpy --no-offload"
    assert found.command[0].endswith("wireguard-py")
    assert found.command[1:] == ("--no-offload", "-f")
    assert found.shown == "wireguard-py --no-offload -f"


@pytest.mark.parametrize("name", ["none", "kernel"])
def test_kinds_without_a_program(name: str) -> None:
    assert parse(name).kind is Kind(name) and parse(name).command == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("boringtun", "write NAME=/path"),
        ("new=", "no path"),
        ("new=/nowhere/wireguard", "no such program"),
        ("none --fast", "takes no arguments"),
    ],
)
def test_what_cannot_be_started_is_refused(text: str, said: str) -> None:
    with pytest.raises(ImplementationError, match=said):
        parse(text)


def test_quick_is_one_short_repetition_of_the_same_loads() -> None:
    quick = system_options(**{**DEFAULTS, "quick": True, "pinning": None})
    full = system_options(**{**DEFAULTS, "cores": "0,0", "pinning": "both"})
    assert quick.loads == full.loads
    assert (quick.repetitions, quick.settings, quick.tries) == (1, ("free",), 1)
    assert full.settings == ("free", "pinned") and full.starts == 20
    assert quick.effort.seconds < full.effort.seconds
    assert quick.steps == len(LOADS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"implementations": ("none", "none")},
        {"implementations": ("nonesuch",)},
        {"loads": ("tcp9",)},
        {"cores": "one"},
        {"congestion": "nonesuch"},
        {"cores": "0,4095", "pinning": "pinned"},
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(wrong: dict[str, Any]) -> None:
    with pytest.raises(click.ClickException):
        system_options(**{**DEFAULTS, **wrong})


def test_every_command_says_what_it_does() -> None:
    for name, command in bench.commands.items():
        assert command.help, name


def test_a_page_goes_beside_the_recording_and_never_over_it(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    recordings.system().save(file)
    done = CliRunner().invoke(bench, ["report", str(file), "-o", str(tmp_path / "report.html")])
    assert done.exit_code == 0, done.output
    assert "<svg" in (tmp_path / "report.html").read_text()
    before = file.read_text()
    done = CliRunner().invoke(bench, ["report", str(file), "-o", str(file)])
    assert done.exit_code == 2 and "is a recording" in done.output
    assert file.read_text() == before
    done = CliRunner().invoke(bench, ["report", str(file), "-o", str(tmp_path / "plots"), "--json"])
    assert done.exit_code == 0 and list((tmp_path / "plots").glob("*.svg"))
    assert json.loads(done.stdout)[0] == json.loads(before)


def test_extras_are_missed_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without matplotlib all but the plots is done; without pyperf nothing is begun."""
    find = importlib.util.find_spec
    gone = {"matplotlib", "pyperf"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in gone else find(name, *more)
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("benchmarks.pipeline.measure", lambda **_: recordings.system())
    done = CliRunner().invoke(bench, ["pipeline", "--quick", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    first = done.stderr.splitlines()[0]
    assert first.startswith("no plots will be drawn: matplotlib not installed (")
    assert re.search("pip install .*matplotlib", first)
    assert (tmp_path / "result.json").exists() and (tmp_path / "report.html").exists()
    done = CliRunner().invoke(bench, ["micro", "--quick"])
    assert done.exit_code == 1 and re.search("pip install .*pyperf", done.stderr)
    result = str(tmp_path / "result.json")
    done = CliRunner().invoke(bench, ["report", result, "-o", str(tmp_path / "plots")])
    assert done.exit_code == 1 and re.search("pip install .*matplotlib", done.stderr)


def test_compare_and_docs_from_the_command_line(tmp_path: Path) -> None:
    before, after, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "page.md"
    recordings.system().save(before)
    recordings.system(8.0).save(after)
    done = CliRunner().invoke(bench, ["compare", str(before), str(after), "--json"])
    rows = json.loads(done.stdout)
    assert {row["verdict"] for row in rows} == {"same", "better", "worse"}
    page.write_text("<!-- figures: system-free -->\n<!-- end of figures -->\n")
    done = CliRunner().invoke(bench, ["docs", str(after), "--page", str(page)])
    assert done.exit_code == 0 and "tcp1-up.goodput" in page.read_text()
    done = CliRunner().invoke(bench, ["docs", str(page)])
    assert done.exit_code == 1 and "not a readable JSON" in done.output
