"""Where a frame's network layer begins, for each link type that is read; and UDP packets.

Link types are those of tcpdump.org/linktypes.html.  What is above the link layer is
`layers`; `dissect` walks both.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.capture.layers import (
    ETHERNET_FRAME,
    IP,
    PPP_FRAME,
    Unread,
    ether_type,
    llc,
)
from wgpy.protocol.endpoint import Endpoint

NULL, ETHERNET, PPP, RAW, SLL, SLL2 = 0, 1, 9, 101, 113, 276
_PPP_HDLC, _PPP_ETHER, _CISCO_HDLC, _WIFI, _LOOP, _ENC, _RADIOTAP = 50, 51, 104, 105, 108, 109, 127
_NAMES: Final = {
    6: "Token Ring", 7: "ARCNET", 8: "SLIP", 10: "FDDI", 107: "Frame Relay", 117: "pflog",
    119: "Prism", 147: "user 0", 148: "user 1", 163: "802.11 AVS", 187: "Bluetooth", 189: "USB",
    195: "802.15.4", 201: "Bluetooth", 220: "USB", 227: "CAN", 249: "USB", 253: "netlink",
    252: "exported PDU", 258: "pktap",
}  # fmt: skip
_UDP: Final = 17


class Udp(NamedTuple):
    """A UDP datagram: endpoints, the payload that was captured, and the bytes that were not."""

    source: Endpoint
    destination: Endpoint
    payload: bytes
    missing: int = 0


def network_layer(link_type: int, data: bytes) -> tuple[int, int]:
    """What the frame holds (an EtherType or one of `layers`) and where it begins.

    Raises `Unread` with the reason for a link type that is not read.
    """
    if link_type == ETHERNET:
        return ETHERNET_FRAME, 0
    if link_type == SLL2:
        return ether_type(data, 0), 20
    start = _STARTS.get(link_type)
    if start is not None:
        return start
    if link_type == SLL:
        return _sll(data)
    if link_type == _CISCO_HDLC:
        return ether_type(data, 2), 4
    if link_type == _WIFI:
        return _wifi(data, 0)
    if link_type == _RADIOTAP:
        return _wifi(data, int.from_bytes(data[2:4], "little"))
    name = _NAMES.get(link_type)
    raise Unread(f"link type {link_type}" + (f" ({name})" if name else ""))


_STARTS: Final = {
    NULL: (IP, 4), _LOOP: (IP, 4), _ENC: (IP, 12),
    RAW: (IP, 0), 12: (IP, 0), 14: (IP, 0), 228: (IP, 0), 229: (IP, 0),
    PPP: (PPP_FRAME, 0), _PPP_HDLC: (PPP_FRAME, 0), _PPP_ETHER: (0x8864, 0),
}  # fmt: skip


def _sll(data: bytes) -> tuple[int, int]:
    """Linux cooked v1: 802.2 frames have type 4 where others have an EtherType."""
    kind = ether_type(data, 14)
    return llc(data, 16) if kind == 4 else (kind, 16)


def _wifi(data: bytes, place: int) -> tuple[int, int]:
    """802.11: data frames that are not encrypted; the others hold no IP that can be read."""
    control, flags = data[place], data[place + 1]
    if control & 0x0C != 0x08 or control & 0x40:
        return 0, 0  # management, control, or no data
    if flags & 0x40:
        raise Unread("encrypted 802.11")
    start = place + 24 + (6 if flags & 3 == 3 else 0)
    if control & 0x80:
        if data[start] & 0x80:
            raise Unread("aggregated 802.11 (A-MSDU)")
        start += 2 + (4 if flags & 0x80 else 0)
    return llc(data, start)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`.

    The sum of 16-bit words with end-around carry is the whole number modulo 2^16 - 1.
    """
    number = int.from_bytes(data + b"\0" if len(data) % 2 else data)
    return (0xFFFF - number % 0xFFFF) % 0xFFFF if number else 0xFFFF


def udp_packet(datagram: Udp) -> bytes:
    """The datagram inside UDP and IP headers, for a capture of what a socket carries."""
    source, destination, payload = datagram[:3]
    size = 8 + len(payload)
    ports = struct.pack("!HHH", source.port, destination.port, size)
    if len(source.ip) == 16:
        pseudo = source.ip + destination.ip + struct.pack("!IHBB", size, 0, 0, _UDP)
        total = checksum(pseudo + ports + bytes(2) + payload) or 0xFFFF
        udp = ports + struct.pack("!H", total) + payload
        return struct.pack("!IHBB", 6 << 28, size, _UDP, 64) + source.ip + destination.ip + udp
    udp = ports + bytes(2) + payload  # IPv4 allows an absent checksum
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, _UDP, 0)
    head += source.ip + destination.ip
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp
