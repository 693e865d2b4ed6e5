"""`wgpy spec`: list the requirements and run them against a target."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from wgspec import mutants, report, targets, verdict
from wgspec.case import COSTS, IMPLEMENTATIONS, LEVELS, PROFILES, SECTIONS, Case, all_cases
from wgspec.cli_grid import grid_command
from wgspec.cli_matrix import matrix_command
from wgspec.runner import Options, Result, Runner, exit_status, left_out, select
from wgspec.target import Target, Unavailable

NOTHING_MATCHED = 2


@click.group()
def spec() -> None:
    """Black-box conformance tests for any WireGuard."""


spec.add_command(grid_command)
spec.add_command(matrix_command)


@spec.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_command(as_json: bool) -> None:
    """List the requirements: id, level, cost, section, and what is known of implementations."""
    cases = all_cases()
    if as_json:
        click.echo(json.dumps([case_json(c) for c in cases], indent=1))
        return
    console = Console()
    for letter, title in SECTIONS.items():
        console.print(f"\n[bold]{letter}. {title}[/bold]")
        for case in (c for c in cases if c.section == letter):
            console.print(
                f"{case.id:6} {case.level} {case.cost} §{case.paper:7} {case.text}",
                highlight=False, markup=False, soft_wrap=True,
            )  # fmt: skip
            for name, text in case.known.items():
                line = f"{'':21}known of {name}: {text}"
                console.print(line, style="dim", markup=False, soft_wrap=True)
    for names in (LEVELS, COSTS, IMPLEMENTATIONS):
        legend = "; ".join(f"{k} {v}" for k, v in names.items())
        console.print(f"\n{legend}", style="dim", markup=False, highlight=False, soft_wrap=True)


def case_json(case: Case) -> dict[str, Any]:
    """A requirement for machines."""
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
              help="Judge informative cases too and excuse nothing.")  # fmt: skip
@click.option("--seed", type=int, help="Repeat a run's random choices.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--html", "html_folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Show what would run.")
def run_command(
    sut: str,
    ids: tuple[str, ...],
    profile: str,
    strict: bool,
    seed: int | None,
    json_file: Path | None,
    junit: Path | None,
    html_folder: Path | None,
    dry_run: bool,
) -> None:
    """Run cases against a target: a whole profile, or IDS (R-09) and section letters (A).

    Exit status: 0 as expected, 1 a failure or an unexpected pass, 2 nothing to run.
    """
    console = Console(stderr=False)
    chosen_seed = secrets.randbelow(10**6) if seed is None else seed
    options = Options(sut, profile, ids, chosen_seed, strict,
                      progress=lambda r: report.print_line(console, r))  # fmt: skip
    target, cases, expectations = _prepare(options)
    if not cases:
        click.echo(f"no case matches {' '.join(ids) or profile}", err=True)
        raise SystemExit(NOTHING_MATCHED)
    if dry_run:
        for case in cases:
            click.echo(f"{case.id:6} {case.text}")
        return
    try:
        results = asyncio.run(Runner(target, options, expectations).run(cases))
    except Unavailable as error:
        raise click.ClickException(str(error)) from error
    results += left_out(all_cases(), options, virtual=target.virtual)
    results.sort(key=lambda r: r.case.number)
    _finish(console, results, target, options, html_folder)
    if json_file is not None:
        about = {"sut": sut, "version": target.version, "profile": profile}
        if target.virtual:
            about["profile"] = "all, in virtual time"
        report.write_json(json_file, results, target.name, chosen_seed, about)
    if junit is not None:
        report.write_junit(junit, results, target.name)
    raise SystemExit(exit_status(results))


def _prepare(
    options: Options,
) -> tuple[Target, list[Case], dict[str, verdict.Expectation] | None]:
    cases = all_cases()
    try:
        target = targets.make(options.sut)
        expected = verdict.of_target(target.name, frozenset(c.id for c in cases))
    except (Unavailable, verdict.BadExpectations) as error:
        raise click.ClickException(str(error)) from error
    return target, select(cases, options, virtual=target.virtual), expected


def _finish(
    console: Console,
    results: list[Result],
    target: Target,
    options: Options,
    html_folder: Path | None,
) -> None:
    """Explain the failures, write the pages, say the sum."""
    failed = [r for r in results if r.verdict.fails_run]
    folder = html_folder
    if failed and folder is None:
        folder = Path(tempfile.mkdtemp(prefix="wgspec-"))
    for result in failed:
        assert folder is not None
        report.print_failure(console, result, report.write_capture(folder, result, target.name))
    if html_folder is not None:
        report.write_html(html_folder, results, target.name)
    console.print(
        f"\n{target.name}: {report.summary(results)} (seed {options.seed})",
        highlight=False, markup=False,
    )  # fmt: skip


@spec.command("mutants")
@click.argument("names", nargs=-1)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--list", "list_only", is_flag=True, help="Only show the faults.")
def mutants_command(
    names: tuple[str, ...],
    seed: int,
    jobs: int,
    json_file: Path | None,
    markdown: Path | None,
    list_only: bool,
) -> None:
    """Plant faults in wgpy, one at a time, and show which case catches which.

    Exit status 1 when one is not caught (or a case fails without any).
    """
    console = Console(soft_wrap=True, highlight=False)
    unknown = [name for name in names if name not in mutants.FAULTS]
    if unknown:
        raise click.ClickException(f"no such fault: {', '.join(unknown)} (see --list)")
    if list_only:
        for fault in mutants.FAULTS.values():
            console.print(f"{fault.name:26} {fault.what}", markup=False)
        return
    chosen = names or tuple(mutants.FAULTS)
    if trouble := mutants.trouble_without(chosen, seed):
        raise click.ClickException(trouble)
    outcomes = mutants.try_all(
        chosen, seed=seed, jobs=jobs,
        progress=lambda outcome: _print_outcome(console, outcome),
    )  # fmt: skip
    if json_file is not None:
        json_file.write_text(json.dumps(mutants.as_json(outcomes), indent=1) + "\n")
    if markdown is not None:
        markdown.write_text(mutants.as_markdown(outcomes))
    missed = [o.fault.name for o in outcomes if not o.caught_by]
    console.print(f"\n{len(outcomes) - len(missed)} of {len(outcomes)} faults caught")
    raise SystemExit(1 if missed else 0)


def _print_outcome(console: Console, outcome: mutants.Outcome) -> None:
    caught = ", ".join(outcome.caught_by) or "NOTHING " + outcome.trouble
    text = f"{outcome.fault.name:26} {outcome.fault.what}\n{'':26} caught by {caught}"
    console.print(text, markup=False, style="" if outcome.caught_by else "bold red")
