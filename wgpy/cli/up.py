"""`wgpy up`: a tunnel from a wg-quick file."""

from __future__ import annotations

import signal
from types import FrameType

import click

from wgpy.cli.common import echo_json, json_option, require_root
from wgpy.cli.files import interface_name, load, locate
from wgpy.cli.quick import bring_up


@click.command()
@click.argument("conf", type=click.Path())
@click.option("-q", "--quiet", is_flag=True, help="Do not print the commands.")
@json_option
def up(conf: str, quiet: bool, as_json: bool) -> None:
    """Set a tunnel up from a wg-quick file.

    CONF is a file called INTERFACE.conf, or NAME for /etc/wireguard/NAME.conf.  The data
    plane is wireguard-py, or what WG_QUICK_USERSPACE_IMPLEMENTATION names.  If anything
    fails, all steps are undone.
    """
    path = locate(conf)
    interface = interface_name(path)
    config = load(path)
    require_root("setting up an interface")
    signal.signal(signal.SIGTERM, _interrupt)
    summary = bring_up(config, interface, path, quiet or as_json)
    if as_json:
        echo_json(summary)
    else:
        click.echo(click.style(f"{interface} is up", fg="green"), err=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM is an interrupt: what was done so far is undone."""
    raise KeyboardInterrupt
