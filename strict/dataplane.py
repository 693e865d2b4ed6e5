"""The running data plane as the agent sees it: start it or attach to it, and drive it.

Two sockets: the UAPI for keys, peers and allowed IPs, the control socket for the strict
table.  The order avoids leaks at every moment: traffic to encrypt is first made possible
(peers), then allowed (table); other traffic is first forbidden, then made impossible.

The open control connection tells when the data plane dies.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from strict.client import StrictClient
from strict.desired import Desired, PeerPlan, difference
from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.settings import TableConfig
from strict.state import Changes
from strict.table import StrictTable
from strict.wire import config_to_wire
from wgpy.control.client import ControlFailed
from wgpy.linux import uapi_client as uapi
from wgpy.programs import python_module
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PrivateKey
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot, PeerChange
from wgpy.uapi import UapiError

START_TIMEOUT: Final = 20.0
PREFIXES_PER_REQUEST: Final = 2000


class DataPlaneError(Exception):
    """The data plane cannot be started or reached, or refused something."""


class DataPlane:
    """One interface's data plane, while it runs."""

    def __init__(self, interface: str, folder: Path | None = None) -> None:
        """Attach; raises `DataPlaneError` when nothing runs."""
        self.interface = interface
        self._has = Desired()
        try:
            self._control = StrictClient(interface, folder)
        except ControlFailed as error:
            raise DataPlaneError(str(error)) from error
        try:
            # No other client may change mode or table while this connection lasts.
            self._ask("hold")
        except DataPlaneError:
            self._control.close()
            raise
        self.loaded = bool(self._control.hello["policy"]["loaded"])
        """Whether its table was loaded, by this agent or a previous one."""

    def fileno(self) -> int:
        """Readable when the data plane has ended."""
        return self._control.fileno()

    def close(self) -> None:
        """Close the connection; the data plane continues."""
        self._control.close()

    def alive(self) -> bool:
        """Ask it."""
        try:
            self._control.request("hello")
        except (ControlFailed, OSError):
            return False
        return True

    def obeys(self, config: TableConfig) -> bool:
        """Whether these are the current settings."""
        return bool(self._ask("hello")["policy"]["config"] == config_to_wire(config))

    def set_device(self, key: PrivateKey, port: int, mark: int) -> None:
        """Set key, port and mark where they differ; adopt the existing peers."""
        found = self._get()
        self._has = Desired.of_device(found)
        change = DeviceChange(
            private_key=key if found.private_key != key else None,
            listen_port=port if found.listen_port != port else None,
            fwmark=mark if found.fwmark != mark else None,
        )
        if change != DeviceChange():
            self._set(change)

    def load(self, table: StrictTable, plan: PeerPlan, *, prune: bool) -> None:
        """Load all of `table`; with `prune` nothing else."""
        if table.config is None:
            raise DataPlaneError("a table without settings")
        new = plan.whole()
        if not prune:
            new = Desired(
                {**self._has.endpoints, **new.endpoints}, {**self._has.owners, **new.owners}
            )
        add, remove = difference(self._has, new)
        self._set(add)
        if prune or not self.loaded:
            try:
                self._control.replace(table.config, table.nodes, table.ipcache)
            except (ControlFailed, OSError) as error:
                raise DataPlaneError(f"the table was not replaced: {error}") from error
            self.loaded = True
        else:
            self.configure(table.config)
            self._update(list(table.nodes), list(table.ipcache), (), ())
        self._set(remove)
        self._has = new

    def update(self, changes: Changes, plan: PeerPlan) -> None:
        """Apply single changes."""
        if changes.nodes:
            prefixes = None
            old, new = self._has, plan.whole()
        else:
            prefixes = {prefix for prefix, _ in changes.entries}
            old, new = self._has.part(prefixes), plan.part(prefixes)
            new.endpoints = old.endpoints
        add, remove = difference(old, new)
        self._set(add)
        self._update(
            [node for node in changes.nodes.values() if node is not None],
            [entry for entry in changes.entries.values() if entry is not None],
            [name for name, node in changes.nodes.items() if node is None],
            [place for place, entry in changes.entries.items() if entry is None],
        )
        self._set(remove)
        if prefixes is None:
            self._has = new
        else:
            self._has.replace_part(prefixes, new)

    def configure(self, config: TableConfig) -> None:
        """New settings for the loaded table."""
        self._ask("configure", config=config_to_wire(config))

    def _update(
        self,
        nodes: Sequence[Node],
        entries: Sequence[Entry],
        delete_nodes: Sequence[str],
        delete_entries: Sequence[tuple[Prefix, Source]],
    ) -> None:
        try:
            refused = self._control.update(
                nodes=nodes,
                entries=entries,
                delete_nodes=delete_nodes,
                delete_entries=delete_entries,
            )
        except (ControlFailed, OSError) as error:
            raise DataPlaneError(f"the table was not changed: {error}") from error
        if refused:
            raise DataPlaneError(f"the data plane refused: {refused[0]['error']}")

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._control.request(op, **arguments)
        except (ControlFailed, OSError) as error:
            raise DataPlaneError(f"{op}: {error}") from error

    def _get(self) -> DeviceSnapshot:
        try:
            return uapi.get(self.interface)
        except uapi.DeviceUnreachable as error:
            raise DataPlaneError(str(error)) from error

    def _set(self, change: DeviceChange) -> None:
        """In requests of bounded size, because packets wait while one is applied."""
        for part in _bounded(change):
            try:
                uapi.apply(self.interface, part)
            except (uapi.DeviceUnreachable, UapiError) as error:
                raise DataPlaneError(f"peers were not changed: {error}") from error


def start(interface: str, arguments: Sequence[str]) -> None:
    """Start `wireguard-py`, which returns when its sockets are ready and runs on in the background.

    It is not a child of the agent: killing the agent leaves it running.
    """
    command = python_module("wgpy.cli.wireguard_py", "--policy", "strict", *arguments, interface)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DataPlaneError(f"wireguard-py was not ready in {START_TIMEOUT:.0f} s") from error
    if done.returncode:
        raise DataPlaneError(f"wireguard-py did not start: {done.stderr.strip()}")


def _bounded(change: DeviceChange) -> Iterator[DeviceChange]:
    """The same change in requests of at most `PREFIXES_PER_REQUEST` peers and prefixes."""
    if not change.peers:
        if change != DeviceChange():
            yield change
        return
    pending: list[PeerChange] = []
    size = 0
    for peer in change.peers:
        pieces = range(0, max(len(peer.allowed_ips), 1), PREFIXES_PER_REQUEST)
        for first in pieces:
            piece = peer.allowed_ips[first : first + PREFIXES_PER_REQUEST]
            pending.append(replace(peer, allowed_ips=piece))
            size += 1 + len(piece)
            if size >= PREFIXES_PER_REQUEST:
                yield DeviceChange(peers=tuple(pending))
                pending, size = [], 0
    if pending:
        yield DeviceChange(peers=tuple(pending))
