"""The CI recipe of the docs: what it types exists."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml
from click.testing import CliRunner

from wgspec.cli import spec

RECIPE = Path(__file__).parents[2] / "docs" / "examples" / "conformance.yml"


def test_the_recipe_can_be_typed() -> None:
    (job,) = yaml.safe_load(RECIPE.read_text())["jobs"].values()
    (script,) = (step["run"] for step in job["steps"] if "run" in step)
    lines = script.splitlines()
    made = next(line.split()[-1] for line in lines if "-m venv" in line)
    pips = [line for line in lines if "pip install" in line]
    assert pips and all(line.startswith(f"{made}/bin/pip ") for line in pips)
    (command,) = (shlex.split(line) for line in lines if " spec " in line)
    assert command[:3] == ["sudo", f"{made}/bin/wgpy", "spec"]
    ran = CliRunner().invoke(spec, [*command[3:], "--dry-run"])
    assert ran.exit_code == 0 and "R-74" in ran.output, ran.output
    (kept,) = (step["with"]["path"].split() for step in job["steps"] if "with" in step)
    assert set(kept) == {command[i + 1] for i, w in enumerate(command) if w == "--report"}
