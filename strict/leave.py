"""Taking a node out: of the cluster (`drain`), and of this machine (`take_down`)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

from strict.agent import forwarding_path
from strict.config import AgentConfig
from strict.firewall import Firewall
from strict.routes import Routing, forwarding_back
from strict.single import hold
from strict.sources import own_node
from wgpy.sockets import socket_path


class StillThere(Exception):
    """Something is not gone; says what to do."""


def take_down(config: AgentConfig) -> None:
    """Data plane, routes, forwarding and, last of all, the backstop.

    Raises `StillThere`, `FirewallError`, `RoutingError`.
    """
    node, routing = config.node, config.routing
    # The data plane ends when its UAPI socket is removed.
    socket_path(node.interface).unlink(missing_ok=True)
    _wait_until_gone(node.interface)
    Routing(node.interface, node.fwmark, routing.table, routing.priority).remove()
    before = forwarding_path(node.interface)
    if before.exists():
        forwarding_back(json.loads(before.read_text()))
    Firewall(node.interface).remove()
    for found in (before, socket_path(node.interface, ".agent")):
        found.unlink(missing_ok=True)


def drain(config: AgentConfig, seconds: float, say: Callable[[str], None]) -> list[str]:
    """Withdraw this node from the store; returns who has not confirmed within `seconds`.

    No agent may run: it would publish the node again.  Raises `AlreadyRuns`, `StoreError`,
    `DocumentRefused`, `StillThere`.
    """
    if config.etcd is None:
        raise StillThere(
            f"{config.path} has no [discovery.etcd]: take the node out of the cluster's file, "
            "then `wgpy strict down`"
        )
    own = own_node(config)
    from strict.discovery.etcd.drain import withdraw

    with hold(config.node.interface):
        return withdraw(config.etcd, own, seconds, say)


def _wait_until_gone(interface: str) -> None:
    for _ in range(100):
        if interface not in {name for _, name in socket.if_nameindex()}:
            return
        time.sleep(0.05)
    raise StillThere(f"{interface} still exists: stop its data plane first")
