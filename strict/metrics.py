"""Prometheus metrics of a node: `wgpy strict run --metrics-port PORT`.

Read from the data plane, the backstop and the agent at each scrape; nothing is kept
here, so a scrape after the data plane has died still gives what the others know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector, CollectorRegistry

from strict.agent import Agent
from strict.client import StrictClient
from strict.firewall import counts
from wgpy.control.client import ControlFailed
from wgpy.linux import uapi_client as uapi
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.settings import PeerSnapshot

PREFIX: Final = "wgpy_strict"
_EGRESS: Final = frozenset(
    {
        DropReason.MALFORMED,
        DropReason.NO_PEER,
        DropReason.NO_ENDPOINT,
        DropReason.QUEUE_FULL,
        DropReason.HANDSHAKE_GAVE_UP,
        DropReason.PEER_REMOVED,
        DropReason.COUNTER_EXHAUSTED,
        DropReason.DEVICE_DOWN,
        DropReason.UNENCRYPTED_TRAFFIC,
        DropReason.POLICY_DENIED,
        DropReason.POLICY_NOT_LOADED,
        DropReason.UDP_SEND_FAILED,
    }
)
"""Reasons that discard what was about to leave; all others what came in."""


def serve(agent: Agent, address: str, port: int) -> None:
    """Serve metrics over HTTP from a thread of its own; raises OSError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(agent))
    start_http_server(port, addr=address, registry=registry)


class NodeCollector(Collector):
    """Collects from one agent's node."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._interface = agent.config.node.interface

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        yield from self._of_dataplane()
        yield from self._of_backstop()
        lag = SummaryMetricFamily(
            f"{PREFIX}_discovery_lag_seconds", "From publication to encryptable on this node"
        )
        lag.add_metric([], self._agent.lag_count, self._agent.lag_sum)
        yield lag
        yield _gauge("joined", "Every source has synced, peers are installed", self._agent.joined)
        yield _gauge("refused", "Nodes and entries refused", len(self._agent.state.refused))

    def _of_dataplane(self) -> Iterator[Metric]:
        try:
            with StrictClient(self._interface) as client:
                policy, status = client.hello["policy"], client.request("status")
                counters = client.request("counters")
            peers = uapi.get(self._interface).peers
        except (ControlFailed, OSError, uapi.DeviceUnreachable):
            yield _gauge("up", "The data plane answers", 0)
            return
        yield _gauge("up", "The data plane answers", 1)
        yield _gauge("ipcache_entries", "Prefixes in the ipcache", policy["entries"])
        yield _gauge("nodes", "Known nodes", policy["nodes"])
        yield _gauge("peers", "WireGuard peers", status["peers"])
        yield from _of_counters(counters)
        yield from self._of_peers(peers)

    def _of_peers(self, peers: Iterable[PeerSnapshot]) -> Iterator[Metric]:
        names = {node.public_key: node.name for node in self._agent.state.table.nodes}
        traffic = CounterMetricFamily(
            f"{PREFIX}_peer_bytes", "Outer bytes per peer", labels=["node", "direction"]
        )
        handshake = GaugeMetricFamily(
            f"{PREFIX}_peer_latest_handshake_seconds",
            "Unix time of the latest handshake, 0 for never",
            labels=["node"],
        )
        for peer in peers:
            name = names.get(peer.public_key, peer.public_key.base64)
            traffic.add_metric([name, "ingress"], peer.rx_bytes)
            traffic.add_metric([name, "egress"], peer.tx_bytes)
            handshake.add_metric([name], peer.latest_handshake / NS)
        yield traffic
        yield handshake

    def _of_backstop(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            f"{PREFIX}_backstop_packets", "Plaintext that the kernel rules met", labels=["rule"]
        )
        for name, count in counts(self._interface).items():
            family.add_metric([name], count.packets)
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _of_counters(counters: Mapping[str, Any]) -> Iterator[Metric]:
    drops = CounterMetricFamily(
        f"{PREFIX}_drops", "Packets dropped", labels=["reason", "direction"]
    )
    for name, count in counters["drops"].items():
        direction = "egress" if DropReason[name] in _EGRESS else "ingress"
        drops.add_metric([name, direction], count)
    yield drops
    packets = CounterMetricFamily(
        f"{PREFIX}_forwarded_packets", "Inner packets forwarded", labels=["verdict"]
    )
    size = CounterMetricFamily(
        f"{PREFIX}_forwarded_bytes", "Bytes of inner packets forwarded", labels=["verdict"]
    )
    for verdict, (number, total) in counters["forwarded"].items():
        packets.add_metric([verdict], number)
        size.add_metric([verdict], total)
    yield packets
    yield size
