"""Shooting crafted packets through a cluster, and counting where they turn up.

A `Range` is one running cluster with its sniffer.  `volley` sends a few packets of every
kind along a flow, waits until each of them has been accounted for somewhere, and says how
many the eavesdropper could read and how many arrived.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed import control
from testbed.classify import LEAKS
from testbed.cluster import Cluster
from testbed.namespaces import Namespace, wait_until
from testbed.sniffer import Sniffer
from testbed.topology import parse_topology
from tests.cluster.craft import KINDS, Flow, Injector, build, mac_of

MARKER = 12
"""Bytes: enough not to occur by chance, and few enough for a TCP header cut short."""
EACH = 3
"""Packets of every kind."""

INNER_REASONS = {
    "MALFORMED", "INNER_MALFORMED", "SOURCE_NOT_ALLOWED", "NO_PEER", "NO_ENDPOINT",
    "UNENCRYPTED_TRAFFIC", "SOURCE_NOT_ON_NODE", "PLAINTEXT_INGRESS", "POLICY_DENIED",
    "POLICY_NOT_LOADED",
}  # fmt: skip
"""Why a packet of a pod or node is dropped."""


@dataclass
class Volley:
    """What became of a volley: packets by kind."""

    sent: int
    readable: Counter = field(default_factory=Counter)
    """Seen in plaintext on the underlay, coming from the sending node."""
    arrived: Counter = field(default_factory=Counter)
    """Seen at the receiver."""
    dropped: Counter = field(default_factory=Counter)
    """Drops that the sending node's data plane counted meanwhile, by reason."""
    sealed: int = 0
    """Frames of WireGuard meanwhile, from the sending node."""
    backstop: Counter = field(default_factory=Counter)


class Tap:
    """Counts markers that arrive at a namespace's device."""

    def __init__(self, space: Namespace, device: str) -> None:
        self._socket = space.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.bind((device, 3))
        self._socket.setblocking(False)
        self._packets: list[bytes] = []

    def count(self, marker: bytes) -> int:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self._socket.recvfrom(65535)
                if address[2] != socket.PACKET_OUTGOING:
                    self._packets.append(data)
        # Segments of one flow may arrive glued together: count inside.
        return sum(packet.count(marker) for packet in self._packets)

    def close(self) -> None:
        self._socket.close()


class Range:
    """A cluster, its sniffer, and the means to shoot."""

    def __init__(self, cluster: Cluster, sniffer: Sniffer) -> None:
        self.cluster = cluster
        self.sniffer = sniffer
        self.topology = cluster.topology

    # Addresses and flows.

    def pod(self, path: str, version: int) -> str:
        return next(str(a) for a in self.topology.pod(path).addresses if a.version == version)

    def node(self, name: str, version: int) -> str:
        return str(self.topology.node(name).address(version))

    def world(self, version: int) -> str:
        return next(str(a) for a in self.topology.world.addresses if a.version == version)

    # Changing what nodes know.

    def show(self, viewer: str, *names: str) -> None:
        self.cluster.views[viewer].show(*names)
        self.cluster.publish(viewer)

    def hide(self, viewer: str, *names: str) -> None:
        self.cluster.views[viewer].hide(*names)
        self.cluster.publish(viewer)

    def mode(self, mode: str, *nodes: str) -> None:
        for node in nodes or [node.name for node in self.topology.nodes]:
            self.cluster.write_config(node, mode=mode)
        for node in nodes or [node.name for node in self.topology.nodes]:
            control.wait_mode(self.cluster, node, mode)

    def until(self, node: str, source: str, destination: str, outcome: str) -> None:
        """Until the table of `node` says so."""
        control.wait_known(self.cluster, node, source, destination, outcome)

    # Shooting.

    @contextlib.contextmanager
    def marker(self) -> Iterator[bytes]:
        """Random bytes that the sniffer looks for."""
        marker = secrets.token_bytes(MARKER)
        self.sniffer.look_for(marker)
        try:
            yield marker
        finally:
            self.sniffer.forget(marker)

    def volley(
        self, node: str, pod: str, flow: Flow, *, receiver: tuple[str, str] | None = None,
        kinds: tuple[str, ...] = KINDS, port: int = 80, expect: str = "dropped",
        into_tunnel: bool = False,
    ) -> Volley:  # fmt: skip
        """Send `EACH` packets of each kind from a pod (or, with an empty name, the node itself).

        `into_tunnel` puts them on the node's tunnel device, past every check of the host.

        `expect` says what to wait for before counting: packets dropped by the data plane,
        readable on the wire, or arrived at `receiver` (namespace and device).
        """
        cluster = self.cluster
        shoot: Injector | RawSender | TunnelSender
        if into_tunnel:
            shoot = TunnelSender(cluster.namespaces[node])
        else:
            shoot = self._from_pod(node, pod) if pod else self._from_node(node, flow)
        tap = Tap(cluster.namespaces[receiver[0]], receiver[1]) if receiver else None
        markers = {kind: secrets.token_bytes(MARKER) for kind in kinds}
        for marker in markers.values():
            self.sniffer.look_for(marker)
        ports = [f"{node}.{i}" for i in range(len(self.topology.node(node).underlays))]
        before = self._inner_drops(node)
        counted = Counter(control.backstop(cluster, node))
        sealed = self._sealed(node)
        result = Volley(EACH * len(kinds))
        for kind, marker in markers.items():
            for _ in range(EACH):
                shoot(build(kind, flow, marker, port=port))

        def readable(marker: bytes) -> int:
            return sum(self.sniffer.marked_at[marker, port] for port in ports)

        def accounted() -> int:
            self.sniffer.drain()
            match expect:
                case "dropped":
                    return self._inner_drops(node)["UNENCRYPTED_TRAFFIC"] - before[
                        "UNENCRYPTED_TRAFFIC"]
                case "readable":
                    return sum(map(readable, markers.values()))
                case "arrived":
                    return sum(tap.count(marker) for marker in markers.values())
                case _:
                    return result.sent

        if not wait_until(lambda: accounted() >= result.sent, 5):
            time.sleep(0.1)
        cluster.settle(self.sniffer)
        for kind, marker in markers.items():
            result.readable[kind] = readable(marker)
            result.arrived[kind] = tap.count(marker) if tap else 0
            self.sniffer.forget(marker)
        result.dropped = self._inner_drops(node) - before
        result.backstop = Counter(control.backstop(cluster, node)) - counted
        result.sealed = self._sealed(node) - sealed
        shoot.close()
        if tap:
            tap.close()
        return result

    def _inner_drops(self, node: str) -> Counter:
        """By reason, without those of datagrams: a peer's stale session is no verdict."""
        return Counter({
            name: count for name, count in control.drops(self.cluster, node).items()
            if name in INNER_REASONS
        })  # fmt: skip

    def _sealed(self, node: str) -> int:
        self.cluster.settle(self.sniffer)
        return self.sniffer.sealed_at[f"{node}.0"]

    def _from_pod(self, node: str, pod: str) -> Injector:
        peer = mac_of(self.cluster.namespaces[node], f"pod{pod}")
        return Injector(self.cluster.namespaces[f"{node}/{pod}"], "eth0", peer)

    def _from_node(self, node: str, flow: Flow) -> RawSender:
        return RawSender(self.cluster.namespaces[node], flow)

    def from_pod(self, pod: str, packet: bytes) -> None:
        """One packet, as it is."""
        node, _, name = pod.partition("/")
        shoot = self._from_pod(node, name)
        shoot(packet)
        shoot.close()

    def from_node(self, node: str, flow: Flow, packet: bytes) -> None:
        """One packet of the node's own, as it is."""
        shoot = self._from_node(node, flow)
        shoot(packet)
        shoot.close()

    def let_through(self, node: str, flow: Flow) -> None:
        """Until everything sent along `flow` before has been judged: a packet behind it was."""
        before = sum(control.drops(self.cluster, node).values())
        self.from_node(node, flow, build("udp", flow, b"the end of the queue"))
        wait_until(lambda: sum(control.drops(self.cluster, node).values()) > before, 5)
        self.cluster.settle(self.sniffer)

    def given_back(self, node: str) -> int:
        """Packets that the data plane returned to the host unencrypted."""
        with control.connection(self.cluster, node) as client:
            return client.request("counters")["forwarded"]["plaintext"][0]

    # Whole conversations.

    def ping(self, space: str, target: str, count: int = 3, **more: float) -> int:
        from testbed.load import ping

        return ping(self.cluster.namespaces[space], target, count=count, **more).received

    def leaked(self) -> int:
        self.cluster.settle(self.sniffer)
        return self.sniffer.count(*LEAKS)


class RawSender:
    """The node's own packets, header included; the kernel routes them as it does all others."""

    def __init__(self, space: Namespace, flow: Flow) -> None:
        family = socket.AF_INET if flow.version == 4 else socket.AF_INET6
        self._socket = space.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._to = (flow.destination, 0)

    def __call__(self, packet: bytes) -> None:
        # The refusal of the kernel (unreachable) is an answer too.
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, self._to)

    def close(self) -> None:
        self._socket.close()


class TunnelSender:
    """Packets for the data plane itself, as a root of that node may send them."""

    def __init__(self, space: Namespace) -> None:
        self._socket = space.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)

    def __call__(self, packet: bytes) -> None:
        self._socket.sendto(packet, ("wg0", 0x86DD if packet[0] >> 4 == 6 else 0x0800))

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def shooting_range(text: str) -> Iterator[Range]:
    """Bring up a cluster for a module of tests."""
    with Cluster.up(parse_topology(text)) as cluster, cluster.sniffer() as sniffer:
        sniffer.start(interval=0.1)
        yield Range(cluster, sniffer)


def every(kinds: tuple[str, ...], count: int) -> Counter:
    """`count` of each kind."""
    return Counter(dict.fromkeys(kinds, count))
