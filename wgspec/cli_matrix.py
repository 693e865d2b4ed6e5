"""`wgpy spec matrix`: all targets, one HTML page."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import click

from wgspec import matrix, report, targets, terminal, verdict
from wgspec.case import PROFILES
from wgspec.options import file_option, folder_option, json_option, write_file
from wgspec.run import chosen_cases, run
from wgspec.runner import Options
from wgspec.target import Unavailable


@click.command("matrix")
@click.argument("files", metavar="[RESULTS…]", nargs=-1,
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--sut", "suts", multiple=True, metavar="TARGET", shell_complete=targets.complete,
              help="Run this target (may be repeated).")  # fmt: skip
@click.option("--profile", type=click.Choice(list(PROFILES)), default="quick", show_default=True,
              help="For the targets that are run.")  # fmt: skip
@click.option("--seed", type=int, help="For the targets that are run.")
@folder_option("--save", help="Keep the results of the targets that are run.")
@file_option("--output", default=Path("out/wgspec-matrix.html"), show_default=True,
             help="The page.")  # fmt: skip
@json_option
def matrix_command(
    files: tuple[Path, ...],
    suts: tuple[str, ...],
    profile: str,
    seed: int | None,
    save: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Show the results of all targets on one page.

    Requirements by section; each verdict opens its transcript and capture.  Uses saved RESULTS
    (`--report FILE.json` of `wgpy spec run` and `wgpy spec grid`) and targets that run now:
    those of --sut, or all known ones if neither is given.
    """
    try:
        documents = [matrix.read(path) for path in files]
    except matrix.BadResults as error:
        raise click.ClickException(str(error)) from error
    chosen = suts or (() if files else matrix.DEFAULT)
    number = secrets.randbelow(10**6) if seed is None else seed
    for sut in chosen:
        document = run_now(Options(sut, profile, (), number))
        click.echo(f"{document['sut']}: {_sum(document)}", err=True)
        if save is not None:
            path = save / f"{document['target']}.json"
            write_file(path, json.dumps(document, indent=1) + "\n")
        documents.append(document)
    runs = [matrix.run_of(d) for d in documents if "results" in d]
    if not runs:
        raise click.ClickException("no results of any target among the files")
    text = matrix.page(runs, [d for d in documents if "cells" in d])
    write_file(output, text)
    click.echo(f"{output}: {len(runs)} targets, {len(text) >> 10} KiB", err=True)
    if as_json:
        click.echo(json.dumps(documents, indent=1))


def _sum(document: matrix.Json) -> str:
    return ", ".join(f"{count} {name}" for name, count in document["summary"].items() if count)


def run_now(options: Options) -> matrix.Json:
    """One target's results, as `wgpy spec run --json` prints them."""
    try:
        target = targets.make(options.sut)
        with terminal.counting(options.shown_sut, len(chosen_cases(target, options))) as progress:
            finished = asyncio.run(run(target, options.reporting(progress)))
    except (Unavailable, verdict.BadExpectations) as error:
        raise click.ClickException(f"{options.shown_sut}: {error}") from error
    return report.as_json(finished)
