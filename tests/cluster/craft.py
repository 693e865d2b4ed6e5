"""Packets of every kind, each carrying a marker that a sniffer can look for.

`KINDS` names them; `build` gives the IP packets of one kind (a fragmented datagram is
several).  They are written byte by byte or by scapy, never by the code under test, and are
put on a pod's own device as raw frames, so that no kernel tidies them up on the way out.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Raw

KINDS = (
    "tcp", "udp", "icmp", "sctp", "unknown protocol", "first fragment", "later fragment",
    "options", "extension or source route", "truncated tcp", "bad tcp offset", "bad udp length",
    "no payload protocol",
)  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """Who pretends to talk to whom."""

    source: str
    destination: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.destination else 4


def build(kind: str, flow: Flow, marker: bytes, *, port: int = 80) -> bytes:
    """One IP packet of this kind with `marker` inside."""
    return (_v4 if flow.version == 4 else _v6)(kind, flow, marker, port)


def _v4(kind: str, flow: Flow, marker: bytes, port: int) -> bytes:
    ip = {"src": flow.source, "dst": flow.destination, "ttl": 60}
    load = Raw(marker)
    ports = {"sport": 40000, "dport": port}
    match kind:
        case "tcp":
            packet = IP(**ip) / TCP(**ports, flags="S") / load
        case "udp":
            packet = IP(**ip) / UDP(**ports) / load
        case "icmp":
            packet = IP(**ip) / ICMP(type=8) / load
        case "sctp":
            packet = IP(**ip) / SCTP(**ports) / SCTPChunkInit() / load
        case "unknown protocol":
            packet = IP(**ip, proto=253) / load
        case "first fragment":
            packet = IP(**ip, flags="MF", id=7) / UDP(**ports, len=200) / Raw(marker.ljust(24))
        case "later fragment":
            packet = IP(**ip, frag=30, id=7, proto=17) / load
        case "options":
            # Record route: an option that routers must understand and write into.
            packet = IP(**ip, options=[IPOption(b"\x07\x0b\x04" + bytes(8))]) / UDP(**ports) / load
        case "extension or source route":
            # An option nobody knows; a real source route is refused by the host itself.
            packet = IP(**ip, options=[IPOption(b"\x9e\x04ab")]) / TCP(**ports) / load
        case "truncated tcp":
            packet = IP(**ip, proto=6) / _cut_short(port, marker)
        case "bad tcp offset":
            packet = IP(**ip) / TCP(**ports, dataofs=15) / load
        case "bad udp length":
            packet = IP(**ip) / UDP(**ports, len=3) / load
        case "no payload protocol":
            packet = IP(**ip, proto=59) / load
        case _:
            raise ValueError(kind)
    return bytes(packet)


def _v6(kind: str, flow: Flow, marker: bytes, port: int) -> bytes:
    ip = {"src": flow.source, "dst": flow.destination, "hlim": 60}
    load = Raw(marker)
    ports = {"sport": 40000, "dport": port}
    match kind:
        case "tcp":
            packet = IPv6(**ip) / TCP(**ports, flags="S") / load
        case "udp":
            packet = IPv6(**ip) / UDP(**ports) / load
        case "icmp":
            packet = IPv6(**ip) / ICMPv6EchoRequest() / load
        case "sctp":
            packet = IPv6(**ip) / SCTP(**ports) / SCTPChunkInit() / load
        case "unknown protocol":
            packet = IPv6(**ip, nh=253) / load
        case "first fragment":
            packet = (IPv6(**ip) / IPv6ExtHdrFragment(m=1, id=7, nh=17)
                      / UDP(**ports, len=200, chksum=1) / Raw(marker.ljust(24)))  # fmt: skip
        case "later fragment":
            packet = IPv6(**ip) / IPv6ExtHdrFragment(offset=30, id=7, nh=17) / load
        case "options":
            packet = IPv6(**ip) / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / (
                UDP(**ports) / load)  # fmt: skip
        case "extension or source route":
            packet = IPv6(**ip) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / (
                TCP(**ports) / load)  # fmt: skip
        case "truncated tcp":
            packet = IPv6(**ip, nh=6) / _cut_short(port, marker)
        case "bad tcp offset":
            packet = IPv6(**ip) / TCP(**ports, dataofs=15) / load
        case "bad udp length":
            packet = IPv6(**ip) / UDP(**ports, len=3, chksum=1) / load
        case "no payload protocol":
            packet = IPv6(**ip, nh=59) / load
        case _:
            raise ValueError(kind)
    return bytes(packet)


def _cut_short(port: int, marker: bytes) -> Raw:
    """The ports and less than the rest of a TCP header."""
    data = struct.pack("!HH", 40000, port) + marker
    assert len(data) < 20
    return Raw(data)


MALFORMED = {
    "empty header": b"\x45",
    "version 5": b"\x55" + bytes(39),
    "version 0": bytes(40),
    "short IPv4": b"\x45" + bytes(10),
    "short IPv6": b"\x60" + bytes(20),
    "IPv4 header longer than the packet": b"\x4f\0\0\x20" + bytes(28),
    "IPv4 header of 16 bytes": b"\x44\0\0\x30" + bytes(44),
    "IPv4 total length beyond the packet": b"\x45\0\x40\0" + bytes(36),
    "IPv4 total length below its header": b"\x45\0\0\x08" + bytes(36),
    "IPv6 payload beyond the packet": b"\x60\0\0\0\x40\0\x11\x40" + bytes(40),
}
"""Row 1: what no address can be read from, or what says it is longer than it is."""


def mac_of(space, device: str) -> bytes:
    """A device's hardware address."""
    with space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as probe:
        probe.bind((device, 0))
        return probe.getsockname()[4]


class Injector:
    """Raw frames from a namespace's device to whoever is at the other end of the pair."""

    def __init__(self, space, device: str, destination: bytes) -> None:
        self._socket = space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((device, 0))
        self._source = self._socket.getsockname()[4]
        self._destination = destination

    def __call__(self, packet: bytes) -> None:
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        self._socket.send(self._destination + self._source + kind + packet)

    def close(self) -> None:
        self._socket.close()
