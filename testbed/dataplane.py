"""Starts a node's WireGuard, and configures its peers if there is no agent (plain mode).

The program is `wireguard-py` or, for comparison in plain mode, `wireguard-go`.  It runs
inside the node's namespaces; its UAPI socket is reached from outside through
/proc/PID/root, since every node has a /run of its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from testbed.namespaces import Namespace, start_time
from testbed.privileges import find_tool
from testbed.topology import LISTEN_PORT, Network, Node, Topology
from wgpy import sockets
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, DeviceSnapshot, PeerChange
from wgpy.uapi import GET, format_set, parse_get, parse_set_reply

DEVICE = "wg0"
SOCKET = sockets.socket_path(DEVICE).relative_to("/var")
"""Below a node's root: there /var/run is /run, and the link would lead out of it."""


class DataPlaneError(Exception):
    """A data plane did not start or does not answer; says which, with the end of its log."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A background process of a node; `log` has all its output."""

    node: str
    role: str
    pid: int
    started: int
    log: Path

    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def program(name: str) -> str:
    """The path of a program, first next to this Python.  Raises `DataPlaneError`."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    found = find_tool(name)
    if found is None:
        raise DataPlaneError(f"{name} is not installed")
    return found


def launch(
    namespace: Namespace,
    role: str,
    command: list[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> tuple[Daemon, subprocess.Popen[bytes]]:
    """Start `command` in `namespace`, output appended to `log`."""
    with log.open("ab") as handle:
        process = namespace.popen(
            *command,
            stdout=handle,
            environment={"PYTHONUNBUFFERED": "1", **(environment or {})},
        )
    started = start_time(process.pid)
    if started is None:
        raise DataPlaneError(f"{role} of {namespace.name} ended at once")
    return Daemon(namespace.name, role, process.pid, started, log), process


def wireguard_command(node: Node) -> list[str]:
    """The command line of the node's WireGuard, in the foreground."""
    return [program(node.implementation), "-f", DEVICE]


def socket_path(namespace: Namespace) -> Path:
    """The UAPI socket, as seen from outside."""
    return Path(f"/proc/{namespace.pid}/root", SOCKET)


def wait_ready(namespace: Namespace, daemon: Daemon, seconds: float = 20) -> None:
    """Until the UAPI socket takes connections.  Raises `DataPlaneError` with the log's end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask(namespace, GET)
            return
        except OSError:
            if not daemon.alive() or time.monotonic() > deadline:
                raise DataPlaneError(
                    f"{daemon.role} of {daemon.node} is not ready:\n{daemon.last_words()}"
                ) from None
            time.sleep(0.02)


def ask(namespace: Namespace, request: str, seconds: float = 10) -> str:
    """One UAPI request and its reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(socket_path(namespace)))
        connection.sendall(request.encode())
        reply = b""
        while not reply.endswith(b"\n\n"):
            part = connection.recv(1 << 16)
            if not part:
                break
            reply += part
    return reply.decode()


def snapshot(namespace: Namespace) -> DeviceSnapshot:
    """The data plane's state."""
    return parse_get(ask(namespace, GET))


def configure(namespace: Namespace, change: DeviceChange) -> None:
    """Apply a change; raises `UapiError` when it is refused."""
    parse_set_reply(ask(namespace, format_set(change)))


def new_key() -> PrivateKey:
    """A fresh private key."""
    return PrivateKey.clamp(os.urandom(32))


def public_key(private: PrivateKey) -> PublicKey:
    """The public half."""
    return PublicKey(backend("openssl").public_key(private))


def plain_change(
    topology: Topology, node: Node, keys: Mapping[str, PrivateKey], family: int
) -> DeviceChange:
    """Plain mode: all are peers of all; allowed IPs are tunnel addresses and pod CIDRs."""
    peers = []
    for other in topology.nodes:
        address = other.address(family)
        if other.name == node.name or address is None:
            continue
        peers.append(PeerChange(
            public_key=public_key(keys[other.name]),
            endpoint=Endpoint(address.packed, LISTEN_PORT),
            replace_allowed_ips=True,
            allowed_ips=tuple(
                AllowedIp(Prefix(n.network_address.packed, n.prefixlen)) for n in behind(other)
            ),
        ))  # fmt: skip
    return DeviceChange(
        private_key=keys[node.name],
        listen_port=LISTEN_PORT,
        replace_peers=True,
        peers=tuple(peers),
    )


def behind(node: Node) -> list[Network]:
    """What plain mode routes to a node: its tunnel addresses, and its pods if it has any."""
    own = [ip_network(address) for address in node.tunnel]
    return own + (list(node.pod_cidrs) if node.pods else [])


def plain_lines(topology: Topology, node: Node) -> list[str]:
    """Plain mode: the device's addresses and routes as `ip -batch` lines."""
    mtu = min(topology.underlay(name).mtu for name in node.underlays) - 80
    lines = [f"link set {DEVICE} mtu {mtu} up"]
    for address in node.tunnel:
        nodad = " nodad" if address.version == 6 else ""
        lines.append(f"address add {address}/{address.max_prefixlen} dev {DEVICE}{nodad}")
    for other in topology.nodes:
        if other.name != node.name:
            lines += [f"route add {network} dev {DEVICE}" for network in behind(other)]
    return lines
