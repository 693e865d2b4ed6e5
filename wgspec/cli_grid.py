"""`wgpy spec grid`: the interop grid on the terminal and as JSON."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from wgspec import targets
from wgspec.grid import DEFAULT, STEPS, Grid, Outcome
from wgspec.options import json_option, report_option, write_file
from wgspec.target import Unavailable

STYLES: dict[str, dict[str, Any]] = {
    "PASS": {"fg": "green"},
    "FAIL": {"fg": "red", "bold": True},
    "UNSUPPORTED": {"dim": True},
}


@click.command("grid")
@click.argument("suts", metavar="[TARGET…]", nargs=-1)
@click.option("--packets", type=click.IntRange(1), default=1000, show_default=True,
              help="Packets each way.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), default=8, show_default=True,
              help="Cells at the same time (a cell mostly waits).")  # fmt: skip
@click.option("--skip", type=click.Choice(STEPS[1:]), multiple=True, help="Skip a step.")
@json_option
@report_option("json")
def grid_command(
    suts: tuple[str, ...],
    packets: int,
    jobs: int,
    skip: tuple[str, ...],
    as_json: bool,
    reports: tuple[Path, ...],
) -> None:
    """Connect every TARGET to every other.

    Each is initiator and responder: handshake, packets each way, roaming, rekey; with and
    without PSK, over IPv4 and IPv6.  Without TARGETs: wireguard-go, wgpy, Linux 6.1 and 6.12,
    boringtun.  Exit status 1 when a cell fails.
    """
    try:
        made = [targets.make(sut) for sut in suts or DEFAULT]
        grid = Grid(
            made,
            packets=packets,
            jobs=jobs,
            steps=[s for s in STEPS if s not in skip],
            progress=lambda outcome: _print(outcome, err=as_json),
        )
        if len(grid.targets) < 2:
            raise click.ClickException("a grid needs two different targets")
        outcomes = asyncio.run(grid.run())
    except Unavailable as error:
        raise click.ClickException(str(error)) from error
    versions = {target.name: target.version for target in made}
    document = json.dumps(grid_json(outcomes, versions, packets), indent=1)
    for path in reports:
        write_file(path, document + "\n")
    if as_json:
        click.echo(document)
    else:
        _print_sum(outcomes)
    raise SystemExit(1 if any(outcome.verdict == "FAIL" for outcome in outcomes) else 0)


def _print_sum(outcomes: list[Outcome]) -> None:
    click.echo()
    for line in table(outcomes):
        click.echo(line)
    counts = Counter(outcome.verdict for outcome in outcomes)
    click.echo(", ".join(f"{counts[v]} {v}" for v in STYLES if counts[v]))
    for reason in dict.fromkeys(o.reason for o in outcomes if o.verdict == "UNSUPPORTED"):
        click.secho(f"– {reason}", dim=True)


def _print(outcome: Outcome, *, err: bool) -> None:
    cell = outcome.cell
    where = f" at {outcome.failed}" if outcome.verdict == "FAIL" and outcome.failed else ""
    verdict = click.style(outcome.verdict, **STYLES[outcome.verdict])
    click.echo(
        f"{cell.initiator:>12} -> {cell.responder:12} {cell.variant:9}"
        f" {verdict}{where} {outcome.seconds:5.1f} s", err=err,
    )  # fmt: skip
    if outcome.reason:
        click.secho(f"{'':29}{outcome.reason}", dim=True, err=err)


def grid_json(outcomes: list[Outcome], versions: dict[str, str], packets: int) -> dict[str, Any]:
    """The whole grid as JSON."""
    return {
        "targets": versions,
        "packets_each_way": packets,
        "summary": dict(Counter(outcome.verdict for outcome in outcomes)),
        "cells": [outcome.as_json() for outcome in outcomes],
    }


def table(outcomes: list[Outcome]) -> list[str]:
    """A line per pair, a column per variant; as wide as the names require."""
    variants = list(dict.fromkeys(outcome.cell.variant for outcome in outcomes))
    rows: dict[tuple[str, str], dict[str, Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.cell
        rows.setdefault((cell.initiator, cell.responder), {})[cell.variant] = outcome
    first = max(len("initiator"), *(len(initiator) for initiator, _ in rows))
    second = max(len("responder"), *(len(responder) for _, responder in rows))
    width = max(len(text) for text in (*variants, *(_text(o) for o in outcomes)))
    heads = "  ".join(f"{variant:{width}}" for variant in variants)
    lines = [f"{'initiator':{first}}  {'responder':{second}}  {heads}".rstrip()]
    for (initiator, responder), row in rows.items():
        cells = "  ".join(_cell(row.get(variant), width) for variant in variants)
        lines.append(f"{initiator:{first}}  {responder:{second}}  {cells}".rstrip())
    return lines


def _text(outcome: Outcome) -> str:
    return {"FAIL": f"FAIL {outcome.failed}", "UNSUPPORTED": "–"}.get(
        outcome.verdict, outcome.verdict
    )


def _cell(outcome: Outcome | None, width: int) -> str:
    if outcome is None:
        return " " * width
    return click.style(f"{_text(outcome):{width}}", **STYLES[outcome.verdict])
