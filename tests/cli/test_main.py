"""The program itself: finding commands, plug-ins, exit codes, pipes."""

from __future__ import annotations

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


def test_a_reader_that_leaves_is_no_traceback() -> None:
    """As in `wgpy --help | head -0`."""
    with subprocess.Popen(
        [WGPY, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
