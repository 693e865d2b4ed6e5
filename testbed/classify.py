"""Classifies frames on the underlay: ciphertext, or a packet that should not be readable here.

A small separate parser of Ethernet, IPv4, IPv6, UDP and WireGuard's framing that shares no
code with the data plane it watches.  It judges like an eavesdropper, by the plaintext
addresses.  UDP counts as WireGuard only between addresses that are not pods', on the cluster's
port, and with a well-formed WireGuard header behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from testbed.topology import LISTEN_PORT, Network

CANARY_TYPE = 0x88B5
"""IEEE's local experimental EtherType, for the frames that prove that a sniffer works."""

_FIXED_SIZES = {1: 148, 2: 92, 3: 64}
_EXTENSIONS = frozenset((0, 43, 60, 51))
_NEIGHBOUR_TYPES = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))
"""ICMPv6 that every device sends by itself: multicast listeners and neighbours."""
_MESSAGE_NAMES = {1: "initiation", 2: "response", 3: "cookie reply", 4: "data"}
_PROTOCOLS = {
    1: "ICMP", 6: "TCP", 17: "UDP", 44: "fragment", 58: "ICMPv6", 132: "SCTP", 59: "no next",
    253: "experimental", 47: "GRE", 50: "ESP",
}  # fmt: skip


class Kind(Enum):
    """The classes of frames; `POD_TO_POD` is the one that strict mode must never allow."""

    WIREGUARD = "ciphertext"
    POD_TO_POD = "pod to pod, in plaintext"
    POD_TO_OTHER = "a pod and another host, in plaintext"
    NODE = "plaintext without pods"
    NEIGHBOUR = "ARP or neighbour discovery"
    CANARY = "sniffer's own"
    OTHER = "not IP"


PLAINTEXT = (Kind.POD_TO_POD, Kind.POD_TO_OTHER, Kind.NODE)


@dataclass(frozen=True, slots=True)
class Packet:
    """What the headers say; `detail` is the message type of a WireGuard datagram."""

    kind: Kind
    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: int = 0
    destination_port: int = 0
    detail: str = ""

    def __str__(self) -> str:
        left, right = self.source, self.destination
        if self.source_port or self.destination_port:
            left, right = f"{left}:{self.source_port}", f"{right}:{self.destination_port}"
        words = [self.protocol, f"{left} > {right}" if left else "", self.detail]
        return " ".join(word for word in words if word) or self.kind.value


