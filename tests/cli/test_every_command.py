"""Every command of every group where things are not as it needs them.

`every_command` runs them all; here is what must never come out: a traceback, an internal
error, an unknown exit code, more than one line of error, a hang after Ctrl-C.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest

from tests.cli.every_command import AS_JSON, every_command
from wgpy.cli.main import main

CONDITIONS = (
    "no rights",
    "no tun",
    "no file",
    "noise",
    "text",
    "folder",
    "no socket",
    "another policy",
    "closed pipe",
    AS_JSON,
)
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
FAULTS = ("Traceback", "internal error", "Exception ignored", "Broken pipe", "BrokenPipe")
CODES = (0, 1, 2, 130)
LOST_INTERRUPT = re.compile(
    r"^Exception ignored in: <function _get_module_lock.*?^KeyboardInterrupt: ?\n", re.S | re.M
)
"""What Python itself says when Ctrl-C comes in one certain moment of an import."""
BAD_FILE = ("no file", "noise", "text", "folder")

@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with one file of results for each condition."""
    folder = tmp_path_factory.mktemp("every")
    for path in (folder, folder.parent):
        path.chmod(0o755)
    program = Path(__file__).with_name("every_command.py")
    done = subprocess.run(
        [*NAMESPACES, sys.executable, "-P", program, folder, *CONDITIONS],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(program.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.root
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_mistake_or_a_lack_is_told_in_one_line(results: Path, condition: str) -> None:
    path = results / f"{condition.replace(' ', '-')}.json"
    found = json.loads(path.read_text())
    assert found
    wrong = [text for result in found for text in _complaints(result, condition)]
    assert not wrong, "\n".join(wrong)


def _complaints(result: dict[str, object], condition: str) -> list[str]:
    command = f"{result['command']} {' '.join(map(str, result['words']))}"
    code, out, err = result["code"], str(result["out"]), str(result["err"])
    err = LOST_INTERRUPT.sub("", err)
    found = [f"says {fault!r}" for fault in FAULTS if fault in out + err]
    if code is None:
        found.append("hangs after Ctrl-C")
    elif code not in CODES:
        found.append(f"ends with {code}")
    if len(re.findall(r"^(?:Error|wireguard-py(?:: error)?):", err, re.MULTILINE)) > 1:
        found.append("has several errors")
    if code in (1, 2) and condition != "closed pipe" and not (out + err).strip():
        found.append(f"ends with {code} and no word")
    if code == 0 and condition in BAD_FILE and not result["interrupted"]:
        found.append("ends with 0")
    if condition == AS_JSON and not result["interrupted"] and not _is_json(out, code == 0):
        found.append(f"prints no JSON but {out[:200]!r}")
    return [f"{command}: {text}\n{err[-600:]}" for text in found]


def _is_json(out: str, needed: bool) -> bool:
    """One document, or one per line as things happen; nothing only where nothing is needed."""
    if not out.strip():
        return not needed
    for documents in ([out], out.splitlines()):
        with suppress(ValueError):
            return bool([json.loads(text) for text in documents])
    return False


@pytest.mark.parametrize("path", [" ".join(path) for path, _ in every_command()])
def test_help_fits_80_columns_and_is_not_cut(run, path: str) -> None:
    result = run(*path.split(), "--help", env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80


def _groups(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return []
    context = click.Context(command)
    below = [(name, command.get_command(context, name)) for name in command.list_commands(context)]
    return [words] + [group for name, c in below if c for group in _groups(c, (*words, name))]


@pytest.mark.parametrize("words", _groups(main), ids=" ".join)
def test_the_list_of_a_group_has_whole_sentences(run, words: tuple[str, ...]) -> None:
    result = run(*words, "--help", env={"COLUMNS": "80"})
    listed = result.output.partition("Commands:")[2]
    assert listed
    assert not [line for line in listed.splitlines() if line.endswith(("...", "…"))]


@pytest.mark.parametrize("command", [c for _, c in every_command()], ids=lambda c: c.name)
def test_json_is_a_flag_of_every_command(command: click.Command) -> None:
    found = [option for option in command.params if "--json" in option.opts]
    assert [option.is_flag for option in found if isinstance(option, click.Option)] == [True]
