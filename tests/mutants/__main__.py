"""`python -P -m tests.mutants`: plant faults in wgpy and show which case catches which."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tests.mutants import run
from tests.mutants.faults import FAULTS
from wgspec.options import json_option, report_option, write_file


@click.command()
@click.argument("names", nargs=-1, metavar="[FAULT]...")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@json_option
@report_option("json", "md")
@click.option("--list", "list_only", is_flag=True, help="Only show the faults.")
def mutants(
    names: tuple[str, ...],
    seed: int,
    jobs: int,
    as_json: bool,
    reports: tuple[Path, ...],
    list_only: bool,
) -> None:
    """Plant faults in wgpy, one at a time, and show which case catches which.

    Exit status 1 when a fault is not caught, or a case fails without a fault.
    """
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise click.ClickException(f"no such fault: {', '.join(unknown)} (see --list)")
    chosen = names or tuple(FAULTS)
    if list_only:
        _list(chosen, as_json)
        return
    if trouble := run.trouble_without(chosen, seed):
        raise click.ClickException(trouble)
    outcomes = run.try_all(
        chosen, seed=seed, jobs=jobs, progress=lambda outcome: _print(outcome, err=as_json)
    )
    document = json.dumps(run.as_json(outcomes), indent=1)
    for path in reports:
        write_file(path, document + "\n" if path.suffix == ".json" else run.as_markdown(outcomes))
    if as_json:
        click.echo(document)
    missed = [o.fault.name for o in outcomes if not o.caught_by]
    click.echo(f"\n{len(outcomes) - len(missed)} of {len(outcomes)} faults caught", err=as_json)
    raise SystemExit(1 if missed else 0)


def _list(names: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        faults = [{"fault": n, "what": FAULTS[n].what, "module": FAULTS[n].module} for n in names]
        click.echo(json.dumps(faults, indent=1))
        return
    for name in names:
        click.echo(f"{name:26} {FAULTS[name].what}")


def _print(outcome: run.Outcome, *, err: bool) -> None:
    caught = ", ".join(outcome.caught_by) or "NOTHING " + outcome.trouble
    text = f"{outcome.fault.name:26} {outcome.fault.what}\n{'':26} caught by {caught}"
    click.secho(text, fg=None if outcome.caught_by else "red", err=err)


if __name__ == "__main__":
    mutants(prog_name="python -P -m tests.mutants")
