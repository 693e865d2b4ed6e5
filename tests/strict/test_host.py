"""The backstop and the routes in real network namespaces, on real packets.

Packets are put on the node's underlay device as frames, which pass its egress hook as the
stack's own do; "the wire" is another namespace that listens there.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from strict.firewall import Firewall, FirewallError, counts
from strict.mtu import advertised_mss, device_mtu, route_mtu
from strict.routes import RoutePlan, Routing, bring_up, link_mtus, local_addresses, prepare_host
from strict.ruleset import Backstop, table_name
from tests.strict.helpers import a, p, tcp
from tests.support.netns import Lab, Namespace

MARK, PORT = 0xE00, 51871
ETHERNET = bytes(12)
PODS = (p("10.244.0.0/16"), p("fd00:10::/48"))
NODES = (p("192.168.5.0/24"), p("fd00:5::/64"))


def packet(source: str, destination: str, protocol: int, body: bytes = bytes(24),
           fragment: int = 0, options: bytes = b"") -> bytes:
    """An IP packet of any protocol; `fragment` is the flags and offset field."""
    made = bytearray(tcp(source, destination, 0, 0, options=options))
    if made[0] >> 4 == 4:
        made[9], made[6:8] = protocol, fragment.to_bytes(2)
        header = (made[0] & 15) * 4
        made = made[:header] + body
        made[2:4] = len(made).to_bytes(2)
    else:
        made[6] = protocol
        made = made[:40] + body
        made[4:6] = len(body).to_bytes(2)
    return bytes(made)


class Wire:
    """A node's underlay device and what is at its other end."""

    def __init__(self, lab: Lab) -> None:
        self.node, self.far = lab.namespace("node"), lab.namespace("far")
        self.device, other = lab.veth(
            self.node, self.far, "192.168.5.1/24 fd00:5::1/64", "192.168.5.2/24 fd00:5::2/64")
        with self.node.entered():
            self.out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.out.bind((self.device, 0))
        with self.far.entered():
            self.back = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.back.bind((other, 3))
            self.back.settimeout(5)

    def frame(self, data: bytes) -> bytes:
        return ETHERNET + (b"\x08\x00" if data[0] >> 4 == 4 else b"\x86\xdd") + data

    def passes(self, data: bytes, mark: int = 0) -> bool:
        """Whether a packet put on the node's device comes out at the far end."""
        self.out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        with contextlib.suppress(OSError):  # A drop on the egress hook is ENOBUFS here.
            self.out.send(self.frame(data))
        self.out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        end = packet("192.168.5.1", "192.168.5.2", 17, b"the end of this packet's wait")
        self.out.send(self.frame(end))
        seen = []
        while (found := self.back.recv(4096)[14:])[:len(end)] != end:
            seen.append(found[: len(data)])
        return data in seen

    def close(self) -> None:
        self.out.close()
        self.back.close()


@pytest.fixture
def wire(lab: Lab) -> Iterator[Wire]:
    made = Wire(lab)
    yield made
    made.close()


def backstop(device: str, **changes: object) -> Backstop:
    made = Backstop("wg-x.1", (device,), MARK, PORT, True, PODS, NODES, plain_nodes=NODES)
    return replace(made, **changes)


def count(node: Namespace, name: str) -> int:
    with node.entered():
        return counts("wg-x.1")[name].packets


PROTOCOLS = [
    pytest.param({"protocol": 6}, id="tcp"),
    pytest.param({"protocol": 17}, id="udp"),
    pytest.param({"protocol": 1}, id="icmp"),
    pytest.param({"protocol": 132}, id="sctp"),
    pytest.param({"protocol": 253}, id="unknown"),
    pytest.param({"protocol": 17, "fragment": 0x2000}, id="first fragment"),
    pytest.param({"protocol": 17, "fragment": 0x0010}, id="later fragment"),
    pytest.param({"protocol": 6, "options": b"\x94\x04\x00\x00"}, id="options"),
]
FLOWS = [("10.244.1.5", "10.244.2.5"), ("fd00:10::5", "fd00:10:0:2::5")]


