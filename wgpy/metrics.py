"""Prometheus metrics of running interfaces: what their sockets tell, read at each scrape.

`Families` and the functions below it are shared with the strict node's exporter, so that
the same thing has the same name behind either prefix.  Nothing is kept between scrapes: a
scrape after the data plane has died still gives what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector, CollectorRegistry

from wgpy.control.client import ControlClient, ControlFailed
from wgpy.linux import uapi_client
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.settings import PeerSnapshot
from wgpy.sockets import InterfaceError

PREFIX: Final = "wgpy"
_EGRESS: Final = frozenset(
    reason.name
    for reason in (
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
    )
)
"""Reasons that discard what was about to leave; all others what came in."""


class Families:
    """Metric families under one prefix, made by their first sample."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._families: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """A sample of a gauge."""
        self._add(GaugeMetricFamily, name, text, value, labels)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        """A sample of a counter; Prometheus appends ``_total`` to its name."""
        self._add(CounterMetricFamily, name, text, value, labels)

    def _add(
        self,
        kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        text: str,
        value: float,
        labels: Mapping[str, str],
    ) -> None:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = kind(
                f"{self._prefix}_{name}", text, labels=list(labels)
            )
        assert isinstance(family, kind)
        family.add_metric(list(labels.values()), value)


def add_counters(families: Families, counters: Mapping[str, Any], **labels: str) -> None:
    """Drops by reason and forwarded packets, from the control socket's `counters`."""
    for name, count in counters["drops"].items():
        direction = "egress" if name in _EGRESS else "ingress"
        families.counter(
            "drops", "Packets dropped", count, **labels, reason=name, direction=direction
        )
    for verdict, (number, total) in counters["forwarded"].items():
        each = {**labels, "verdict": verdict}
        families.counter("forwarded_packets", "Inner packets forwarded", number, **each)
        families.counter("forwarded_bytes", "Bytes of inner packets forwarded", total, **each)


def add_peers(
    families: Families,
    peers: Iterable[PeerSnapshot],
    labels: Callable[[PeerSnapshot], Mapping[str, str]],
) -> None:
    """Traffic and latest handshake of each peer, which `labels` names."""
    for peer in peers:
        each = labels(peer)
        for direction, size in (("ingress", peer.rx_bytes), ("egress", peer.tx_bytes)):
            families.counter(
                "peer_bytes", "Outer bytes per peer", size, **each, direction=direction
            )
        families.gauge(
            "peer_latest_handshake_seconds",
            "Unix time of the latest handshake, 0 for never",
            peer.latest_handshake / NS,
            **each,
        )


def add_interface(families: Families, name: str) -> None:
    """One interface; of another implementation, what its UAPI socket tells."""
    here = {"interface": name}
    try:
        device = uapi_client.get(name)
    except uapi_client.DeviceUnreachable:
        families.gauge("up", "The data plane answers", 0, **here)
        return
    families.gauge("up", "The data plane answers", 1, **here)
    families.gauge("peers", "WireGuard peers", len(device.peers), **here)
    add_peers(families, device.peers, lambda peer: {**here, "peer": peer.public_key.base64})
    try:
        with ControlClient(name) as client:
            status, counters = client.request("status"), client.request("counters")
    except (ControlFailed, OSError):
        return
    families.gauge("link_up", "The link is up", status["up"], **here)
    families.gauge("mtu_bytes", "MTU of the link", status["mtu"], **here)
    add_counters(families, counters, **here)


class InterfaceCollector(Collector):
    """Collects from these interfaces; from all that run at each scrape, if none is named."""

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._interfaces = tuple(interfaces)

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are now."""
        families = Families(PREFIX)
        for name in self._interfaces or _running():
            add_interface(families, name)
        yield from families


def _running() -> list[str]:
    try:
        return uapi_client.interfaces()
    except InterfaceError:
        return []


def serve(collector: Collector, address: str, port: int) -> int:
    """Serve metrics over HTTP from a thread of its own; the port.  Raises OSError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server, _ = start_http_server(port, addr=address, registry=registry)
    return int(server.server_port)
