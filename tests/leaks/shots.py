"""Who sends what to whom: one combination by chance, and the packets of it.

A shot is *secret* when strict mode promises that no byte of its payload is on an underlay
outside of WireGuard: a pod sends it to a pod, under whatever source address, or it carries
such a packet (quoted by an ICMP error, IP in IP), or a pod sends it to everybody.  A node's
own packets are secret as far as a kernel makes such by itself: errors and tunnels, but none
inside of another.  The others (with nodes, with the world, by the world) are *open*: they show
that the ears are open.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from testbed.topology import Topology
from tests.leaks import craft
from tests.leaks.wire import Marks

SENDERS = ("alpha/client", "alpha/client", "beta/server", "beta/small", "alpha", "beta", "world")
SOURCES = ("own",) * 8 + ("node", "neighbour", "remote pod", "foreign")
TARGETS = (
    "pod", "pod", "pod", "small mtu", "neighbour", "unknown", "unknown", "gone", "unused",
    "beyond", "node", "own node", "other cluster", "world", "service", "multicast", "broadcast",
)  # fmt: skip
TRANSPORTS = ("udp", "udp", "tcp", "icmp", "sctp", "unknown")
SHAPES = (
    "plain", "plain", "ttl 1", "ttl 2", "ttl 2", "ttl 3", "big", "big df", "fragments",
    "first fragment", "later fragment", "tiny fragments", "options", "unknown option",
    "route header", "destination options", "same family in IP", "other family in IP",
    "IP in IP in fragments", "IP in IP twice", "error", "error in error", "error in fragments",
    "error in IP", "redirect", "gre", "vlan", "vlan 0", "qinq", "to all stations",
    "longer than it is",
)  # fmt: skip
WRAPPING = ("same family in IP", "other family in IP", "IP in IP in fragments", "IP in IP twice")
QUOTING = ("error", "error in error", "error in fragments", "error in IP", "redirect")
MADE_BY_NODES = ("error", "same family in IP", "other family in IP")
TAGS = {
    "vlan": b"\x81\x00\x00\x07", "vlan 0": b"\x81\x00\x00\x00",
    "qinq": b"\x88\xa8\x00\x07\x81\x00\x00\x08",
}  # fmt: skip
EVERYBODY = {4: {"multicast": "224.0.0.251", "broadcast": "255.255.255.255"},
             6: {"multicast": "ff02::fb", "broadcast": "ff05::1"}}  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """One combination.  `sender` is a namespace, the rest names of kinds."""

    number: int
    sender: str
    source: str
    target: str
    version: int
    transport: str
    shape: str
    secret: bool

    def __str__(self) -> str:
        words = "secret" if self.secret else "open"
        return (f"#{self.number} {self.sender} as {self.source} to {self.target}: IPv{self.version}"
                f" {self.transport}, {self.shape} ({words})")  # fmt: skip


class Range:
    """The addresses of a cluster by what they are for a sender."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    def pod(self, path: str, version: int) -> bytes:
        return next(a.packed for a in self.topology.pod(path).addresses if a.version == version)

    def node(self, name: str, version: int) -> bytes:
        address = self.topology.node(name).address(version)
        assert address is not None
        return address.packed

    def world(self, version: int) -> bytes:
        assert self.topology.world is not None
        return next(a.packed for a in self.topology.world.addresses if a.version == version)

    def is_pod(self, address: bytes) -> bool:
        here = ip_address(address)
        return any(here in cidr for cidr in self.topology.pod_cidrs if cidr.version == here.version)

    def at_home(self, sender: str) -> tuple[str, str]:
        """The sender's node and the other one."""
        home = "beta" if sender.startswith("beta") else "alpha"
        return home, "alpha" if home == "beta" else "beta"

    def own(self, sender: str, version: int) -> bytes:
        if sender == "world":
            return self.world(version)
        return self.pod(sender, version) if "/" in sender else self.node(sender, version)

    def source(self, kind: str, sender: str, version: int) -> bytes:
        home, other = self.at_home(sender)
        match kind:
            case "node":
                return self.node(home, version)
            case "neighbour":
                return self.pod(_neighbour(home), version)
            case "remote pod":
                return self.pod(_partner(other), version)
            case "foreign":
                return _packed("198.51.100.7", "2001:db8:66::7", version)
        return self.own(sender, version)

    def target(self, kind: str, sender: str, version: int) -> bytes:
        home, other = self.at_home(sender)
        cidr = next(c for c in self.topology.node(other).pod_cidrs if c.version == version)
        match kind:
            case "pod":
                return self.pod(_partner(other), version)
            case "small mtu":
                return self.pod("beta/small" if other == "beta" else _partner(other), version)
            case "neighbour":
                return self.pod(_neighbour(home), version)
            case "unknown":
                return self.pod("gamma/stranger", version)
            case "gone":
                return self.pod("beta/gone" if other == "beta" else "alpha/gone", version)
            case "unused":
                return cidr[200].packed
            case "beyond":
                return _packed("10.244.99.9", "fd10:244:0:99::9", version)
            case "node":
                return self.node(other, version)
            case "own node":
                return self.node(home, version)
            case "other cluster":
                return _packed("10.245.1.10", "fd10:245:0:1::a", version)
            case "service":
                return service(version)
            case "world":
                return self.world(version)
        return ip_address(EVERYBODY[version][kind]).packed

    def pairs(self) -> list[bytes]:
        """The addresses of each two pods beside each other, as in an IP header."""
        pods = self.topology.pods
        return [
            one.packed + other.packed
            for left in pods for right in pods if left.node != right.node
            for one in left.addresses for other in right.addresses if one.version == other.version
        ]  # fmt: skip


