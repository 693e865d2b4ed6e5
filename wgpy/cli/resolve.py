"""Endpoint names into addresses, with the retries of `wg`.

At boot a network is often up before its resolver answers.  So temporary errors are retried,
15 times with growing pauses (about three minutes); a permanent error of the resolver ends at
once.  ``WG_ENDPOINT_RESOLUTION_RETRIES`` sets another number, or
``infinity``.  See wg(8), "ENVIRONMENT VARIABLES".
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import click

from wgpy.cli.common import note
from wgpy.config import HostPort
from wgpy.protocol.endpoint import Endpoint

VARIABLE: Final = "WG_ENDPOINT_RESOLUTION_RETRIES"
RETRIES: Final = 15
PERMANENT: Final = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_NODATA})
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 20.0
GROWTH: Final = 6 / 5


def resolve(endpoint: HostPort) -> Endpoint:
    """The address behind an endpoint's name; raises ClickException."""
    left, pause = retries(), FIRST_PAUSE
    while True:
        try:
            found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
            break
        except UnicodeError:
            raise click.ClickException(f"endpoint {endpoint}: not a host name") from None
        except OSError as error:
            reason = f"endpoint {endpoint}: {error.strerror}"
            permanent = isinstance(error, socket.gaierror) and error.errno in PERMANENT
            if permanent or left == 0:
                raise click.ClickException(reason) from error
        note(f"{reason}. Trying again in {pause:.2f} seconds...")
        time.sleep(pause)
        left, pause = left - 1, min(LONGEST_PAUSE, pause * GROWTH)
    family, _, _, _, address = found[0]
    host = str(address[0]).partition("%")[0]
    scope = int(address[3]) if len(address) == 4 else 0
    return Endpoint(socket.inet_pton(family, host), endpoint.port, scope)


def retries() -> int:
    """Number of retries; negative: for ever.  Raises ClickException."""
    wanted = os.environ.get(VARIABLE, str(RETRIES))
    if wanted == "infinity":
        return -1
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 10):
        raise click.ClickException(f"{VARIABLE} is a number or infinity, not {wanted!r}")
    return int(wanted)
