"""`wgpy config check`: every mistake in a wg-quick file, with its place and the fix."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Final

import click

from wgpy.cli.common import echo_json, json_option, warn_if_exposed
from wgpy.config import ConfigError, Problem, parse_config
from wgpy.config.values import DEFAULT_TABLES, c_number

TABLE_FOLDERS: Final = tuple(
    map(Path, ("/usr/share/iproute2", "/usr/lib/iproute2", "/etc/iproute2"))
)


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a wg-quick file and report every mistake in it.

    FILE may be - for standard input.  Exit code 0: the file can be used (there may be
    notes); 1: it cannot.  Keys are never printed.
    """
    text = read_text(file)
    warn_if_exposed(file)
    try:
        problems = parse_config(text, file=str(file), tables=routing_tables()).notes
        valid = True
    except ConfigError as error:
        problems, valid = error.problems, False
    if as_json:
        document = {"file": str(file), "valid": valid, "problems": [as_dict(p) for p in problems]}
        echo_json(document)
    else:
        for problem in problems:
            click.echo(render(problem, str(file)))
        errors = sum(not problem.note for problem in problems)
        remarks = len(problems) - errors
        click.echo(summary(str(file), errors, remarks))
    sys.exit(0 if valid else 1)


def read_text(file: Path) -> str:
    """The file's text; a byte that is not UTF-8 (in a comment, say) is kept unchanged."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    return raw.decode(errors="surrogateescape")


def routing_tables() -> dict[str, int]:
    """The names of routing tables that `ip` knows, from the files that it reads."""
    tables = dict(DEFAULT_TABLES)
    for folder in TABLE_FOLDERS:
        for path in (folder / "rt_tables", *sorted(folder.glob("rt_tables.d/*.conf"))):
            with contextlib.suppress(OSError):
                tables |= _tables_of(path.read_text(errors="replace"))
    return tables


def _tables_of(text: str) -> dict[str, int]:
    found = {}
    for words in (line.partition("#")[0].split() for line in text.splitlines()):
        number = c_number(words[0]) if len(words) >= 2 else None
        if number is not None:
            found[words[1]] = number
    return found


def as_dict(problem: Problem) -> dict[str, Any]:
    """A problem as JSON."""
    return {
        "line": problem.line,
        "column": problem.column,
        "severity": "note" if problem.note else "error",
        "message": problem.message,
        "text": problem.text,
        "fix": problem.fix,
        "replacement": problem.replacement,
    }


def render(problem: Problem, file: str) -> str:
    """A problem for people: place, what is wrong, the fix."""
    kind = click.style("note", fg="cyan") if problem.note else click.style("error", fg="red")
    place = click.style(f"{file}:{problem.line}:{problem.column}", bold=True)
    what = f": {problem.text}" if problem.text else ""
    text = f"{place}: {kind}: {problem.message}{what}"
    if problem.fix:
        text += f"\n    {click.style('fix', fg='green')}: {problem.fix}"
    return text


def summary(file: str, errors: int, remarks: int) -> str:
    """The last line: the result."""
    notes = f", {remarks} note{'s' * (remarks != 1)}" if remarks else ""
    if errors:
        return click.style(f"{file}: {errors} error{'s' * (errors != 1)}{notes}", fg="red")
    return click.style(f"{file}: can be used{notes}", fg="green")
