"""`wgpy pubkey`: the public key of a private key, like `wg pubkey`."""

from __future__ import annotations

import sys

import click

from wgpy.cli.common import echo_json, json_option
from wgpy.config.values import BadValue, key
from wgpy.protocol.crypto import backend
from wgpy.protocol.keys import PrivateKey, PublicKey


@click.command()
@json_option
def pubkey(as_json: bool) -> None:
    """Read a private key from standard input and print its public key.

    Example: `wgpy genkey | tee private.key | wgpy pubkey > public.key`.
    """
    text = sys.stdin.read(4096).strip()
    if not text:
        raise click.ClickException("no key on standard input: pipe one in, such as `wgpy genkey |`")
    try:
        private = key(PrivateKey, text)
    except BadValue as error:
        raise click.ClickException(f"{error.message}: {error.fix}") from None
    public = PublicKey(backend().public_key(private))
    if as_json:
        echo_json({"public_key": public.base64})
    else:
        click.echo(public.base64)
