"""The agent's end of the plugin with a pretended agent behind it, in a thread of its own."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from strict.cni.server import PodSource
from strict.nodes import Node
from strict.settings import TableConfig
from strict.state import ClusterState
from tests.support.cni import host_local
from wgpy.protocol.endpoint import Prefix, format_address
from wgpy.protocol.keys import PublicKey

INTERFACE = "wgcni"
PODS4, PODS6 = "10.55.0.0/16", "fd55::/48"
OWN4, OWN6 = "10.55.1.0/24", "fd55:0:0:1::/64"


class PretendedAgent:
    """Merges what its sources say, as the agent does, and says what a test wants it to."""

    def __init__(self, folder: Path) -> None:
        settings = TableConfig("alpha", pod_cidrs=(Prefix.parse(PODS4), Prefix.parse(PODS6)))
        self.state = ClusterState(settings, PublicKey(bytes(31) + b"\1"))
        own = (Prefix.parse(OWN4), Prefix.parse(OWN6))
        self.state.table.upsert_node(Node("alpha", pod_cidrs=own))
        beta = (Prefix.parse("10.55.2.0/24"), Prefix.parse("fd55:0:0:2::/64"))
        self.state.table.upsert_node(Node("beta", pod_cidrs=beta))
        self.config = SimpleNamespace(node=SimpleNamespace(name="alpha"))
        self.in_force = self.carries = True
        self.folder = folder
        self.rounds = 0
        self.source = PodSource(INTERFACE, folder)
        self.source.serve(self)

    def status(self) -> dict[str, Any]:
        return {"node": "alpha", "joined": True, "problems": {}, "underlay": ["eth0"]}

    def tick(self) -> None:
        self.rounds += 1
        self.state.take(self.source.name, self.source.poll())

    @property
    def known(self) -> set[str]:
        """The addresses of pods in the table."""
        return {format_address(prefix.ip) for prefix in self.state.local_pods}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[PretendedAgent]:
    """Until the block ends."""
    agent, end = PretendedAgent(folder), threading.Event()

    def work() -> None:
        poller = select.poll()
        poller.register(agent.source.fileno(), select.POLLIN)
        while not end.is_set():
            poller.poll(20)
            agent.tick()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield agent
    finally:
        end.set()
        thread.join()
        agent.source.close()


def network(folder: Path, *, version: str = "1.1.0", **plugin: Any) -> Mapping[str, Any]:
    """A conflist with our plugin alone."""
    ours = {
        "type": "wgpy-cni",
        "agent": str(folder / f"{INTERFACE}.cni"),
        "ipam": host_local(folder / "leases", OWN4, OWN6),
    }
    return {"cniVersion": version, "name": "pods", "plugins": [ours | plugin]}
