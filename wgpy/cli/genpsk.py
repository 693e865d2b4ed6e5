"""`wgpy genpsk`: a new preshared key, like `wg genpsk`."""

from __future__ import annotations

import secrets

import click

from wgpy.cli.common import echo_json, json_option, warn_if_world_readable
from wgpy.protocol.constants import KEY_SIZE
from wgpy.protocol.keys import PresharedKey


@click.command()
@json_option
def genpsk(as_json: bool) -> None:
    """Print a new preshared key in base64.

    Both ends of a tunnel need the same key; send it to the other end over a safe channel.
    """
    key = PresharedKey(secrets.token_bytes(KEY_SIZE))
    warn_if_world_readable()
    if as_json:
        echo_json({"preshared_key": key.base64})
    else:
        click.echo(key.base64)