@pytest.mark.root
class TestEgress:
    def test_pods_to_pods(self, wire: Wire) -> None:
        """Assert: nothing comes out.  Sanity: counting only, everything does."""
        for drop in (True, False):
            with wire.node.entered():
                Firewall("wg-x.1").apply(backstop(wire.device, drop=drop))
            for parameter in PROTOCOLS:
                for source, destination in FLOWS:
                    before = count(wire.node, "egress_pods")
                    data = packet(source, destination, **parameter.values[0])  # type: ignore[arg-type]
                    assert wire.passes(data) is not drop, parameter.id
                    assert count(wire.node, "egress_pods") == before + 1

    def test_what_is_not_pod_to_pod_passes(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device))
        for source, destination in [
            ("10.244.1.5", "8.8.8.8"), ("192.168.5.1", "10.244.2.5"),
            ("10.244.1.5", "192.168.5.2"), ("fd00:10::5", "2001:db8::1"),
        ]:
            assert wire.passes(packet(source, destination, 17))
        assert count(wire.node, "egress_pods") == 0

    def test_node_encryption(self, wire: Wire) -> None:
        strict = backstop(
            wire.device, node_encryption=True, plain_nodes=(p("192.168.5.77"),),
            control_plane=(p("192.168.5.9"),), etcd_ports=(2379,))
        with wire.node.entered():
            Firewall("wg-x.1").apply(strict)
        for source, destination in [
            ("192.168.5.1", "192.168.5.2"), ("10.244.1.5", "192.168.5.2"),
            ("192.168.5.1", "10.244.2.5"), ("fd00:5::1", "fd00:5::2"),
        ]:
            assert not wire.passes(packet(source, destination, 17))
            assert wire.passes(packet(source, destination, 17), MARK), "the tunnel's own UDP"
        assert not wire.passes(packet("192.168.5.1", "192.168.5.2", 6), MARK), "is UDP only"
        assert wire.passes(packet("192.168.5.1", "192.168.5.77", 17)), "opted out"
        assert wire.passes(tcp("192.168.5.1", "192.168.5.9", 4000, 2379)), "etcd"
        assert not wire.passes(tcp("192.168.5.1", "192.168.5.9", 2379, 22))
        neighbour = bytes([135]) + bytes(23)
        assert wire.passes(packet("fd00:5::1", "fd00:5::2", 58, neighbour)), "neighbour discovery"
        assert not wire.passes(packet("fd00:5::1", "fd00:5::2", 58, bytes([128]) + bytes(23)))

    def test_nodes_inside_the_pod_cidrs(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device, nodes_in_pods=(p("10.244.2.5"),)))
        assert wire.passes(packet("10.244.1.5", "10.244.2.5", 17))
        assert not wire.passes(packet("10.244.1.5", "10.244.2.6", 17))


@pytest.mark.root
class TestIngress:
    CASES = (
        ("10.244.2.5", "10.244.1.5"), ("10.244.2.5", "172.16.0.1"), ("8.8.8.8", "10.244.1.5"),
        ("fd00:10:0:2::5", "fd00:10::5"), ("2001:db8::1", "fd00:10::5"),
    )

    def arrives(self, wire: Wire, source: str, destination: str, counter: str) -> int:
        """How often the counter met a packet that came in from the wire."""
        before = count(wire.node, counter)
        wire.back.send(wire.frame(packet(source, destination, 17)))
        return count(wire.node, counter) - before

    def test_known_or_not(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device))
        for source, destination in self.CASES:
            assert self.arrives(wire, source, destination, "ingress_pods") == 1

    def test_row_7_passes_only_without_node_encryption(self, wire: Wire) -> None:
        flows = [("192.168.5.2", "10.244.1.5"), ("10.244.2.5", "192.168.5.1")]
        for plain, expected in ((NODES, 0), ((), 1)):
            with wire.node.entered():
                Firewall("wg-x.1").apply(backstop(wire.device, plain_nodes=plain))
            for source, destination in flows:
                assert self.arrives(wire, source, destination, "ingress_pods") == expected

    def test_switched_off(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device, ingress=False))
        assert self.arrives(wire, *self.CASES[0], "ingress_pods") == 0

    def test_delivery_to_a_real_socket(self, wire: Wire) -> None:
        """Assert: a spoofed datagram does not arrive.  Sanity: with counting only it does."""
        wire.node.ip("address add 10.244.1.5/32 dev lo")
        wire.far.ip("address add 10.244.2.5/32 dev lo")
        wire.far.ip("route add 10.244.1.5/32 via 192.168.5.1 src 10.244.2.5")
        with wire.node.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("10.244.1.5", 4000))
            server.settimeout(0.5)
        with wire.far.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, client:
            for drop in (False, True):
                with wire.node.entered():
                    Firewall("wg-x.1").apply(backstop(wire.device, drop=drop))
                client.sendto(b"spoofed", ("10.244.1.5", 4000))
                if drop:
                    with pytest.raises(TimeoutError):
                        server.recv(100)
                else:
                    assert server.recv(100) == b"spoofed"
        assert count(wire.node, "ingress_pods") == 2

    def test_a_pod_never_becomes_an_endpoint(self, lab: Lab, wire: Wire) -> None:
        pod = lab.namespace("pod")
        _, inside = lab.veth(wire.node, pod, "10.244.1.1/24", "10.244.1.5/24")
        assert inside
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device))
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("", PORT))
            server.settimeout(0.5)
        with pod.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, client:
            client.sendto(b"captured handshake", ("10.244.1.1", PORT))
            with pytest.raises(TimeoutError):
                server.recv(100)
        assert count(wire.node, "endpoint_in_pods") == 1


@pytest.mark.root
class TestTables:
    def test_idempotent_restored_removed_and_alone(self, wire: Wire) -> None:
        with wire.node.entered():
            others = "table inet other { chain c { type filter hook input priority 0; }; }"
            subprocess.run(["nft", "-f", "-"], input=others, text=True, check=True)
            before = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True)
            firewall = Firewall("wg-x.1")
            wanted = backstop(wire.device, masquerade=True)
            assert firewall.apply(wanted) and not firewall.apply(wanted)
            assert not firewall.restore()
            for command in (
                f"delete table netdev {table_name('wg-x.1')}",
                f"flush chain netdev {table_name('wg-x.1')} egress_0",
                f"delete table inet {table_name('wg-x.1')}",
                f"add element netdev {table_name('wg-x.1')} plain_nodes4 {{ 10.244.2.5 }}",
            ):
                subprocess.run(["nft", command], check=True)
                assert not firewall.intact()
                assert firewall.restore() and firewall.intact()
            assert Firewall("wg-x.1").apply(wanted), "a new agent writes it once"
            firewall.remove()
            firewall.remove()
            after = subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True)
            assert after.stdout == before.stdout

    def test_counters_survive_a_change(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device))
        assert not wire.passes(packet("10.244.1.5", "10.244.2.5", 17))
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device, nodes=(p("192.168.9.0/24"),)))
        assert count(wire.node, "egress_pods") == 1

    def test_a_refusal_leaves_what_was(self, wire: Wire) -> None:
        with wire.node.entered():
            Firewall("wg-x.1").apply(backstop(wire.device))
            before = counts("wg-x.1")
            with pytest.raises(FirewallError, match="nft refused"):
                Firewall("wg-x.1").apply(backstop("a-name-that-is-too-long"))
            assert counts("wg-x.1") == before


