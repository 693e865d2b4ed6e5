"""A run for people at a terminal: progress while it runs, then every case in order.

Nothing is cut: a long line is left to the terminal to wrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from wgspec.case import LEVELS, SECTIONS
from wgspec.report import summary
from wgspec.run import Run
from wgspec.runner import Result
from wgspec.verdict import Verdict

STYLES: dict[Verdict, dict[str, Any]] = {
    Verdict.PASS: {"fg": "green"},
    Verdict.FAIL: {"fg": "red", "bold": True},
    Verdict.XFAIL: {"fg": "yellow"},
    Verdict.XPASS: {"fg": "magenta", "bold": True},
    Verdict.UNSUPPORTED: {"dim": True},
    Verdict.SKIPPED: {"dim": True},
}
SHOWN_LINES = 60
_INDENT = " " * 29


class Counting:
    """The running count of finished cases, on standard error."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)
        self._failed = 0

    def __call__(self, result: Result) -> None:
        """One more case is done."""
        self._failed += result.verdict.fails_run
        text = f"{self._failed} failed" if self._failed else ""
        self._progress.update(self._task, advance=1, description=text)


@contextmanager
def counting(what: str, total: int) -> Iterator[Counting]:
    """Shows how far a run is; where standard error is not a terminal, one line that it began."""
    console = Console(stderr=True)
    if not console.is_terminal:
        click.echo(f"running {total} case{'s' * (total != 1)} on {what}", err=True)
    columns = TextColumn(f"{what:.40}", markup=False), BarColumn(), MofNCompleteColumn()
    shown = Progress(
        *columns, TextColumn("[red]{task.description}"), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with shown:
        yield Counting(shown, total)


def print_run(run: Run) -> None:
    """Every case in order with its title, then the sum."""
    for letter, title in SECTIONS.items():
        members = [r for r in run.results if r.case.section == letter]
        ran = [r for r in members if r.verdict is not Verdict.SKIPPED]
        if not ran:
            continue
        click.secho(f"\n{letter}. {title}", bold=True)
        for result in ran:
            _print_result(result)
        if left := [r.case.id for r in members if r.verdict is Verdict.SKIPPED]:
            click.secho(f"not in profile {run.profile}: {', '.join(left)}", dim=True)


def _print_result(result: Result) -> None:
    verdict = click.style(f"{result.verdict.value:11}", **STYLES[result.verdict])
    click.echo(f"{result.case.id:6} {verdict} {result.seconds:6.1f} s  {result.case.text}")
    for text in (result.reason, *result.reports):
        if text:
            click.secho(_INDENT + text, dim=True)


def print_sum(run: Run) -> None:
    """What was run, how it ended, and what it was compared with."""
    version = f" ({run.version})" if run.version else ""
    click.echo(
        f"\n{run.target}{version}: {summary(run.results)}"
        f" in {run.seconds:.1f} s (seed {run.options.seed})"
    )
    click.secho(run.about_expected, dim=True)


def print_failure(result: Result, where: Path | None) -> None:
    """Everything a person needs to understand and repeat a failure."""
    case = result.case
    head = f"{case.id}  {SECTIONS[case.section]}  (paper §{case.paper}; {LEVELS[case.level]})"
    click.secho(f"\n{head}", **STYLES[result.verdict])
    click.echo(f"  requirement: {case.text}")
    if result.reason:
        click.echo(f"  why:         {result.reason}")
    if result.actual:
        click.echo(f"  expected:    {result.expected}\n  actual:      {result.actual}")
    for name, text in case.known.items():
        click.echo(f"  known of {name}:  {text}")
    lines = result.transcript.lines(fields=True)
    if len(lines) > SHOWN_LINES:
        click.echo(f"  ({len(lines) - SHOWN_LINES} earlier lines are in the transcript)")
    for line in lines[-SHOWN_LINES:]:
        click.echo(f"    {line}")
    if result.diagnostics:
        click.echo(f"  the target printed:\n    {result.diagnostics[-1500:]}")
    if where is not None:
        click.echo(f"  capture:     {where} (opens decrypted in Wireshark)")
    click.echo(f"  repeat:      {result.repeat}")