def service(version: int) -> bytes:
    """A service's address, outside of the pod CIDRs."""
    return _packed("10.96.0.10", "fd00:96::a", version)


def _packed(four: str, six: str, version: int) -> bytes:
    return ip_address(four if version == 4 else six).packed


def _neighbour(node: str) -> str:
    return {"alpha": "alpha/neighbour", "beta": "beta/small"}[node]


def _partner(node: str) -> str:
    return {"alpha": "alpha/client", "beta": "beta/server"}[node]


def draw(chance: random.Random, number: int, where: Range, services: Collection[str]) -> Shot:
    """A combination by chance; on `services` nodes a service's address leads to a pod now."""
    sender = chance.choice(SENDERS)
    source = chance.choice(SOURCES)
    target = chance.choice(TARGETS)
    shot = Shot(number, sender, source, target, chance.choice((4, 6)), chance.choice(TRANSPORTS),
                chance.choice(SHAPES), False)  # fmt: skip
    return replace(shot, secret=is_secret(shot, where, services))


def is_secret(shot: Shot, where: Range, services: Collection[str]) -> bool:
    """Whether strict mode promises to keep it; see above."""
    source = where.source(shot.source, shot.sender, shot.version)
    target = where.target(shot.target, shot.sender, shot.version)
    if shot.sender == "world":
        return False
    from_pod = "/" in shot.sender or where.is_pod(source)
    # What conntrack takes for invalid is not translated, and goes to the world.
    translated = shot.transport in ("udp", "tcp") and shot.shape in ("plain", "big", *_TTL)
    to_pod = where.is_pod(target) or (
        translated and shot.target == "service" and where.at_home(shot.sender)[0] in services
    )
    to_all = shot.target in ("multicast", "broadcast")
    carried = WRAPPING + QUOTING if "/" in shot.sender else MADE_BY_NODES
    return (from_pod and (to_pod or to_all)) or shot.shape in carried


def build(shot: Shot, where: Range, marks: Marks, chance: random.Random) -> list[bytes]:
    """Its IP packets."""
    source = where.source(shot.source, shot.sender, shot.version)
    target = where.target(shot.target, shot.sender, shot.version)
    size = 1320 if shot.shape.startswith("big") else 96
    load = marks.payload(shot.secret, shot.number, size)
    # Few ports, so that what was tracked of one shot is met by another.
    ports = (40000 + chance.randrange(8), chance.choice((80, 81, 82, 53, 2379, 51871)))
    if shot.shape in WRAPPING + QUOTING + ("gre",):
        version = 10 - shot.version if shot.shape == "other family in IP" else shot.version
        load = _inner(shot, where, version, load, ports)
        return _carry(shot, source, target, load, version)
    protocol, segment = craft.transport(shot.transport, source, target, load, ports)
    make: Callable[..., list[bytes]] = _four if shot.version == 4 else _six
    return make(shot, source, target, protocol, segment)


def _inner(
    shot: Shot, where: Range, version: int, load: bytes, ports: tuple[int, int]
) -> bytes:
    """A packet from pod to pod, to be carried; in either direction by its number."""
    ends = where.pod("alpha/client", version), where.pod("beta/server", version)
    source, target = ends if shot.number % 2 else ends[::-1]
    return craft.ip(source, target, *craft.transport(shot.transport, source, target, load, ports))