class Classifier:
    """Sorts frames for one cluster."""

    def __init__(self, pod_cidrs: Iterable[Network], ports: Iterable[int] = (LISTEN_PORT,)) -> None:
        self._pods = {4: [], 6: []}  # type: dict[int, list[tuple[int, int]]]
        for cidr in pod_cidrs:
            shift = cidr.max_prefixlen - cidr.prefixlen
            self._pods[cidr.version].append((int(cidr.network_address) >> shift, shift))
        self._ports = frozenset(ports)

    def is_pod(self, address: bytes) -> bool:
        """Whether a packed address is in the pod CIDRs."""
        number = int.from_bytes(address, "big")
        rows = self._pods[4 if len(address) == 4 else 6]
        return any(number >> shift == prefix for prefix, shift in rows)

    def classify(self, frame: bytes, length: int | None = None) -> Packet:
        """The class of an Ethernet frame, of which `frame` may be the beginning only."""
        size = len(frame) if length is None else length
        ether, start = int.from_bytes(frame[12:14], "big"), 14
        while ether in (0x8100, 0x88A8):
            ether, start = int.from_bytes(frame[start + 2 : start + 4], "big"), start + 4
        if ether == CANARY_TYPE:
            return Packet(Kind.CANARY)
        if ether == 0x0806:
            return Packet(Kind.NEIGHBOUR, protocol="ARP")
        if ether == 0x0800 and len(frame) >= start + 20:
            return self._ipv4(frame, start, size)
        if ether == 0x86DD and len(frame) >= start + 40:
            return self._ipv6(frame, start, size)
        return Packet(Kind.OTHER, protocol=f"EtherType {ether:#06x}")

    def _ipv4(self, frame: bytes, start: int, size: int) -> Packet:
        source, destination = frame[start + 12 : start + 16], frame[start + 16 : start + 20]
        first = not int.from_bytes(frame[start + 6 : start + 8], "big") & 0x1FFF
        transport = start + max(20, (frame[start] & 15) * 4)
        return self._judge(frame, source, destination, frame[start + 9], transport, first, size)

    def _ipv6(self, frame: bytes, start: int, size: int) -> Packet:
        source, destination = frame[start + 8 : start + 24], frame[start + 24 : start + 40]
        protocol, transport, first = frame[start + 6], start + 40, True
        while protocol in _EXTENSIONS and len(frame) >= transport + 2:
            width = (frame[transport + 1] + 2) * 4 if protocol == 51 else (
                frame[transport + 1] + 1) * 8  # fmt: skip
            protocol, transport = frame[transport], transport + width
        if protocol == 44 and len(frame) >= transport + 8:
            first = not int.from_bytes(frame[transport + 2 : transport + 4], "big") >> 3
            protocol, transport = frame[transport], transport + 8
        return self._judge(frame, source, destination, protocol, transport, first, size)

    def _judge(
        self, frame: bytes, source: bytes, destination: bytes, protocol: int, at: int,
        first: bool, size: int,
    ) -> Packet:  # fmt: skip
        ports = (0, 0)
        if first and protocol in (6, 17, 132) and len(frame) >= at + 4:
            ports = (
                int.from_bytes(frame[at : at + 2], "big"),
                int.from_bytes(frame[at + 2 : at + 4], "big"),
            )
        pods = self.is_pod(source) + self.is_pod(destination)
        kind, detail = (Kind.NODE, Kind.POD_TO_OTHER, Kind.POD_TO_POD)[pods], ""
        if pods == 0 and protocol == 17 and first and not self._ports.isdisjoint(ports):
            detail = _message(frame[at + 8 : at + 12], size - at - 8)
            kind = Kind.WIREGUARD if detail else Kind.NODE
        if protocol == 58 and len(frame) > at and frame[at] in _NEIGHBOUR_TYPES:
            kind = Kind.NEIGHBOUR
        return Packet(
            kind=kind,
            source=str(ip_address(source)),
            destination=str(ip_address(destination)),
            protocol=_PROTOCOLS.get(protocol, f"protocol {protocol}") + ("" if first else "+"),
            source_port=ports[0],
            destination_port=ports[1],
            detail=detail,
        )


def _message(head: bytes, size: int) -> str:
    """The name of a WireGuard message by its first four bytes and size; empty when it is none."""
    if len(head) < 4 or any(head[1:4]) or head[0] not in _MESSAGE_NAMES:
        return ""
    fixed = _FIXED_SIZES.get(head[0])
    # Data cannot be checked further: padding stops at the MTU, so any size is valid, and a
    # frame may hold many messages where the device cuts them up later.
    fits = size == fixed if fixed else size >= 32
    return _MESSAGE_NAMES[head[0]] if fits else ""


def message_fields(packet: Packet, frame: bytes) -> tuple[int | None, int | None]:
    """The index that a WireGuard frame is for (an initiation: comes from), and its counter."""
    if packet.kind is not Kind.WIREGUARD:
        return None, None
    at = 14
    while frame[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    at += (frame[at] & 15) * 4 + 8 if frame[at] >> 4 == 4 else 48
    place = at + (8 if packet.detail == "response" else 4)
    index = int.from_bytes(frame[place : place + 4], "little")
    if packet.detail != "data" or len(frame) < at + 16:
        return index, None
    return index, int.from_bytes(frame[at + 8 : at + 16], "little")
