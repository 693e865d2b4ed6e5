"""What users get wrong, with every command of `wgpy spec` and `wgpy vectors`.

One line says what is wrong; never a traceback, never a cut name, and the exit status of a
failure.  A pipe that closes early and a hostile current folder are mistakes of somebody else.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vectors.cli import vectors
from wgspec.cli import spec

WGPY = str(Path(sys.executable).with_name("wgpy"))
COMMANDS = [
    *(("spec", name) for name in spec.commands),
    *(("vectors", name) for name in vectors.commands),
]


def wgpy(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WGPY, *words], capture_output=True, text=True, check=False, cwd=cwd, timeout=100,
        stdin=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip


@pytest.mark.parametrize("group", [spec, vectors], ids=["spec", "vectors"])
def test_no_help_is_cut_at_80_columns(group) -> None:
    shown = CliRunner().invoke(group, ["--help"], terminal_width=80).output
    assert not [line for line in shown.partition("Commands:")[2].splitlines() if "..." in line]
    for name in group.commands:
        assert name in shown
        assert CliRunner().invoke(group, [name, "--help"], terminal_width=80).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        *((*command, "--no-such-option") for command in COMMANDS),
        ("spec", "run"),
        ("spec", "run", "--sut", ""),
        ("spec", "run", "--sut", "'"),
        ("spec", "run", "--sut", "windmill"),
        ("spec", "run", "--sut", "engine windmill"),
        ("spec", "run", "--sut", "engine true"),
        ("spec", "run", "--sut", "kernel 6.1"),
        ("spec", "run", "--sut", "no-such-program %i", "R-01"),
        ("spec", "run", "--sut", "%i", "R-01"),
        ("spec", "run", "--sut", "endpoint"),
        ("spec", "run", "--sut", "engine", "R-01", "--expected", "/"),
        ("spec", "run", "--sut", "engine", "R-01", "--write-expected", "/dev/null/x"),
        ("spec", "run", "--sut", "engine", "R-01", "--report", "x.pdf"),
        ("spec", "run", "--sut", "engine", "R-01", "--captures", "/dev/null/x"),
        ("spec", "run", "--sut", "engine", "R-01", "--profile", "slow"),
        ("spec", "grid", "wgpy"),
        ("spec", "grid", "wgpy", "engine"),
        ("spec", "grid", "windmill"),
        ("spec", "matrix", "/nowhere.json"),
        ("spec", "matrix", __file__),
        ("spec", "matrix", "--sut", "windmill"),
        ("spec", "matrix", "--sut", "engine", "--output", "/dev/null/x.html"),
        ("vectors", "verify", "/nowhere.json"),
        ("vectors", "verify", __file__),
        ("vectors", "verify", "/"),
        ("vectors", "generate", "windmill"),
        ("vectors", "generate", "hash", "--output", "/dev/null/x"),
        ("vectors", "generate", "constants", "--output", "/dev/null/x"),
        ("vectors", "record", "windmill"),
        ("vectors", "record", "wgpy", "--output", "/dev/null/x"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_answered_in_words(words: tuple[str, ...], tmp_path: Path) -> None:
    done = wgpy(*words, cwd=tmp_path)
    assert done.returncode in (1, 2)
    said = done.stderr + done.stdout
    assert "Traceback" not in said, said
    assert "Error" in said or "FAIL" in said, said


@pytest.mark.parametrize("words", ["run --sut wgpy", "run --sut boringtun", "run --sut 'sh %i'",
                                   "run --sut microvm", "grid wgpy boringtun"])  # fmt: skip
def test_without_rights_it_says_so(words: str, tmp_path: Path) -> None:
    """As a user who may do nothing."""
    code = (
        "import os, shlex, sys; os.geteuid = lambda: 1000;"
        "from wgspec.cli import spec; spec(shlex.split(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, words], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ") and "need" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    ["spec list", "spec list --json", "spec run --sut engine --dry-run", "vectors list",
     "spec run --sut engine R-01", "spec run --sut engine R-01 --json", "vectors list --json",
     "vectors verify --crypto openssl --json"],
)  # fmt: skip
def test_a_pipe_that_closes_early_is_no_error_to_tell(words: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{WGPY} {words} | head -c 1"], capture_output=True, text=True, check=False
    )
    noise = [line for line in done.stderr.splitlines() if not line.startswith("running ")]
    assert (done.returncode, noise) == (0, [])


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules that must not be imported from it."""
    trap = "import os, sys\nos.write(2, b'IMPORTED ' + __file__.encode())\nsys.exit(99)\n"
    for name in ("dataclasses", "json", "asyncio", "tempfile", "click"):
        (tmp_path / f"{name}.py").write_text(trap)
    for name in ("wgspec", "wgpy", "vectors", "tests", "mitmproxy_wireguard"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(trap)
    return tmp_path


@pytest.mark.root
@pytest.mark.parametrize("words", [
    "spec run --sut engine R-01", "spec run --sut wgpy R-01", "spec run --sut boringtun R-01",
    "vectors verify --crypto openssl", "vectors list",
])  # fmt: skip
def test_nothing_is_imported_from_the_current_folder(words: str, hostile: Path) -> None:
    done = wgpy(*words.split(), cwd=hostile)
    assert "IMPORTED" not in done.stderr and done.returncode == 0, done.stderr


def test_planted_faults_are_tried_without_the_current_folder(hostile: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.mutants", "mac1-unchecked"], cwd=hostile,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 faults caught" in done.stdout


def test_every_python_child_is_started_without_the_current_folder() -> None:
    """Wherever the interpreter is started it gets `-P`: `python -m` would look here first."""
    for package in ("wgspec", "vectors", "tests/mutants"):
        for path in Path(__file__).parents[2].joinpath(package).rglob("*.py"):
            for line in path.read_text().splitlines():
                if "sys.executable," in line:
                    assert '"-P"' in line, f"{path}: {line.strip()}"