@pytest.mark.root
class TestRoutes:
    PLAN = RoutePlan(
        tunnel=PODS,
        local=(p("10.244.1.0/24"), p("fd00:10:0:1::/64"), p("10.244.9.9/32")),
        mtu=1408,
        sources={4: a("192.168.5.1"), 16: a("fd00:5::1")},
        direct={p("10.244.2.0/24"): a("192.168.5.2")},
    )

    @staticmethod
    def route(node: Namespace, destination: str, *words: str) -> str:
        found = node.run("ip", "route", "get", destination, *words, check=False)
        return found.stdout + found.stderr

    def test_life(self, lab: Lab, wire: Wire) -> None:
        node, tunnel = wire.node, lab.interface("wg")
        node.ip(f"route add default via 192.168.5.2 dev {wire.device}")
        routing = Routing(tunnel, MARK, 51871, 100)
        with node.entered():
            assert routing.apply(self.PLAN)
            # Without the device: unreachable, never the default route.
            assert "No route to host" in self.route(node, "10.244.2.5")
            node.ip(f"tuntap add {tunnel} mode tun")
            bring_up(tunnel, 1420)
            prepare_host((wire.device,))
            assert any("unicast" in text for text in routing.apply(self.PLAN))
            assert not routing.apply(self.PLAN), "nothing left to do"
        found = self.route(node, "10.244.2.5")
        assert f"dev {tunnel}" in found and "src 192.168.5.1" in found
        assert "mtu 1408 advmss 1368" in node.ip("route show table 51871")
        assert wire.device in self.route(node, "10.244.2.5", "mark", str(MARK))
        assert f"via 192.168.5.2 dev {wire.device}" in self.route(
            node, "10.244.2.5", "from", "10.244.1.5", "iif", tunnel)
        assert "No route to host" in self.route(node, "10.244.1.44"), "a local pod that is gone"
        assert wire.device in self.route(node, "8.8.8.8")
        node.ip("route flush table 51871")
        node.ip("rule del priority 103")
        with node.entered():
            assert len(routing.apply(self.PLAN)) == 5
            assert not routing.apply(self.PLAN)
            node.ip(f"link delete {tunnel}")
            assert "No route" in self.route(node, "10.244.2.5"), "the device is gone"
            narrower = replace(self.PLAN, tunnel=(p("10.244.0.0/16"),), local=())
            assert any("fd00:10::/48" in text for text in routing.apply(narrower))
            routing.remove()
            routing.remove()
        assert "proto 171" not in node.ip("route show table all")
        assert "51871" not in node.ip("rule") + node.ip("-6 rule")

    def test_a_global_reverse_path_filter_moves_to_the_devices(
        self, lab: Lab, wire: Wire
    ) -> None:
        tunnel = lab.interface("wg")
        wire.node.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
        wire.node.ip(f"tuntap add {tunnel} mode tun")
        with wire.node.entered():
            bring_up(tunnel, 1420)
        for device, value in ((tunnel, "0"), ("all", "0"), (wire.device, "1"), ("default", "1")):
            name = f"net.ipv4.conf.{device}.rp_filter"
            assert wire.node.run("sysctl", "-n", name).stdout.strip() == value

    def test_looking_around(self, wire: Wire) -> None:
        with wire.node.entered():
            assert link_mtus((wire.device, "nowhere0")) == {wire.device: 1500}
            assert local_addresses()[a("192.168.5.1")] == p("192.168.5.0/24")


@pytest.mark.parametrize(
    ("underlay", "ipv6", "device", "route"),
    [(1500, False, 1420, 1408), (1500, True, 1420, 1408), (9000, True, 8920, 8912),
     (1400, True, 1320, 1312), (1360, True, 1280, 1280), (1300, True, 1280, 1280),
     (1300, False, 1220, 1216)],
)
def test_mtu(underlay: int, ipv6: bool, device: int, route: int) -> None:
    assert device_mtu(underlay, ipv6) == device
    assert route_mtu(underlay, ipv6) == route
    assert advertised_mss(route, 4) == route - 40 and advertised_mss(route, 16) == route - 60
