"""The labs do what their pages say: every command is typed, every promise looked for.

In a block marked `console`, a line `$ command` is run; the lines below it must appear in
its output in this order, `…` standing for anything, other lines coming in between.  A line
that starts with `!` must not appear.  `# may take N seconds` repeats the command until it
keeps its promise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed import catalogue

pytestmark = [pytest.mark.root]


@dataclass
class Step:
    command: str
    patience: float = 0
    expected: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)


def steps(page: str) -> list[Step]:
    """The commands of a page with what it promises of each."""
    found: list[Step] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                command, _, remark = line[2:].partition("   # may take ")
                found.append(Step(command, float(remark.split()[0]) if remark else 0))
            elif line.startswith("!"):
                found[-1].forbidden.append(line[1:])
            elif line.strip():
                found[-1].expected.append(line)
    return found


def pattern(line: str) -> re.Pattern[str]:
    parts = [re.escape(re.sub(r"\s+", " ", part)) for part in line.split("…")]
    return re.compile(".*".join(parts).replace(r"\ ", r"\s+"))


def broken_promise(step: Step, output: str) -> str:
    """The first line of the page that the output does not keep; empty when all are kept."""
    lines = iter(output.splitlines())
    for promised in step.expected:
        wanted = pattern(promised)
        # Several promises may be kept by one long line, but each starts behind the last.
        if not any(wanted.search(line) for line in lines):
            return promised
    for line in output.splitlines():
        # A command that failed keeps no promise by its silence.
        if line.startswith("Error: ") and not any(
            pattern(promised).search(line) for promised in step.expected
        ):
            return "!" + line
    for line in step.forbidden:
        if pattern(line).search(output):
            return "!" + line
    return ""


def type_in(command: str, folder: Path) -> str:
    beside = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": beside + os.pathsep + os.environ["PATH"],
                   "COLUMNS": "200"}  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("lab", catalogue.labs(), ids=lambda lab: lab.name)
def test_the_page_keeps_its_promises(lab, tmp_path):
    todo = steps(lab.page.read_text())
    assert len(todo) >= 4
    assert any(step.expected for step in todo)
    for step in todo:
        deadline = time.monotonic() + step.patience
        while True:
            output = type_in(step.command, tmp_path)
            broken = broken_promise(step, output)
            if not broken or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert not broken, f"$ {step.command}\npromised: {broken}\ngot:\n{output}"


def test_at_least_eight_labs():
    assert {lab.name for lab in catalogue.labs()} >= {
        "leak", "strict", "race", "hosts", "spoof", "roaming", "dead", "overlap",
    }  # fmt: skip


def test_the_reader_of_pages_notices_broken_promises():
    step = steps("```console\n$ x   # may take 3 seconds\na…b\nlast\n!bad\n```")[0]
    assert (step.command, step.patience) == ("x", 3)
    assert broken_promise(step, "0\na and b\nmore\nlast") == ""
    assert broken_promise(step, "last\na and b") == "last"
    assert broken_promise(step, "a and b\nlast\nbad") == "!bad"
    assert broken_promise(step, "a and b\nlast\nError: the sentinel is dead") == (
        "!Error: the sentinel is dead"
    )
    assert broken_promise(step, "b and a\nlast") == "a…b"
