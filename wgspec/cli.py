"""`wgpy spec`: black-box conformance tests of any WireGuard against the whitepaper."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

import click

from wgspec import report, targets, terminal, verdict
from wgspec.case import COSTS, IMPLEMENTATIONS, LEVELS, PROFILES, SECTIONS, Case
from wgspec.cases import all_cases
from wgspec.cli_grid import grid_command
from wgspec.cli_matrix import matrix_command
from wgspec.options import file_option, folder_option, json_option, report_option
from wgspec.run import Choose, Run, chosen_cases, differences, expected_of_build, run
from wgspec.runner import Options, exit_status
from wgspec.target import Target, Unavailable

NOTHING_MATCHED = 2


@click.group()
def spec() -> None:
    """Black-box conformance tests for any WireGuard."""


spec.add_command(grid_command)
spec.add_command(matrix_command)


@spec.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the requirements.

    For each: id, level, cost, section of the whitepaper, and what implementations are
    known to do.
    """
    cases = all_cases()
    if as_json:
        click.echo(json.dumps([case_json(c) for c in cases], indent=1))
        return
    for letter, title in SECTIONS.items():
        click.secho(f"\n{letter}. {title}", bold=True)
        for case in (c for c in cases if c.section == letter):
            click.echo(f"{case.id:6} {case.level} {case.cost} §{case.paper:7} {case.text}")
            for name, text in case.known.items():
                click.secho(f"{'':21}known of {name}: {text}", dim=True)
    for names in (LEVELS, COSTS, IMPLEMENTATIONS):
        legend = "; ".join(f"{k} {v}" for k, v in names.items())
        click.secho(f"\n{legend}", dim=True)


def case_json(case: Case) -> dict[str, Any]:
    """A requirement as JSON."""
    return {
        "id": case.id,
        "section": case.section,
        "section_title": SECTIONS[case.section],
        "level": case.level,
        "cost": case.cost,
        "paper": case.paper,
        "requirement": case.text,
        "known": dict(case.known),
    }


def _sut_help() -> str:
    return "What to test: " + "; ".join(f"{name} ({text})" for name, text in targets.HELP.items())


@spec.command("run")
@click.option("--sut", required=True, metavar="TARGET", help=_sut_help(),
              shell_complete=targets.complete)  # fmt: skip
@click.argument("ids", nargs=-1)
@click.option("--profile", type=click.Choice(list(PROFILES)), default="quick", show_default=True,
              help="quick: under a minute; full: under five; long: 90-540 s timers.")  # fmt: skip
@click.option("--strict", is_flag=True,
              help="Judge informative cases too and ignore expected results.")  # fmt: skip
@click.option("--seed", type=int, help="Seed, to repeat a run's random choices.")
@click.option("--expected", metavar="FILE|none",
              help="Known differences of this build. Default: those of the version that "
                   "the target says it is.")  # fmt: skip
@file_option("--write-expected", help="Record this build's differences, for --expected.")
@json_option
@report_option(*report.FORMATS)
@folder_option("--captures", help="Write a capture of every case, with its keys.")
@click.option("--dry-run", is_flag=True, help="Show what would run.")
def run_command(
    sut: str,
    ids: tuple[str, ...],
    profile: str,
    strict: bool,
    seed: int | None,
    expected: str | None,
    write_expected: Path | None,
    as_json: bool,
    reports: tuple[Path, ...],
    captures: Path | None,
    dry_run: bool,
) -> None:
    """Run cases against a target.

    IDS are requirements (R-09) or section letters (A); default: the whole profile.  Exit
    status: 0 as expected (or recorded with --write-expected), 1 a failure or an unexpected
    pass, 2 nothing to run.
    """
    try:
        target, choose = targets.make(sut), _choice(expected)
    except (Unavailable, verdict.BadExpectations) as error:
        raise click.ClickException(str(error)) from error
    chosen_seed = secrets.randbelow(10**6) if seed is None else seed
    options = Options(sut, profile, ids, chosen_seed, strict, expected or "")
    cases = chosen_cases(target, options)
    if not cases:
        click.echo(f"no case matches {' '.join(ids) or profile}", err=True)
        raise SystemExit(NOTHING_MATCHED)
    if dry_run:
        _show_plan(cases, as_json)
        return
    finished = _run(target, options, choose, len(cases))
    for path in reports:
        report.write(path, finished)
    _show(finished, as_json, captures)
    status = exit_status(finished.results)
    if write_expected is not None:
        found = differences(finished)
        verdict.write(write_expected, finished.version, found)
        click.echo(f"{write_expected}: {len(found)} differences recorded", err=True)
        status = 0
    raise SystemExit(status)


def _choice(expected: str | None) -> Choose:
    """How `--expected` chooses; raises `BadExpectations`."""
    if expected is None:
        return expected_of_build
    if expected == "none":
        return lambda _version: None
    loaded = verdict.load(Path(expected), (case.id for case in all_cases()))
    return lambda _version: loaded


def _show_plan(cases: list[Case], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([case_json(case) for case in cases], indent=1))
        return
    for case in cases:
        click.echo(f"{case.id:6} {case.text}")


def _run(target: Target, options: Options, choose: Choose, count: int) -> Run:
    try:
        with terminal.counting(options.shown_sut, count) as progress:
            return asyncio.run(run(target, options.reporting(progress), choose))
    except (Unavailable, verdict.BadExpectations) as error:
        raise click.ClickException(str(error)) from error


def _show(finished: Run, as_json: bool, captures: Path | None) -> None:
    """The run on standard output; failures come with captures, wherever they are written."""
    if captures is not None:
        for result in finished.results:
            report.write_capture(captures, result, finished.target)
    if as_json:
        click.echo(json.dumps(report.as_json(finished), indent=1))
        return
    terminal.print_run(finished)
    if finished.failed:
        folder = captures or Path(tempfile.mkdtemp(prefix="wgspec-"))
        for result in finished.failed:
            where = report.write_capture(folder, result, finished.target)
            terminal.print_failure(result, where)
    terminal.print_sum(finished)