def _carry(
    shot: Shot, source: bytes, target: bytes, inner: bytes, version: int
) -> list[bytes]:
    wrapped = craft.ip(source, target, 4 if version == 4 else 41, inner)
    kinds = (3, 11, 12, 4) if shot.version == 4 else (1, 2, 3, 4)
    kind = kinds[shot.number // 2 % 4]
    match shot.shape:
        case "IP in IP in fragments":
            return list(craft.fragments(wrapped, 64, shot.number & 0xFFFF))
        case "IP in IP twice":
            return [craft.ip(source, target, 4 if shot.version == 4 else 41, wrapped)]
        case "gre":
            kind = 0x0800 if version == 4 else 0x86DD
            return [craft.ip(source, target, 47, struct.pack("!HH", 0, kind) + inner)]
        case "error":
            return [craft.error(source, target, inner, kind)]
        case "error in error":
            return [craft.error(source, target, craft.error(target, source, inner, kind), kind)]
        case "error in fragments":
            whole = craft.error(source, target, inner, kind)
            return list(craft.fragments(whole, 64, shot.number & 0xFFFF))
        case "error in IP":
            protocol = 4 if shot.version == 4 else 41
            return [craft.ip(source, target, protocol, craft.error(source, target, inner, kind))]
        case "redirect":
            if shot.version == 4:
                return [craft.error(source, target, inner, 5, 1)]
            return [craft.redirect(source, target, inner)]
    return [wrapped]


_TTL = {"ttl 1": 1, "ttl 2": 2, "ttl 3": 3}


def _four(shot: Shot, source: bytes, target: bytes, protocol: int, load: bytes) -> list[bytes]:
    ttl = _TTL.get(shot.shape, 60)
    plain = craft.ip4(source, target, protocol, load, ttl=ttl)
    identity = shot.number & 0xFFFF
    match shot.shape:
        case "big df":
            return [craft.ip4(source, target, protocol, load, flags=2)]
        case "fragments":
            return list(craft.fragments(plain, 48, identity))
        case "tiny fragments":
            return list(craft.fragments(plain, 8, identity))
        case "first fragment":
            return [craft.ip4(source, target, protocol, load[:64], flags=1, identity=identity)]
        case "later fragment":
            return [craft.ip4(source, target, protocol, load[16:], offset=30, identity=identity)]
        case "options":
            record = b"\x07\x0b\x04" + bytes(9)
            return [craft.ip4(source, target, protocol, load, options=record)]
        case "unknown option":
            return [craft.ip4(source, target, protocol, load, options=b"\x9e\x04ab")]
        case "route header":
            loose = b"\x83\x07\x04" + target + b"\0"
            return [craft.ip4(source, target, protocol, load, options=loose)]
        case "destination options":
            return [craft.ip4(source, target, protocol, load, options=b"\x94\x04\0\0")]
        case "longer than it is":
            return [craft.ip4(source, target, protocol, load, length=len(load) + 500)]
    return [plain]


def _six(shot: Shot, source: bytes, target: bytes, protocol: int, load: bytes) -> list[bytes]:
    ttl = _TTL.get(shot.shape, 60)
    plain = craft.ip6(source, target, protocol, load, ttl=ttl)
    identity = shot.number
    match shot.shape:
        case "fragments":
            return list(craft.fragments(plain, 48, identity))
        case "tiny fragments":
            return list(craft.fragments(plain, 8, identity))
        case "first fragment":
            head = struct.pack("!BBHI", protocol, 0, 1, identity)
            return [craft.ip6(source, target, 44, head + load[:64])]
        case "later fragment":
            head = struct.pack("!BBHI", protocol, 0, 240, identity)
            return [craft.ip6(source, target, 44, head + load[16:])]
        case "options":
            return [craft.ip6(source, target, 0, craft.extension("", protocol) + load)]
        case "unknown option":
            return [craft.ip6(source, target, 60, bytes([protocol, 0, 0x9E, 4]) + b"abcd" + load)]
        case "route header":
            return [craft.ip6(source, target, 43, craft.extension("routing", protocol) + load)]
        case "destination options":
            head = craft.extension("", 60) + craft.extension("", protocol)
            return [craft.ip6(source, target, 0, head + load)]
        case "longer than it is":
            return [craft.ip6(source, target, protocol, load, length=len(load) + 500)]
    return [plain]


TOPOLOGY = """
name: hunt
mode: {mode}
masquerade: {masquerade}
node_encryption: {node_encryption}
world: true
nodes:
  alpha: {{pods: [client, neighbour, gone]}}
  beta: {{pods: [server, small, gone]}}
  gamma: {{pods: [stranger]}}
unknown: {{alpha: [gamma], beta: [gamma]}}
"""
OTHER_CLUSTER = [ip_network("10.245.0.0/16"), ip_network("fd10:245::/48")]
