"""What several commands share: JSON output, the --json option, the guard for key files."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wgpy import secret_files, typed
from wgpy.linux.link import link_state
from wgpy.sockets import answering

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(function: _F) -> _F:
    """The --json flag, as parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        function
    )


def complete_interface(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Shell completion: names of running interfaces."""
    with contextlib.suppress(OSError):
        return [name for name in answering() if name.startswith(incomplete)]
    return []


def link_is_down(interface: str) -> str:
    """The problem and the fix if the interface's link is down; empty if it is up.

    Also empty for an interface that is not in this network namespace.
    """
    try:
        up = link_state(interface).up
    except OSError:
        return ""
    fix = typed.as_root("ip", "link", "set", "up", "dev", interface)
    return "" if up else f"{interface} is down: {fix}"


def echo_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def note(text: str) -> None:
    """A note on stderr, so that it never mixes with what a pipe reads."""
    click.echo(click.style(text, fg="yellow"), err=True)


def warn_if_exposed(path: Path) -> None:
    """A secret is read from a file: warn when everybody can read that file."""
    if trouble := secret_files.exposure(path):
        note(f"warning: {trouble}")


def require_root(what: str) -> None:
    """End the command unless root runs it; `what` is the subject of the sentence."""
    if os.geteuid() != 0:
        raise click.ClickException(f"{what} needs root{typed.root_hint()}")


def warn_if_world_readable() -> None:
    """A secret goes to stdout: warn when that is a world-readable file."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISREG(mode) and mode & 0o007:
        note("warning: writing a secret to a world-readable file (try `umask 077`)")
