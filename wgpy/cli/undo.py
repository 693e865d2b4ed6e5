"""What `wgpy up` did and how to undo it, kept on disk while the tunnel is up.

Every change of the host is recorded right after it was made, in a file beside the UAPI
socket (mode 0600: hooks may hold secrets).  So a failed `up` rolls back, a killed one
can be taken down, and `down` needs no configuration file.  Addresses and routes are not
recorded: they go with the interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from wgpy.linux.netlink import Network, NetworkError, Rule
from wgpy.sockets import socket_path


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
        """The ledger of an interface that `wgpy up` made; None when it made none.

        Raises ClickException for a file that is no ledger.
        """
        path = cls.path(interface)
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            message = f"{path} is damaged: remove it, and undo by hand what it should have listed"
            raise click.ClickException(message) from error

    def record(self, kind: str, *arguments: Any) -> None:
        """Remember a change that was made."""
        self.steps.append([kind, *arguments])
        self.save()

    def save(self) -> None:
        """Write the file; a crash leaves the old or the new one, never half of it."""
        path = self.path(self.interface)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = path.with_suffix(".wgpy.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
        fresh.replace(path)

    def undo(self) -> list[str]:
        """Undo everything, newest first, and forget it; returns what could not be undone."""
        failures = []
        for kind, *arguments in reversed(self.steps):
            try:
                _UNDO[kind](*arguments)
            except (NetworkError, OSError, subprocess.SubprocessError) as error:
                failures.append(str(error))
        self.steps.clear()
        self.path(self.interface).unlink(missing_ok=True)
        return failures


def _link(name: str) -> None:
    with Network() as network:
        network.delete_link(name)


def _rule(family: int, priority: int, table: int, mark: int | None) -> None:
    with Network() as network:
        rule = Rule(family, priority, table, mark)
        if rule in network.rules(family):
            network.delete_rule(rule)


def _sysctl(path: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).write_text(value)


def _nft(family: str, table: str) -> None:
    subprocess.run(["nft", "delete", "table", family, table], check=True, capture_output=True)


_UNDO: Final[dict[str, Callable[..., None]]] = {
    "link": _link,
    "rule": _rule,
    "sysctl": _sysctl,
    "nft": _nft,
}
