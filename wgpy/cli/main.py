"""The `wgpy` program: finds its commands by name and imports only the requested one.

Commands of this package are listed in `COMMANDS`; those of the packages above join
through the entry points of group ``wgpy.commands``.  Exit codes: 0 success, 1 failure,
2 a wrong command line.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import re
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, Final

import click

from wgpy.cli.errors import end_output, in_one_line

PLUGIN_GROUP: Final = "wgpy.commands"

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "capture": ("wgpy.cli.capture:capture", "Record a running interface, with its keys."),
    "config": ("wgpy.cli.config:config", "Check configuration files."),
    "decrypt": ("wgpy.cli.decrypt:decrypt", "Explain the WireGuard messages of a capture."),
    "doctor": ("wgpy.cli.doctor:doctor", "Check what works on this machine and suggest fixes."),
    "down": ("wgpy.cli.down:down", "Take a tunnel down."),
    "genkey": ("wgpy.cli.genkey:genkey", "Print a new private key."),
    "genpsk": ("wgpy.cli.genpsk:genpsk", "Print a new preshared key."),
    "metrics": ("wgpy.cli.metrics:metrics", "Serve Prometheus metrics of interfaces."),
    "ping": ("wgpy.cli.ping:ping", "Test a peer at three layers: UDP, WireGuard, inner IP."),
    "pubkey": ("wgpy.cli.pubkey:pubkey", "Print the public key of a private key."),
    "show": ("wgpy.cli.show:show", "Show interfaces, peers, timers and drops."),
    "sim": ("wgpy.cli.sim:sim", "Run scenarios in virtual time."),
    "up": ("wgpy.cli.up:up", "Set a tunnel up from a wg-quick file."),
}
"""Name of each command, where it is, and its line in ``wgpy --help``."""


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _plugin_help(point: EntryPoint) -> str:
    """First line of the plug-in's module docstring, read without running the module."""
    try:
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(point.module)
        docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    except (ImportError, OSError, SyntaxError, ValueError):
        return f"(cannot be loaded: {point.module})"
    line = (docstring or f"From package {point.module.partition('.')[0]}.").partition("\n")[0]
    # A module may open with the command that it is: its name is already on the left.
    line = line.removeprefix(f"`wgpy {point.name}`: ")
    return line[:1].upper() + line[1:]


def _first_sentence(text: str) -> str:
    """Of the first paragraph, on one line, without its full stop, as click lists commands."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s", paragraph)[0].rstrip(".")


def _keep_sentences_whole(command: click.Command) -> None:
    """In a group's list each command's first sentence is wrapped, where click would cut it."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            if not below.short_help and below.help:
                below.short_help = _first_sentence(below.help)
            _keep_sentences_whole(below)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, of this package and of plug-ins."""
        return sorted(COMMANDS.keys() | _plugins().keys())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command; None for an unknown name."""
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name][0].partition(":")
            loaded = getattr(importlib.import_module(module), attribute)
        elif point := _plugins().get(cmd_name):
            try:
                loaded = point.load()
            except (ImportError, AttributeError) as error:
                message = f"command {cmd_name} cannot be loaded: {error}"
                raise click.ClickException(message) from error
        else:
            return None
        if not isinstance(loaded, click.Command):
            raise click.ClickException(f"command {cmd_name} is not a click command: {loaded!r}")
        _keep_sentences_whole(loaded)
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with "did you mean" for an unknown name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not close or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click; what is buffered is written while a failure can still be handled."""
        try:
            return super().main(*args, **kwargs)
        finally:
            end_output()

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As click: options of the program itself (`--version`) take effect in here."""
        with in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """As click; whatever a command raises ends as one line."""
        with in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """One line per command, without importing any."""
        lines = {name: line for name, (_, line) in COMMANDS.items()}
        lines |= {name: _plugin_help(point) for name, point in _plugins().items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(lines.items()))


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"wgpy {version('wgpy')}")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """WireGuard in Python: keys, tunnels, diagnostics and tests.

    Every command takes --help; most take --json for machine-readable output.
    """
