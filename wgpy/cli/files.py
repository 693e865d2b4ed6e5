"""Finding and reading the configuration file that a command line names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from wgpy.cli.common import warn_if_exposed
from wgpy.cli.config import read_text, render, routing_tables
from wgpy.config import INTERFACE_NAME, Config, ConfigError, parse_config

CONFIG_FOLDER: Final = Path("/etc/wireguard")


def locate(name: str) -> Path:
    """The file of that path, else /etc/wireguard/NAME.conf; raises ClickException or OSError.

    What ends in .conf is a file, wherever it should be: /etc/wireguard/NAME.conf.conf is not.
    """
    path = Path(name)
    if not path.is_file() and INTERFACE_NAME.fullmatch(name) and path.suffix != ".conf":
        path = CONFIG_FOLDER / f"{name}.conf"
    try:
        path.stat()
    except FileNotFoundError:
        raise click.ClickException(f"{path} does not exist") from None
    return path


def interface_name(path: Path) -> str:
    """The interface that a file is for: its name without .conf; raises ClickException."""
    if path.suffix != ".conf" or not INTERFACE_NAME.fullmatch(path.stem):
        raise click.ClickException(
            f"{path}: the file must be called INTERFACE.conf, with an interface name of at most"
            " 15 letters, digits and _=+.-"
        )
    return path.stem


def load(path: Path) -> Config:
    """Read and check a file; prints every problem and ends the command when it has errors."""
    text = read_text(path)
    try:
        config = parse_config(text, file=str(path), tables=routing_tables())
    except ConfigError as error:
        for problem in error.problems:
            click.echo(render(problem, str(path)), err=True)
        raise click.ClickException(f"{path} cannot be used; nothing was changed") from None
    for problem in config.notes:
        click.echo(render(problem, str(path)), err=True)
    warn_if_exposed(path)
    return config
