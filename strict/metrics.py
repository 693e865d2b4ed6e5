"""Prometheus metrics of a node: `wgpy strict run --metrics-port PORT`.

Read from the data plane, the backstop and the agent at each scrape; nothing is kept
here, so a scrape after the data plane has died still gives what the others know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from strict.agent import Agent
from strict.client import StrictClient
from strict.firewall import counts
from wgpy import metrics
from wgpy.control.client import ControlFailed
from wgpy.linux import uapi_client
from wgpy.metrics import Families, add_counters, add_peers

PREFIX: Final = "wgpy_strict"


def serve(agent: Agent, address: str, port: int) -> None:
    """Serve metrics over HTTP from a thread of its own; raises OSError."""
    metrics.serve(NodeCollector(agent), address, port)


class NodeCollector(Collector):
    """Collects from one agent's node."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._interface = agent.config.node.interface

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        families = Families(PREFIX)
        self._add_dataplane(families)
        for name, count in counts(self._interface).items():
            text = "Plaintext that the kernel rules met"
            families.counter("backstop_packets", text, count.packets, rule=name)
        joined, refused = self._agent.joined, len(self._agent.state.refused)
        families.gauge("joined", "Every source has synced, peers are installed", joined)
        families.gauge("refused", "Nodes and entries refused", refused)
        for kind, number in self._agent.state.refusals.items():
            text = "Refusals so far, of nodes, entries or keys of a store"
            families.counter("refusals", text, number, kind=kind)
        for source in self._agent.sources:
            families.gauge("source_up", "The source can be used", not source.problem,
                           source=source.name)  # fmt: skip
        yield from families
        lag = SummaryMetricFamily(
            f"{PREFIX}_discovery_lag_seconds", "From publication to encryptable on this node"
        )
        lag.add_metric([], self._agent.lag_count, self._agent.lag_sum)
        yield lag

    def _add_dataplane(self, families: Families) -> None:
        try:
            with StrictClient(self._interface) as client:
                policy, status = client.hello["policy"], client.request("status")
                counters = client.request("counters")
            peers = uapi_client.get(self._interface).peers
        except (ControlFailed, OSError, uapi_client.DeviceUnreachable):
            families.gauge("up", "The data plane answers", 0)
            return
        families.gauge("up", "The data plane answers", 1)
        families.gauge("ipcache_entries", "Prefixes in the ipcache", policy["entries"])
        families.gauge("nodes", "Known nodes", policy["nodes"])
        families.gauge("peers", "WireGuard peers", status["peers"])
        add_counters(families, counters)
        names = {node.public_key: node.name for node in self._agent.state.table.nodes}
        add_peers(
            families,
            peers,
            lambda peer: {"node": names.get(peer.public_key, peer.public_key.base64)},
        )
