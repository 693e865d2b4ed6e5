"""Expected results follow what a program says of itself, not what its file is called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wgspec import verdict
from wgspec.cases import all_cases
from wgspec.targets.program import version_command
from wgspec.verdict import Expectation, Expected, Verdict

KNOWN = frozenset(case.id for case in all_cases())


def run(*words: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of `wgpy spec run`."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wgspec", "run", "--seed", "1", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("wireguard-go -f %i", "wireguard-go --version"),
        ("wireguard-py -f --turbo %i", "wireguard-py --version"),
        ("prog --log /x %i", "prog --log /x --version"),
        ("nice -n 5 prog -f %i --more", "nice -n 5 prog --version"),
        ("python3 -m prog --interface=%i", "python3 -m prog --version"),
        ("prog %i", "prog --version"),
    ],
)
def test_how_a_program_is_asked_for_its_version(command: str, words: str) -> None:
    assert version_command(command) == words.split()


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("wireguard-go v0.0.20220316", "wireguard-go.toml"),
        ("wireguard-go v0.0.20250522", None),
        ("wireguard-go v0.0.20220316-acme", None),
        ("acme-go v0.0.20220316", None),
        ("wireguard-py 9.1", "wgpy.toml"),
        ("wgpy engine 9.1", "engine.toml"),
        ("Linux 6.1.0-99-cloud-amd64", "linux-6.1.toml"),
        ("Linux 6.12.1+deb13-cloud-amd64", "linux-6.12.toml"),
        ("Linux 6.18.1", None),
        ("mitmproxy-wireguard 0.1.23", "boringtun.toml"),
        ("mitmproxy-wireguard 0.2", None),
        ("", None),
    ],
)
def test_which_file_speaks_of_a_build(version: str, name: str | None) -> None:
    found = verdict.of_build(version, KNOWN)
    assert (found.path.name if found else None) == name


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path, odd = tmp_path / "x.toml", 'acme [v1]* "two" \\ ä'
    differences = {"R-29": Expectation(Verdict.FAIL, 'a "b"\n\tc', "run", "m\\")}
    verdict.write(path, odd, differences)
    loaded = verdict.load(path, KNOWN)
    assert loaded.differences == differences
    assert loaded.speaks_of(odd) and not loaded.speaks_of("acme v1two")
    verdict.write(path, "", {})
    assert verdict.load(path, KNOWN) == Expected(path, (), {})


def stand_in(folder: Path, name: str, said: str | None) -> Path:
    """wireguard-go under another name; with `said`, a fork that says this of itself."""
    program = folder / name
    real = shutil.which("wireguard-go")
    if said is None:
        program.symlink_to(real or "")
    else:
        says = f'if [ "$1" = --version ]; then echo; echo "{said}"; exit; fi'
        program.write_text(f'#!/bin/sh\n{says}\nexec {real} "$@"\n')
        program.chmod(0o755)
    return program


@pytest.mark.root
def test_a_renamed_program_is_known_and_a_fork_is_not(tmp_path: Path) -> None:
    """R-29 is a known difference of the one, and just a failure of the other."""
    renamed = stand_in(tmp_path, "my-tunnel", None)
    status, out, _ = run("--sut", f"{renamed} -f %i", "R-29")
    assert status == 0 and "XFAIL" in out
    assert "expected results: wireguard-go.toml" in out

    (tmp_path / "fork").mkdir()
    fork = stand_in(tmp_path / "fork", "wireguard-go", "wireguard-go v0.0.20220316-acme")
    status, out, _ = run("--sut", f"{fork} -f %i", "R-29")
    assert status == 1 and "XFAIL" not in out
    assert "no expected results for wireguard-go v0.0.20220316-acme" in out


@pytest.mark.root
def test_a_fork_records_its_own_differences(tmp_path: Path) -> None:
    sut = f"{stand_in(tmp_path, 'acme', 'acme 1.0')} -f %i"
    mine = tmp_path / "acme.toml"
    status, _, err = run("--sut", sut, "R-29", "R-01", "--write-expected", str(mine))
    assert status == 0 and f"{mine}: 1 differences recorded" in err
    assert verdict.load(mine, KNOWN).speaks_of("acme 1.0")
    assert set(verdict.load(mine, KNOWN).differences) == {"R-29"}

    status, out, _ = run("--sut", sut, "R-29", "--expected", str(mine), "--json")
    document = json.loads(out)
    assert (status, document["version"], document["expected"]) == (0, "acme 1.0", "acme.toml")
    assert document["results"][0]["verdict"] == "XFAIL"

    other = f"{stand_in(tmp_path, 'other', 'other 2')} -f %i"
    _, out, _ = run("--sut", other, "R-29", "--expected", str(mine))
    assert "acme.toml (written for acme 1.0; this is other 2)" in out


@pytest.mark.root
def test_a_program_that_does_not_say_what_it_is_has_no_expected_results(tmp_path: Path) -> None:
    program = stand_in(tmp_path, "dumb", "")
    status, out, _ = run("--sut", f"{program} -f %i", "R-29")
    assert status == 1 and "a build that does not say what it is" in out


def test_nothing_is_expected_with_none() -> None:
    status, out, _ = run("--sut", "engine", "R-105", "--expected", "none")
    assert status == 0 and out.endswith("--expected none: every failure fails the run\n")
    status, out, _ = run("--sut", "engine", "R-105")
    assert status == 0 and "expected results: engine.toml" in out


def test_recording_keeps_the_words_of_known_differences(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    status, _, _ = run("--sut", "engine", "R-01", "R-105", "--write-expected", str(mine))
    known = verdict.load(verdict.DIRECTORY / "engine.toml", KNOWN)
    assert status == 0 and verdict.load(mine, KNOWN).differences == known.differences
    # One that did not run stays; one that is gone goes.
    mine.write_text(mine.read_text() + '[R-01]\nverdict = "FAIL"\nreason = "x"\nsource = "y"\n')
    words = "--expected", str(mine), "--write-expected", str(mine)
    status, out, _ = run("--sut", "engine", "R-01", *words)
    assert status == 0 and "XPASS" in out
    assert set(verdict.load(mine, KNOWN).differences) == {"R-105"}


def test_a_missing_file_is_named() -> None:
    status, out, err = run("--sut", "engine", "R-01", "--expected", "/nowhere/x.toml")
    assert (status, out) == (1, "")
    assert err == "Error: /nowhere/x.toml: No such file or directory\n"
