"""`wgpy sim`: run named scenarios in virtual time and show every message with its reason."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

import click

from wgpy.cli.common import echo_json, json_option
from wgpy.protocol.constants import MS, NS, Parameters
from wgpy.protocol.crypto import BACKENDS, DEFAULT_BACKEND
from wgpy.sim.link import Link
from wgpy.sim.scenario import Outcome, Setting, play
from wgpy.sim.scenarios import SCENARIOS
from wgpy.sim.trace import Entry, Kind

_UNITS = {"min": 60 * NS, "ms": MS, "us": 1_000, "ns": 1, "s": NS}
_COLOURS = {
    Kind.SENT: "green",
    Kind.FATE: "yellow",
    Kind.EVENT: None,
    Kind.DROP: "red",
    Kind.TIMER: "cyan",
    Kind.INNER: "blue",
    Kind.NOTE: "bright_black",
}
_T = TypeVar("_T")


def _number(text: str, wanted: type) -> int | float:
    """``30s``, ``5ms``, ``0.2`` or ``1000``; times become ns.  Raises ValueError."""
    if wanted is float:
        return float(text)
    for unit, size in _UNITS.items():
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * size)
    return int(text)


def _changed(base: _T, pairs: tuple[str, ...], option: str) -> _T:
    """`base` (a dataclass) with ``NAME=VALUE`` settings applied."""
    known = {f.name: type(getattr(base, f.name)) for f in fields(base)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise click.BadParameter(
                f"{pair!r}: wanted NAME=VALUE with a name of {', '.join(known)}", param_hint=option
            )
        try:
            changes[name] = _number(value, known[name])
        except ValueError:
            message = f"{value!r} is not a number for {name} (times as 30s, 5ms, 100ns)"
            raise click.BadParameter(message, param_hint=option) from None
    try:
        return replace(base, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _complete(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion: names of scenarios."""
    import wgpy.sim.scenarios  # noqa: F401

    return [name for name in (*SCENARIOS, "all") if name.startswith(incomplete)]


@click.command()
@click.argument("names", nargs=-1, metavar="[SCENARIO]...", shell_complete=_complete)
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE",
    help="Change a protocol parameter, such as rekey_after_time=30s.",
)  # fmt: skip
@click.option(
    "--link", "links", multiple=True, metavar="NAME=VALUE",
    help="Change the links, such as delay=50ms, loss=0.1, mtu=1400.",
)  # fmt: skip
@click.option(
    "--crypto", type=click.Choice(BACKENDS), default=DEFAULT_BACKEND, show_default=True,
    help="Implementation of the primitives.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print the checks, not the time-line.")
@json_option
def sim(
    names: tuple[str, ...],
    seed: int,
    settings: tuple[str, ...],
    links: tuple[str, ...],
    crypto: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run scenarios in virtual time: hours of a tunnel in milliseconds.

    Without a name it lists the scenarios; `all` runs every one.  The same seed gives the
    same run.  The exit code is 1 when a check fails.
    """
    if not names:
        _list(as_json)
        return
    unknown = [name for name in names if name not in SCENARIOS and name != "all"]
    if unknown:
        raise click.BadParameter(
            f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}, and all",
            param_hint="SCENARIO",
        )
    setting = Setting(
        seed=seed,
        crypto=crypto,
        parameters=_changed(Parameters(), settings, "--set"),
        link=_changed(Link(), links, "--link") if links else None,
    )
    chosen = list(SCENARIOS) if "all" in names else list(names)
    outcomes = []
    for name in chosen:
        outcomes.append(play(SCENARIOS[name], setting))
        if not as_json:
            _show(outcomes[-1], quiet=quiet)
    if as_json:
        echo_json([outcome.as_json() for outcome in outcomes])
    if not all(outcome.passed for outcome in outcomes):
        raise SystemExit(1)


def _list(as_json: bool) -> None:
    if as_json:
        echo_json(
            [{"name": s.name, "title": s.title, "sections": s.sections} for s in SCENARIOS.values()]
        )
        return
    width = max(map(len, SCENARIOS))
    for known in SCENARIOS.values():
        name = click.style(f"{known.name:<{width}}", bold=True)
        click.echo(f"{name}  {known.title} ({known.sections})")


def _show(outcome: Outcome, *, quiet: bool) -> None:
    known = outcome.scenario
    click.secho(f"{known.name}: {known.title} ({known.sections})", bold=True)
    entries = outcome.run.world.trace.entries
    if not quiet:
        width = max((len(entry.node) for entry in entries), default=0)
        for entry in entries:
            click.echo(_line(entry, width))
    for check in outcome.checks:
        mark = click.style("✓", fg="green") if check.passed else click.style("✗", fg="red")
        click.echo(f"  {mark} {check.text} ({check.seen})")


def _line(entry: Entry, width: int) -> str:
    return click.style(entry.line(width), fg=_COLOURS[entry.kind])
