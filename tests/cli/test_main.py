"""The program itself: finding commands, plug-ins, exit codes, pipes."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from wgpy.cli import main as program

WGPY = Path(sys.executable).with_name("wgpy")


def plugins(monkeypatch: pytest.MonkeyPatch, folder: Path, **sources: str) -> None:
    """Install plug-ins: name of the command = source of its module."""
    points = {}
    monkeypatch.syspath_prepend(str(folder))
    for name, source in sources.items():
        (folder / f"plugin_{name}.py").write_text(source)
        points[name] = EntryPoint(name, f"plugin_{name}:command", program.PLUGIN_GROUP)
    monkeypatch.setattr(program, "_plugins", lambda: points)


COMMAND = '''"""Says hello."""
import click
@click.command()
def command():
    click.echo("hello")
'''


def test_help_lists_every_command_without_importing_any(run, monkeypatch, tmp_path) -> None:
    plugins(monkeypatch, tmp_path, good=COMMAND, broken='"""Is broken."""\nraise SystemExit(9)\n')
    result = run("--help")
    assert result.exit_code == 0
    for name, (_, line) in program.COMMANDS.items():
        assert name in result.output
        assert line[:30] in result.output
    assert "Says hello." in result.output
    assert "Is broken." in result.output
    assert "plugin_good" not in sys.modules


def test_only_the_invoked_plugin_is_imported(run, monkeypatch, tmp_path) -> None:
    plugins(monkeypatch, tmp_path, hello=COMMAND, other="raise SystemExit(9)\n")
    assert run("hello").output == "hello\n"
    assert "plugin_other" not in sys.modules


@pytest.mark.parametrize("source", ["import no_such_module_anywhere\n", "command = 3\n", ""])
def test_a_plugin_that_cannot_be_loaded_is_an_error_with_words(
    run, monkeypatch, tmp_path, source: str
) -> None:
    sys.modules.pop("plugin_bad", None)
    plugins(monkeypatch, tmp_path, bad=source)
    result = run("bad")
    assert result.exit_code == 1
    assert "Error: command bad" in result.output


def test_a_mistyped_command_is_suggested(run) -> None:
    result = run("shwo")
    assert result.exit_code == 2
    assert "'show'" in result.output


@pytest.mark.parametrize("name", sorted(program.COMMANDS))
def test_every_command_has_help_and_an_example_of_its_use(run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_version(run) -> None:
    assert run("--version").output.startswith("wgpy ")


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("genpsk",), ("sim",), ("sim", "rekey", "loss")], ids=str
)
def test_a_reader_that_leaves_is_met_with_silence(words: tuple[str, ...]) -> None:
    """As in `wgpy --help | head -0`, whether much is written or little."""
    with subprocess.Popen(
        [WGPY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        ("FileNotFoundError(2, 'No such file', '/x')", 1, "Error: /x: No such file\n"),
        ("OSError('just so')", 1, "Error: just so\n"),
        ("KeyboardInterrupt", 130, ""),
        ("KeyError('mode')", 1, "Error: internal error: KeyError: 'mode' (WGPY_TRACEBACK=1"),
    ],
)
def test_whatever_a_command_raises_ends_as_one_line(
    run, monkeypatch, tmp_path, failure: str, code: int, words: str
) -> None:
    name = f"raises{code}{len(failure)}"
    source = COMMAND.replace('click.echo("hello")', f"raise {failure}")
    plugins(monkeypatch, tmp_path, **{name: source})
    result = run(name)
    assert result.exit_code == code
    assert result.output.startswith(words)
    assert result.output.count("\n") == bool(words)


@pytest.mark.parametrize("sudo", [True, False])
def test_a_denied_file_comes_with_a_command_that_can_be_typed(
    run, monkeypatch, tmp_path, sudo: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", [str(WGPY), "up", "a b.conf"])
    monkeypatch.setattr(shutil, "which", {"sudo": "/usr/bin/sudo" if sudo else None}.get)
    source = COMMAND.replace('click.echo("hello")', "raise PermissionError(13, 'Denied', '/x')")
    plugins(monkeypatch, tmp_path, denied=source)
    said = shlex.split(run("denied").output.split("`")[1])
    typed = said[1:] if sudo else shlex.split(said[2])
    assert said[0] == ("sudo" if sudo else "su")
    assert Path(typed[0]).samefile(WGPY)
    assert typed[1:] == ["up", "a b.conf"]


def test_what_ends_in_conf_is_a_file(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("up", "ping"):
        assert "x.conf does not exist" in run(command, "x.conf").stderr
        assert "/etc/wireguard/x.conf does not exist" in run(command, "x").stderr
        assert "x.conf.conf" not in run(command, "x.conf").stderr
