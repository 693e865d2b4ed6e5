"""One agent per interface and network namespace, by an address that cannot be removed.

A lock file can be unlinked, and then a second agent takes the new one.  A name in the
abstract namespace of Unix sockets lives in the network namespace, as the agent's work
does, and ends with the process that bound it; unix(7).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")


class AlreadyRuns(Exception):
    """Another process holds the name; the message says which."""


def hold(interface: str) -> socket.socket:
    """The name, held until the socket is closed.  Raises `AlreadyRuns`."""
    address = f"\0wgpy-strict/{interface}"
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(address)
        held.listen(8)
    except OSError:
        held.close()
        raise AlreadyRuns(
            f"another agent keeps {interface}{_who(address)}: stop it before this one is started"
        ) from None
    return held


def _who(address: str) -> str:
    """Its process and user, as the kernel says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
            found = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return ""
    process, user, _ = _CREDENTIALS.unpack(found)
    return f" (process {process} of user {user})"
