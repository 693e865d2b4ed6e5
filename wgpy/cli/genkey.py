"""`wgpy genkey`: a new private key, like `wg genkey`."""

from __future__ import annotations

import secrets

import click

from wgpy.cli.common import echo_json, json_option, warn_if_world_readable
from wgpy.protocol.constants import KEY_SIZE
from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PrivateKey, PublicKey


@click.command()
@json_option
def genkey(as_json: bool) -> None:
    """Print a new private key in base64.

    Keep it secret: `umask 077; wgpy genkey > private.key`.  With --json its public key
    is also printed.
    """
    key = PrivateKey.clamp(secrets.token_bytes(KEY_SIZE))
    warn_if_world_readable()
    if as_json:
        public = PublicKey(backend().public_key(key))
        echo_json({"private_key": key.base64, "public_key": public.base64})
    else:
        click.echo(key.base64)
