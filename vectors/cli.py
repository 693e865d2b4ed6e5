"""`wgpy vectors`: machine-readable test vectors for WireGuard."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import track

from vectors.generators import file
from vectors.generators.catalogue import FILES
from vectors.model import DATA, VectorFileError, load
from vectors.transcript import (
    TRANSCRIPTS,
    is_transcript,
    load_transcript,
    verify_transcript,
)
from vectors.verify import Failure, verify_file
from wgpy import typed
from wgpy.cli.common import echo_json, json_option
from wgpy.protocol.crypto import BACKENDS

SEED = 1
PEERS = ("wireguard-go", "microvm 6.1", "microvm 6.12", "boringtun")
_F = TypeVar("_F", bound=Callable[..., Any])


def _made(_context: object, _parameter: object, folder: Path) -> Path:
    """The folder, created now, so that a recording is not lost at its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{folder}: {error.strerror}") from error
    return folder


def _output_option(default: Path) -> Callable[[_F], _F]:
    return click.option(
        "--output", type=click.Path(path_type=Path), default=default, callback=_made,
        metavar="FOLDER", help="Where the files go (default: the project's own folder).",
    )  # fmt: skip


def _write(folder: Path, name: str, text: str) -> Path:
    """The file's path; an error becomes one line."""
    path = folder / f"{name}.json"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    return path


@click.group()
def vectors() -> None:
    """Machine-readable test vectors for WireGuard."""


@vectors.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--crypto",
    "backends",
    type=click.Choice(BACKENDS),
    multiple=True,
    help="Only this backend (default: all three).",
)
@json_option
def verify(files: tuple[Path, ...], backends: tuple[str, ...], as_json: bool) -> None:
    """Compute every vector again and compare.

    FILES are vector files or transcripts; without them, all files of the project.  Exit
    status 1 when a vector does not match.
    """
    paths = files or (*sorted(DATA.glob("*.json")), *sorted(TRANSCRIPTS.glob("*.json")))
    if not paths:
        fix = typed.wgpy("vectors", "generate")
        raise click.ClickException(f"no vector files in {DATA}: run `{fix}`")
    failures: list[Failure] = []
    count = 0
    for path in track(paths, "verifying", console=Console(stderr=True), disable=as_json):
        try:
            checked, failed = _verify(path, backends or BACKENDS)
        except VectorFileError as error:
            failures.append(Failure(path.name, 0, "", str(error)))
            continue
        count += checked
        failures += failed
    if as_json:
        echo_json({"checked": count, "failures": [f._asdict() for f in failures]})
    else:
        for failure in failures:
            click.echo(f"{click.style('FAIL', fg='red')} {failure}")
        colour = "red" if failures else "green"
        click.secho(f"{count} checks, {len(failures)} failed", fg=colour)
    sys.exit(1 if failures else 0)


def _verify(path: Path, backends: Iterable[str]) -> tuple[int, list[Failure]]:
    """How many vectors of a file (or conversations of a transcript) were checked, and what
    does not fit; raises `VectorFileError`."""
    failures: list[Failure] = []
    count = 0
    if is_transcript(path):
        document = load_transcript(path)
        for name in backends:
            count += len(document["conversations"])
            failures += [
                Failure(document["name"], tcid, name, problem)
                for tcid, problem in verify_transcript(document, name)
            ]
        return count, failures
    vector_file = load(path)
    for name in backends:
        count += sum(1 for _ in vector_file.tests())
        failures += verify_file(vector_file, name)
    return count, failures


@vectors.command("record")
@click.argument("suts", metavar="[TARGET…]", nargs=-1)
@_output_option(TRANSCRIPTS)
@json_option
def record_command(suts: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Record transcripts with real peers.

    TARGETs are those of `wgpy spec run` (default: wireguard-go, Linux 6.1 and 6.12 in a
    micro-VM, boringtun).  Needs root.  The keys are different every time.
    """
    from wgspec.target import Unavailable

    written = []
    for sut in suts or PEERS:
        click.echo(f"recording with {sut}", err=True)
        try:
            document = _recorded(sut)
        except Unavailable as error:
            raise click.ClickException(f"{sut}: {error}") from error
        path = _write(output, document["name"], json.dumps(document, indent=1) + "\n")
        count = len(document["conversations"])
        written.append({"file": str(path), "conversations": count})
        if not as_json:
            click.echo(f"{path}: {count} conversations")
    if as_json:
        echo_json(written)


def _recorded(sut: str) -> dict[str, Any]:
    """One target's transcript; raises `Unavailable`, and click's error when it goes wrong."""
    from vectors.record import RecordingFailed, record
    from wgspec import targets

    command = f"wgpy vectors record {shlex.quote(sut)}"
    target = targets.make(sut)
    try:
        return asyncio.run(record(target, command, lambda text: click.echo(f"  {text}", err=True)))
    except RecordingFailed as error:
        raise click.ClickException(f"{sut}: {error}") from error


@vectors.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(FILES)))
@click.option("--seed", default=SEED, show_default=True, help="Seed of the generated vectors.")
@_output_option(DATA)
@json_option
def generate(names: tuple[str, ...], seed: int, output: Path, as_json: bool) -> None:
    """Write vector files.

    All of them, or those with these NAMES; the same seed gives the same bytes.
    """
    written = []
    for name in names or sorted(FILES):
        vector_file = file(name, seed)
        path = _write(output, name, vector_file.dump())
        count = sum(1 for _ in vector_file.tests())
        written.append({"file": str(path), "vectors": count})
        if not as_json:
            click.echo(f"{path}: {count} vectors")
    if as_json:
        echo_json(written)


@vectors.command("list")
@json_option
def list_files(as_json: bool) -> None:
    """Show what each file contains and what verified it."""
    if as_json:
        echo_json(
            [
                {"name": name, "holds": entry.description, "also_verified_by": entry.second}
                for name, entry in FILES.items()
            ]
        )
        return
    for name, entry in FILES.items():
        click.echo(f"{name:12} {entry.description}; also verified by {entry.second}")
