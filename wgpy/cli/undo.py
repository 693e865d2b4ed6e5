"""What `wgpy up` did and how to undo it, kept on disk while the tunnel is up.

Every change of the host is recorded right after it was made, in a file beside the UAPI
socket (mode 0600: hooks may hold secrets).  So a failed `up` rolls back, a killed one
can be taken down, and `down` does not need the configuration file.  Addresses and routes are
not recorded: they disappear with the interface.

The record belongs to the data plane, known by its socket's inode and its device's index:
the device may have been moved to another network namespace or renamed, and another one
may have its name.  Steps that could not be undone stay in the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from wgpy.linux.netlink import Network, NetworkError, Rule
from wgpy.sockets import socket_path

STOP_TIMEOUT: Final = 10.0


def network_namespace() -> int:
    """The number that identifies this process's network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


@dataclass(slots=True)
class Ledger:
    """Steps to undo, newest last: ``[kind, argument...]``; `namespace` is where they count."""

    interface: str
    config: str = ""
    namespace: int = field(default_factory=network_namespace)
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    steps: list[list[Any]] = field(default_factory=list)

    @staticmethod
    def path(interface: str) -> Path:
        """Where the interface's ledger is kept."""
        return socket_path(interface, ".wgpy")

    @classmethod
    def load(cls, interface: str) -> Ledger | None:
        """The ledger of an interface that `wgpy up` created; None if there is none.

        Raises ClickException for a file that is not a ledger.
        """
        path = cls.path(interface)
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            message = f"{path} is damaged: remove it, and undo its steps by hand"
            raise click.ClickException(message) from error

    def record(self, kind: str, *arguments: Any) -> None:
        """Remember a change that was made."""
        self.steps.append([kind, *arguments])
        self.save()

    def save(self) -> None:
        """Write the file atomically: a crash leaves the old or the new one."""
        path = self.path(self.interface)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_suffix(".wgpy.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
        fresh.replace(path)

    def undo(self) -> list[str]:
        """Undo everything, newest first; returns what could not be undone, which is kept."""
        failures: list[str] = []
        kept: list[list[Any]] = []
        for step in reversed(self.steps):
            kind, *arguments = step
            try:
                _UNDO[kind](*arguments)
            except (NetworkError, OSError, subprocess.SubprocessError) as error:
                failures.append(str(error))
                kept.insert(0, step)
        self.steps = kept
        return failures

    def forget(self) -> None:
        """The last step: remove the file, unless something is left to undo."""
        if self.steps:
            self.save()
        else:
            self.path(self.interface).unlink(missing_ok=True)

    def data_plane_started(self) -> None:
        """Replace the step "link" by one that names device and socket as they are now."""
        with Network() as network:
            index = network.index(self.interface)
        self.steps.remove(["link", self.interface])
        self.record("link", self.interface, index or 0, _inode(self.interface))


def is_here(name: str, index: int = 0) -> bool:
    """Whether the device (of this index, if it is known) is in this network namespace."""
    with Network() as network:
        found = network.index(name)
    return found is not None and found == (index or found)


def _socket(name: str) -> Path:
    return socket_path(name)


def _inode(name: str) -> int:
    try:
        return _socket(name).stat().st_ino
    except FileNotFoundError:
        return 0


def _link(name: str, index: int = 0, inode: int = 0) -> None:
    """End the data plane: by its device, or by its socket if the device is elsewhere."""
    if is_here(name, index):
        with Network() as network:
            network.delete_link(name)
        gone = _wait(lambda: not _inode(name) or (inode and _inode(name) != inode))
    elif inode and _inode(name) == inode:
        gone = _end_by_socket(_socket(name))
    else:
        return
    if not gone:
        raise OSError(f"{_socket(name)}: the data plane did not end in {STOP_TIMEOUT:.0f} s")


def _end_by_socket(path: Path) -> bool:
    """Remove the socket, which ends a data plane; a connection shows when it has ended."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(STOP_TIMEOUT)
        try:
            connection.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return True
        path.unlink(missing_ok=True)
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


def _wait(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + STOP_TIMEOUT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _rule(family: int, priority: int, table: int, mark: int | None) -> None:
    with Network() as network:
        rule = Rule(family, priority, table, mark)
        if rule in network.rules(family):
            network.delete_rule(rule)


def _sysctl(path: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).write_text(value)


def _nft(family: str, table: str) -> None:
    listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True)
    if f"table {family} {table}" in listed.stdout.splitlines():
        subprocess.run(["nft", "delete", "table", family, table], check=True, capture_output=True)


def _iptables(program: str, rules: str) -> None:
    command = [f"{program}-restore", "-n"]
    subprocess.run(command, input=rules, text=True, check=True, capture_output=True)


def _resolvconf(name: str) -> None:
    subprocess.run(["resolvconf", "-d", name, "-f"], check=True, capture_output=True)


def _resolvectl(interface: str) -> None:
    subprocess.run(["resolvectl", "revert", interface], check=True, capture_output=True)


_UNDO: Final[dict[str, Callable[..., None]]] = {
    "link": _link,
    "rule": _rule,
    "sysctl": _sysctl,
    "nft": _nft,
    "iptables": _iptables,
    "resolvconf": _resolvconf,
    "resolvectl": _resolvectl,
}
