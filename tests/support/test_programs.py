"""No program of this project imports from the folder where the user happens to be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WGPY = Path(sys.executable).with_name("wgpy")
PACKAGES = ("wgpy", "strict", "wgspec", "testbed", "benchmarks", "vectors", "tests")
STARTED = re.compile(r"""(?:executable|PYTHON\)?|\{python\})(?:,\s*"-P",|,| -P)?\s*"?-m[" ]""")
HOSTILE = (
    "dataclasses", "json", "click", "testbed", "strict", "wgpy", "benchmarks", "contextlib",
    "tempfile", "pyroute2",
)  # fmt: skip


def test_modules_are_started_with_P():
    """`-P -m`, in every command line that starts this Python with a module."""
    bad = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for match in STARTED.finditer(path.read_text()):
                if "-P" not in match[0] and path != Path(__file__):
                    bad.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert bad == []


@pytest.fixture
def hostile(tmp_path):
    """A folder whose modules and packages leave a mark when they are run."""
    mark = tmp_path / "mark"
    folder = tmp_path / "here"
    folder.mkdir()
    text = f"open({str(mark)!r}, 'a').write(__name__ + chr(10))\nraise SystemExit('hostile')\n"
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(text)
        package = folder / name
        package.mkdir()
        (package / "__init__.py").write_text(text)
    yield folder
    assert not mark.exists(), f"run from the current folder: {mark.read_text()}"


def run(folder, *words):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["WGPY_TESTBED_STATE"] = str(folder.parent / "state")
    return subprocess.run(
        [WGPY, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("lab", ["firstlight", "leak"])
def test_a_cluster_brought_up_in_a_hostile_folder(hostile, lab):
    """The sentinel, the forwarder, the agent and its data plane."""
    topology = (ROOT / "testbed" / "labs" / f"{lab}.yaml").read_text()
    (hostile / "x.yaml").write_text(topology + "underlays: {lan: {loss: 0%, delay: 1us}}\n")
    up = run(hostile, "testbed", "up", "x.yaml", "--name", "x")
    try:
        assert up.returncode == 0, up.stderr
        found = run(hostile, "testbed", "inspect", "--json")
        assert found.returncode == 0, found.stderr
        assert all(node["dataplane"] for node in json.loads(found.stdout)["nodes"])
        file = run(hostile, "testbed", "exec", "alpha", "sh", "-c", "echo here > file")
        assert file.returncode == 0 and (hostile / "file").read_text() == "here\n"
    finally:
        assert run(hostile, "testbed", "down", "x").returncode == 0


def test_the_micro_benchmarks_in_a_hostile_folder(hostile):
    done = run(hostile, "bench", "micro", "--quick", "--only", "type-check", "--json")
    assert done.returncode == 0, done.stderr
