"""Classifies frames on the underlay: ciphertext, or a packet that should not be readable here.

Its own little parser of Ethernet, IPv4, IPv6, UDP and WireGuard's framing, sharing no code
with the data plane it watches, says who talks to whom.  Then it looks *into* everything that
is not ciphertext, with the dissector of `wgpy.capture`: what ICMP errors quote, tunnels in
tunnels, tags and labels, fragments put together; and for the bytes of `POD_MARK`.  UDP counts
as WireGuard only between addresses that are not pods', on the cluster's port, and with a
well-formed WireGuard header behind it.

Every class of frame that belongs on an underlay has a name; everything else is `UNKNOWN`, and
that is a leak as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address

from testbed.topology import LISTEN_PORT, Network
from wgpy.capture.dissect import BROKEN, CUT, Dissector, Header
from wgpy.capture.frames import Frame
from wgpy.capture.link import ETHERNET

CANARY_TYPE = 0x88B5
"""IEEE's local experimental EtherType, for the frames that prove that a sniffer works."""
POD_MARK = b"wgpy-pod"
"""Payload of pods that talk to pods may carry it; outside of WireGuard it is a leak.  For
ping: `-p 776770792d706f64`."""

_FIXED_SIZES = {1: 148, 2: 92, 3: 64}
_EXTENSIONS = frozenset((0, 43, 60, 51))
_NEIGHBOUR_TYPES = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))
"""ICMPv6 that every device sends by itself: multicast listeners and neighbours."""
_TAGS = (b"\x81\x00", b"\x88\xa8")
_MESSAGE_NAMES = {1: "initiation", 2: "response", 3: "cookie reply", 4: "data"}
_PROTOCOLS = {
    1: "ICMP", 6: "TCP", 17: "UDP", 44: "fragment", 58: "ICMPv6", 132: "SCTP", 59: "no next",
    253: "experimental", 47: "GRE", 50: "ESP", 4: "IP in IP", 41: "6in4", 2: "IGMP",
}  # fmt: skip


class Kind(Enum):
    """The classes of frames; those in `LEAKS` are what strict mode must never allow."""

    WIREGUARD = "ciphertext"
    POD_TO_POD = "pod to pod, in plaintext"
    CARRIED = "pod to pod, quoted or wrapped in plaintext"
    UNKNOWN = "nothing that belongs here"
    POD_TO_OTHER = "a pod and another host, in plaintext"
    NODE = "plaintext without pods"
    NEIGHBOUR = "ARP or neighbour discovery"
    CANARY = "sniffer's own"


LEAKS = (Kind.POD_TO_POD, Kind.CARRIED, Kind.UNKNOWN)
PLAINTEXT = (*LEAKS, Kind.POD_TO_OTHER, Kind.NODE)
_LOOKED_INTO = frozenset((*PLAINTEXT, Kind.NEIGHBOUR)) - {Kind.UNKNOWN}
_NEIGHBOUR_PROTOCOLS = frozenset((2,))
"""IGMP: what IPv4 has for ICMPv6's multicast listeners."""


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
        self._dissector = Dissector()

    def is_pod(self, address: bytes) -> bool:
        """Whether a packed address is in the pod CIDRs."""
        number = int.from_bytes(address, "big")
        rows = self._pods[4 if len(address) == 4 else 6]
        return any(number >> shift == prefix for prefix, shift in rows)

    def classify(self, frame: bytes, length: int | None = None) -> Packet:
        """The class of an Ethernet frame, of which `frame` may be the beginning only.

        Remembers fragments: the frame that completes a packet is judged by the whole packet.
        """
        size = len(frame) if length is None else length
        outside = self._outside(frame, size)
        if outside.kind not in _LOOKED_INTO:
            return outside
        return self._inside(outside, frame, size)

    def _inside(self, outside: Packet, frame: bytes, size: int) -> Packet:
        """`outside`, or what it carries where that is worse."""
        headers, trouble = self._dissector.headers(Frame(0, 0, ETHERNET, frame, size))
        for header in headers[1:]:
            if self._pods_of(header) == 2:
                return replace(outside, kind=Kind.CARRIED, detail=f"holds {_words(header)}")
        if POD_MARK in frame and outside.kind is not Kind.POD_TO_POD:
            return replace(outside, kind=Kind.CARRIED, detail="holds marked payload of a pod")
        if outside.kind in (Kind.POD_TO_POD, Kind.POD_TO_OTHER):
            return outside  # rows 6 and 7 let pods talk as they like
        wrapped = next((h for h in headers[1:] if not h.quoted), None)
        if wrapped is not None:
            detail = f"a tunnel that is not ours, holds {_words(wrapped)}"
        elif trouble and trouble != CUT and (trouble != BROKEN or not headers):
            detail = trouble
        elif outside.kind is Kind.NODE and frame[12:14] in _TAGS:
            detail = "behind a tag"
        else:
            return outside
        return replace(outside, kind=Kind.UNKNOWN, detail=detail)

    def _pods_of(self, header: Header) -> int:
        """How many ends are pods; everybody is one for a pod that speaks to all."""
        source = self.is_pod(header.source)
        return source + (self.is_pod(header.destination)
                         or (source and _everybody(header.destination)))  # fmt: skip

    def _outside(self, frame: bytes, size: int) -> Packet:
        """By the outermost addresses."""
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
        return Packet(Kind.UNKNOWN, protocol=f"EtherType {ether:#06x}")

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
        pods = self._pods_of(Header(source, destination, protocol, 0, False))
        kind, detail = (Kind.NODE, Kind.POD_TO_OTHER, Kind.POD_TO_POD)[pods], ""
        if pods == 0 and protocol == 17 and first and not self._ports.isdisjoint(ports):
            detail = _message(frame[at + 8 : at + 12], size - at - 8)
            kind = Kind.WIREGUARD if detail else Kind.NODE
        if protocol == 58 and len(frame) > at and frame[at] in _NEIGHBOUR_TYPES:
            kind = Kind.NEIGHBOUR
        if protocol in _NEIGHBOUR_PROTOCOLS and not pods:
            kind = Kind.NEIGHBOUR
        return Packet(
            kind=kind,
            source=str(ip_address(source)),
            destination=str(ip_address(destination)),
            protocol=_protocol(protocol) + ("" if first else "+"),
            source_port=ports[0],
            destination_port=ports[1],
            detail=detail,
        )


def _everybody(address: bytes) -> bool:
    """Multicast, or IPv4's broadcast."""
    if len(address) == 16:
        return address[0] == 0xFF
    return 224 <= address[0] <= 239 or address == b"\xff" * 4


def _protocol(number: int) -> str:
    return _PROTOCOLS.get(number, f"protocol {number}")


def _words(header: Header) -> str:
    ends = f"{ip_address(header.source)} > {ip_address(header.destination)}"
    return f"{_protocol(header.protocol)} {ends}"


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
