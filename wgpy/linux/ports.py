"""Who listens on a UDP port of this network namespace, from /proc (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


def describe_use(port: int) -> str:
    """``UDP port 51820 is in use by NAME (pid 7)``; of an unknown process only that it is."""
    inodes = _sockets(port)
    found = next((pid for pid in _processes() if inodes & _open_sockets(pid)), None)
    if found is None:
        whose = " by a process that this user may not look at" if os.geteuid() != 0 else ""
        return f"UDP port {port} is in use{whose}"
    return f"UDP port {port} is in use by {_name(found)} (pid {found})"


def _sockets(port: int) -> set[str]:
    """Inodes of the sockets that are bound to the port, IPv4 and IPv6."""
    found = set()
    for table in ("udp", "udp6"):
        with suppress(OSError):
            for row in (PROC / "self/net" / table).read_text().splitlines()[1:]:
                fields = row.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _processes() -> list[int]:
    return sorted(int(path.name) for path in PROC.iterdir() if path.name.isdigit())


def _open_sockets(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):  # Closed in the meantime.
                found.add(str(entry.readlink()))
    return found


def _name(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "comm").read_text().strip()
    return "a process that just ended"
