"""`wgpy spec matrix`: all targets, one HTML page."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import click
from rich.console import Console

from wgspec import matrix, report, targets, verdict
from wgspec.case import PROFILES, all_cases
from wgspec.runner import Options, Runner, left_out, select
from wgspec.target import Unavailable


@click.command("matrix")
@click.argument("files", metavar="[RESULTS…]", nargs=-1,
                type=click.Path(exists=True, dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--sut", "suts", multiple=True, metavar="TARGET", shell_complete=targets.complete,
              help="Run this target (may be repeated).")  # fmt: skip
@click.option("--profile", type=click.Choice(list(PROFILES)), default="quick", show_default=True,
              help="For the targets that are run.")  # fmt: skip
@click.option("--seed", type=int, help="For the targets that are run.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path),
              help="Keep the results of the targets that are run in this folder.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path),
              default=Path("out/wgspec-matrix.html"), show_default=True)  # fmt: skip
def matrix_command(
    files: tuple[Path, ...],
    suts: tuple[str, ...],
    profile: str,
    seed: int | None,
    save: Path | None,
    output: Path,
) -> None:
    """All targets on one page: requirements by section, verdicts that open to transcript and
    capture.

    From saved RESULTS (`wgpy spec run --json`, `wgpy spec grid --json`), and from targets run
    now: those of --sut, or all known ones when neither is given.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        documents = [matrix.read(path) for path in files]
    except matrix.BadResults as error:
        raise click.ClickException(str(error)) from error
    chosen = suts or (() if files else matrix.DEFAULT)
    number = secrets.randbelow(10**6) if seed is None else seed
    for sut in chosen:
        console.print(f"running {sut}", markup=False)
        try:
            document = run(Options(sut, profile, (), number))
        except (Unavailable, verdict.BadExpectations) as error:
            raise click.ClickException(f"{sut}: {error}") from error
        console.print(f"  {document['summary']}", markup=False)
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            path = save / f"{document['target']}.json"
            path.write_text(json.dumps(document, indent=1) + "\n")
        documents.append(document)
    runs = [matrix.run_of(d) for d in documents if "results" in d]
    if not runs:
        raise click.ClickException("no results of any target among the files")
    output.parent.mkdir(parents=True, exist_ok=True)
    text = matrix.page(runs, [d for d in documents if "cells" in d])
    output.write_text(text)
    console.print(f"{output}: {len(runs)} targets, {len(text) >> 10} KiB", markup=False)


def run(options: Options) -> matrix.Json:
    """One target's results, as `wgpy spec run --json` writes them."""
    target = targets.make(options.sut)
    cases = all_cases()
    expected = verdict.of_target(target.name, frozenset(c.id for c in cases))
    results = asyncio.run(
        Runner(target, options, expected).run(select(cases, options, virtual=target.virtual))
    )
    results += left_out(cases, options, virtual=target.virtual)
    profile = "all, in virtual time" if target.virtual else options.profile
    about = {"sut": options.sut, "version": target.version, "profile": profile}
    return report.as_json(results, target.name, options.seed, about)
