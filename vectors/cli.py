"""`wgpy vectors`: generate the files and verify them."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

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
from wgpy.protocol.crypto import BACKENDS

SEED = 1
PEERS = ("wireguard-go", "microvm 6.1", "microvm 6.12", "boringtun")


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
@click.option("--json", "as_json", is_flag=True, help="Print the result for machines.")
def verify(files: tuple[Path, ...], backends: tuple[str, ...], as_json: bool) -> None:
    """Compute every vector of FILES (default: all) again and compare."""
    console = Console(stderr=True)
    paths = files or (*sorted(DATA.glob("*.json")), *sorted(TRANSCRIPTS.glob("*.json")))
    if not paths:
        raise click.ClickException(f"no vector files in {DATA}: run `wgpy vectors generate`")
    failures: list[Failure] = []
    count = 0
    for path in track(paths, "verifying", console=console, disable=as_json):
        try:
            checked, failed = _verify(path, backends or BACKENDS)
        except VectorFileError as error:
            failures.append(Failure(path.name, 0, "", str(error)))
            continue
        count += checked
        failures += failed
    if as_json:
        document = {"checked": count, "failures": [f._asdict() for f in failures]}
        click.echo(json.dumps(document, indent=2))
    else:
        for failure in failures:
            console.print(f"[red]FAIL[/] {failure}", highlight=False)
        colour = "red" if failures else "green"
        console.print(f"[{colour}]{count} checks, {len(failures)} failed")
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
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=TRANSCRIPTS,
    help="Folder for the files (default: the project's own).",
)
def record_command(suts: tuple[str, ...], output: Path) -> None:
    """Record transcripts with real peers: wgspec's TARGETs (default: wireguard-go, Linux 6.1
    and 6.12 in a micro-VM, boringtun).  Needs root.  Other keys every time."""
    from vectors.record import RecordingFailed, record
    from wgspec import targets
    from wgspec.target import Unavailable

    output.mkdir(parents=True, exist_ok=True)
    for sut in suts or PEERS:
        click.echo(f"recording with {sut}")
        command = f"wgpy vectors record {shlex.quote(sut)}"
        try:
            target = targets.make(sut)
            document = asyncio.run(record(target, command, lambda text: click.echo(f"  {text}")))
        except (Unavailable, RecordingFailed) as error:
            raise click.ClickException(f"{sut}: {error}") from error
        path = output / f"{document['name']}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{path}: {len(document['conversations'])} conversations")


@vectors.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(FILES)))
@click.option("--seed", default=SEED, show_default=True, help="Another seed, other vectors.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=DATA,
    help="Folder for the files (default: the project's own).",
)
def generate(names: tuple[str, ...], seed: int, output: Path) -> None:
    """Write the files NAMES (default: all); the same seed gives the same bytes."""
    output.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(FILES):
        vector_file = file(name, seed)
        path = output / f"{name}.json"
        path.write_text(vector_file.dump(), encoding="utf-8")
        click.echo(f"{path}: {sum(1 for _ in vector_file.tests())} vectors")


@vectors.command("list")
def list_files() -> None:
    """What each file holds and who verified it."""
    for name, entry in FILES.items():
        click.echo(f"{name:12} {entry.description}; also verified by {entry.second}")
