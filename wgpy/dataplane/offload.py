"""Inner packets as the TUN device's offloads carry them: virtio header and checksum.

A TUN device opened with IFF_VNET_HDR puts ten bytes (`struct virtio_net_hdr`, host byte
order) before every packet.  They say that a checksum is still to be filled in, and that
a *super-packet* of up to 64 KiB is to be cut into segments (TSO for TCP, USO for UDP).
`describe` reads one into a `SuperPacket`; `offload_headers` knows what the headers of its
segments are; `offload_segment` cuts and `offload_coalesce` does the reverse.

One's-complement sums (RFC 1071) are sums modulo 65535.  A big-endian number is congruent
to the sum of its 16-bit words, so one `%` sums a small packet; for many rows numpy adds
little-endian words, which gives the byte-swapped sum (RFC 1071 §2B).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from wgpy.protocol.buffer import Buffer

VNET: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
VNET_SIZE: Final = VNET.size
NO_OFFLOAD: Final = bytes(VNET_SIZE)
"""The header of a packet that is complete as it is."""

NEEDS_CSUM: Final = 1
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
"""May be added to the TCP types: the first segment carries CWR."""

MAX_PACKET: Final = 65_535
"""The greatest IPv4 total length or IPv6 payload length."""

# Limits of trains: runs of datagrams in one system call.
MAX_MESSAGES: Final = 128
"""UDP_MAX_SEGMENTS of Linux since 6.10: the most that one receive can return."""
MAX_SENT: Final = 64
"""UDP_MAX_SEGMENTS of older kernels: the most that one UDP GSO send may hold on all of them."""
MAX_TRAIN: Final = 65_507
"""Bytes of one IPv4 UDP payload."""

TCP: Final = 6
UDP: Final = 17
TCP_FIN: Final = 0x01
TCP_SYN: Final = 0x02
TCP_RST: Final = 0x04
TCP_PSH: Final = 0x08
TCP_ACK: Final = 0x10
TCP_URG: Final = 0x20
TCP_CWR: Final = 0x80

_GSO_PROTOCOL: Final = {GSO_TCPV4: (4, TCP), GSO_TCPV6: (6, TCP)}
_CSUM_OFFSET: Final = {TCP: 16, UDP: 6}


class Shape(NamedTuple):
    """Where the headers of a packet lie: all offsets in bytes from its first byte."""

    version: int
    protocol: int
    l4: int
    """Where the TCP or UDP header begins; even."""
    length: int
    """Where the payload begins; a multiple of 4."""


class SuperPacket(NamedTuple):
    """A packet to be cut: `size` bytes in all, `width` bytes of payload per segment."""

    shape: Shape
    size: int
    width: int

    @property
    def segments(self) -> int:
        """How many packets it stands for (at least one)."""
        return -(-(self.size - self.shape.length) // self.width)

    @property
    def last(self) -> int:
        """Payload bytes of the last segment."""
        return (self.size - self.shape.length - 1) % self.width + 1


def describe(packet: Buffer, vnet: tuple[int, ...]) -> SuperPacket | None:
    """Read a super-packet; `vnet` is `VNET` unpacked and its gso_type is not GSO_NONE.

    None: the header contradicts the packet or names an offload that was not requested.
    `hdr_len` is only a hint and is not read.
    """
    _, gso_type, _, segment, l4, csum_offset = vnet
    size = len(packet)
    if size < 28 or segment == 0:
        return None
    version = packet[0] >> 4
    if gso_type == GSO_UDP_L4:
        protocol = UDP
    else:
        expected, protocol = _GSO_PROTOCOL.get(gso_type & ~GSO_ECN, (0, 0))
        if version != expected or not protocol:
            return None
    if csum_offset != _CSUM_OFFSET[protocol] or not _is_l4_start(packet, version, l4):
        return None
    length = l4 + 8
    if protocol == TCP:
        if size < l4 + 20 or packet[l4 + 12] < 0x50:
            return None
        length = l4 + (packet[l4 + 12] >> 4) * 4
    if size <= length:
        return None
    return SuperPacket(Shape(version, protocol, l4, length), size, min(segment, size - length))


def _is_l4_start(packet: Buffer, version: int, l4: int) -> bool:
    if version == 4:
        return l4 >= 20 and l4 == (packet[0] & 0x0F) * 4
    # Extension headers are multiples of eight bytes and stay as they are in each segment.
    return version == 6 and l4 >= 40 and l4 % 8 == 0


def checksum(data: Buffer) -> int:
    """The Internet checksum of `data` (RFC 1071), not all of it zero; 0 … 65534."""
    number = int.from_bytes(data, "big")
    return -(number << 8 if len(data) & 1 else number) % 65_535


def complete_checksum(packet: bytearray | memoryview, start: int, offset: int) -> bool:
    """Do what NEEDS_CSUM asks: the field holds the pseudo header's sum, replace it.

    False, and nothing written, when the field lies outside the packet.
    """
    field = start + offset
    if field + 2 > len(packet):
        return False
    value = checksum(packet[start:])
    if value == 0 and offset == _CSUM_OFFSET[UDP]:
        value = 0xFFFF  # RFC 768: zero means "no checksum"
    packet[field : field + 2] = value.to_bytes(2, "big")
    return True


def pseudo_sum(packet: Buffer, shape: Shape) -> int:
    """Sum of the pseudo header (RFC 793, RFC 2460 §8.1) but its length, modulo 65535."""
    addresses = packet[12:20] if shape.version == 4 else packet[8:40]
    return (int.from_bytes(addresses, "big") + shape.protocol) % 65_535


def stated_pseudo_sum(packet: Buffer, shape: Shape, size: int) -> int:
    """The same as the sender of a packet of `size` bytes with NEEDS_CSUM computed it.

    It differs where an IPv6 routing header names the true destination.
    """
    field = shape.l4 + _CSUM_OFFSET[shape.protocol]
    return (int.from_bytes(packet[field : field + 2], "big") - (size - shape.l4)) % 65_535


def swap16(value: int) -> int:
    """A 16-bit sum in the other byte order."""
    return (value >> 8) | (value & 0xFF) << 8
