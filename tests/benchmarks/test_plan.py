"""Which implementations and options a command line means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.cli import bench, system_options
from benchmarks.implementations import ImplementationError, Kind, parse
from benchmarks.loads import LOADS

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
        {"cores": "0,4095", "pinning": "pinned"},
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_starts(wrong: dict[str, Any]) -> None:
    with pytest.raises(click.ClickException):
        system_options(**{**DEFAULTS, **wrong})


def test_every_command_says_what_it_does() -> None:
    for name, command in bench.commands.items():
        assert command.help, name
