"""Command lines in messages: quoted, and by a path that works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.tunnel import make_ends
from tests.support.netns import Lab
from wgpy import typed

WGPY = Path(sys.executable).with_name("wgpy")


def test_words_with_blanks_are_quoted() -> None:
    assert shlex.split(typed.line("wg", "set", "a b", Path("/c d"))) == ["wg", "set", "a b", "/c d"]


def test_root_types_a_line_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert typed.as_root("ip", "link") == "ip link"


@pytest.mark.parametrize("where", [WGPY.parents[2], Path("/")])
def test_a_program_off_root_s_path_is_named_by_a_path_from_here(
    monkeypatch: pytest.MonkeyPatch, where: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", [str(WGPY)])
    monkeypatch.setattr(shutil, "which", lambda _: str(WGPY))
    monkeypatch.chdir(where)
    named = typed.program()
    assert "/" in named
    assert Path(named).samefile(WGPY)


def test_a_program_that_sudo_finds_keeps_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", [str(WGPY)])
    (tmp_path / "wgpy").symlink_to(WGPY)
    monkeypatch.setattr(shutil, "which", lambda _: str(tmp_path / "wgpy"))
    monkeypatch.setattr(typed, "SECURE_PATH", (str(tmp_path),))
    assert typed.program() == "wgpy"


def _without_numbers(network: str) -> set[str]:
    """Its lines; a second device of the same name has another index."""
    return {re.sub(r"^\d+: ", "", line) for line in network.splitlines()}


@pytest.mark.root
def test_what_up_prints_makes_the_same_tunnel_when_typed(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "with a blank"
    folder.mkdir()
    client, _ = make_ends(lab, folder)
    said = client.wgpy("up", str(client.file)).stderr
    network = client.network()
    client.wgpy("down", client.interface)
    lines = [line.removeprefix("[#] ") for line in said.splitlines() if line.startswith("[#] ")]
    assert len(lines) > 5
    for line in lines:
        client.namespace.run("bash", "-c", line)
    assert _without_numbers(client.network()) ^ _without_numbers(network) == set()
    client.namespace.ip(f"link delete dev {client.interface}")


def test_packages_go_beside_this_program(monkeypatch, tmp_path) -> None:
    """A venv without pip of its own must not be answered with somebody else's pip."""
    python = tmp_path / "bin" / "python"
    monkeypatch.setattr(typed.sys, "executable", str(python))
    monkeypatch.setattr(typed.sys, "argv", [str(python.with_name("wgpy"))])
    monkeypatch.setattr(typed.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert typed.pip_install("a[b]") == f"uv pip install --python {python} 'a[b]'"
    monkeypatch.setattr(typed.shutil, "which", lambda _: None)
    assert typed.pip_install("c") == f"{python} -P -m pip install c"
    python.parent.mkdir()
    python.with_name("pip").touch()
    assert typed.pip_install("c") == f"{python.with_name('pip')} install c"


def test_a_hint_for_root_is_only_for_others(monkeypatch) -> None:
    monkeypatch.setattr(typed.sys, "argv", ["/opt/bin/wgpy", "up", "a b"])
    monkeypatch.setattr(typed.os, "geteuid", lambda: 0)
    assert typed.root_hint() == ""
    monkeypatch.setattr(typed.os, "geteuid", lambda: 1000)
    assert "wgpy up" in typed.root_hint() and "a b" in typed.root_hint()
