"""Where the sockets of running interfaces are, and whether somebody answers at them.

One folder serves all network namespaces, as for `wg`: IFACE.sock configures (the UAPI),
IFACE.control drives the policy and tells what happens (docs/control-socket.md).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

SOCKET_FOLDER: Final = Path("/var/run/wireguard")
UAPI: Final = ".sock"
CONTROL: Final = ".control"


class InterfaceError(Exception):
    """A running interface cannot be reached, or refused a request: one line for people."""


def socket_path(interface: str, suffix: str = UAPI, folder: Path | None = None) -> Path:
    """Where the interface's socket of this kind is."""
    return (folder or SOCKET_FOLDER) / f"{interface}{suffix}"


def answering(suffix: str = UAPI, folder: Path | None = None) -> list[str]:
    """Names of the interfaces whose socket of this kind somebody listens at; raises OSError.

    A socket that this user may not connect to counts: somebody else does listen.
    """
    folder = folder or SOCKET_FOLDER
    if not folder.is_dir():
        return []
    return [path.stem for path in sorted(folder.glob(f"*{suffix}")) if listens(path)]


def listens(path: Path) -> bool:
    """Whether a process listens on the unix socket at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
