"""`wgpy spec grid`: the interop grid on the terminal and as JSON."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from wgspec import targets
from wgspec.grid import DEFAULT, STEPS, Grid, Outcome
from wgspec.target import Unavailable

STYLES = {"PASS": "green", "FAIL": "bold red", "UNSUPPORTED": "dim"}


@click.command("grid")
@click.argument("suts", metavar="[TARGET…]", nargs=-1)
@click.option("--packets", type=click.IntRange(1), default=1000, show_default=True,
              help="Packets each way.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=8, show_default=True,
              help="Cells at one time (most of a cell is waiting).")  # fmt: skip
@click.option("--skip", type=click.Choice(STEPS[1:]), multiple=True, help="Leave a step out.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def grid_command(
    suts: tuple[str, ...], packets: int, jobs: int, skip: tuple[str, ...], json_file: Path | None
) -> None:
    """Every TARGET as initiator and responder to every other: handshake, packets each way,
    roaming, rekey; with and without PSK, over IPv4 and IPv6.

    Without TARGETs: wireguard-go, wgpy, Linux 6.1 and 6.12, boringtun.  Exit status 1 when
    a cell fails.
    """
    console = Console(soft_wrap=True, highlight=False)
    try:
        made = [targets.make(sut) for sut in suts or DEFAULT]
        grid = Grid(
            made,
            packets=packets,
            jobs=jobs,
            steps=[s for s in STEPS if s not in skip],
            progress=lambda outcome: _print(console, outcome),
        )
        if len(grid.targets) < 2:
            raise click.ClickException("a grid needs two different targets")
        outcomes = asyncio.run(grid.run())
    except Unavailable as error:
        raise click.ClickException(str(error)) from error
    versions = {target.name: target.version for target in made}
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(outcomes, versions, packets), indent=1) + "\n")
    console.print(table(outcomes))
    counts = Counter(outcome.verdict for outcome in outcomes)
    console.print(", ".join(f"{counts[v]} {v}" for v in STYLES if counts[v]))
    for reason in dict.fromkeys(o.reason for o in outcomes if o.verdict == "UNSUPPORTED"):
        console.print(f"– {reason}", style="dim", markup=False)
    raise SystemExit(1 if counts["FAIL"] else 0)


def _print(console: Console, outcome: Outcome) -> None:
    cell = outcome.cell
    where = f" at {outcome.failed}" if outcome.verdict == "FAIL" and outcome.failed else ""
    console.print(
        f"{cell.initiator:>12} -> {cell.responder:12} {cell.variant:9}"
        f" [{STYLES[outcome.verdict]}]{outcome.verdict}[/]{where} {outcome.seconds:5.1f} s"
    )
    if outcome.reason:
        console.print(f"{'':29}{outcome.reason}", style="dim", markup=False)


def as_json(outcomes: list[Outcome], versions: dict[str, str], packets: int) -> dict[str, Any]:
    """The whole grid for machines."""
    return {
        "targets": versions,
        "packets_each_way": packets,
        "summary": dict(Counter(outcome.verdict for outcome in outcomes)),
        "cells": [outcome.as_json() for outcome in outcomes],
    }


def table(outcomes: list[Outcome]) -> Table:
    """Rows are pairs, columns the variants."""
    variants = list(dict.fromkeys(outcome.cell.variant for outcome in outcomes))
    made = Table(title="initiator → responder", title_justify="left")
    for heading in ("initiator", "responder", *variants):
        made.add_column(heading, no_wrap=True)
    rows: dict[tuple[str, str], dict[str, Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        rows.setdefault((cell.initiator, cell.responder), {})[cell.variant] = outcome
    for (initiator, responder), row in rows.items():
        cells = [_cell(row[variant]) if variant in row else "" for variant in variants]
        made.add_row(initiator, responder, *cells)
    return made


def _cell(outcome: Outcome) -> str:
    text = {"FAIL": f"FAIL {outcome.failed}", "UNSUPPORTED": "–"}.get(
        outcome.verdict, outcome.verdict
    )
    return f"[{STYLES[outcome.verdict]}]{text}[/]"
