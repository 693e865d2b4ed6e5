"""Segmentation and merging again, naively: one packet at a time, struct and loops.

Written from the RFCs and the kernel's rules, shares no code with `wgpy.dataplane`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))


def internet_checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def folded(data: bytes) -> int:
    """The sum without the complement: what NEEDS_CSUM has in the field."""
    return ~internet_checksum(data) & 0xFFFF


@dataclass
class Packet:
    """An inner TCP or UDP packet by its fields."""

    version: int = 4
    protocol: int = 6
    payload: bytes = b""
    sequence: int = 0
    flags: int = ACK
    identification: int = 1
    tos: int = 0
    ttl: int = 64
    fragment: int = 0x4000
    options: bytes = b""  # TCP options, a multiple of four
    ip_options: bytes = b""  # IPv4 options or one IPv6 extension header
    source: bytes = b""
    destination: bytes = b""
    ports: tuple[int, int] = (1234, 5201)
    ack: int = 7
    window: int = 500
    urgent: int = 0
    udp_checksum: bool = True
    bad_l4: bool = False
    bad_ip: bool = False
    _default: dict[int, tuple[bytes, bytes]] = field(
        default_factory=lambda: {
            4: (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])),
            6: (b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2"),
        },
        repr=False,
    )

    def addresses(self) -> tuple[bytes, bytes]:
        source, destination = self._default[self.version]
        return self.source or source, self.destination or destination

    def l4_start(self) -> int:
        return (20 if self.version == 4 else 40) + len(self.ip_options)

    def l4_header(self, length: int) -> bytes:
        """TCP or UDP header with a zero checksum, for `length` bytes of payload."""
        if self.protocol == 17:
            return struct.pack(">HHHH", *self.ports, 8 + length, 0)
        offset = (5 + len(self.options) // 4) << 4
        return (
            struct.pack(
                ">HHIIBBHHH",
                *self.ports,
                self.sequence & 0xFFFFFFFF,
                self.ack,
                offset,
                self.flags,
                self.window,
                0,
                self.urgent,
            )
            + self.options
        )

    def pseudo(self, length: int) -> bytes:
        source, destination = self.addresses()
        if self.version == 4:
            return source + destination + struct.pack(">BBH", 0, self.protocol, length)
        return source + destination + struct.pack(">II", length, self.protocol)

    def ip_header(self, l4_length: int) -> bytes:
        source, destination = self.addresses()
        if self.version == 6:
            head = self.tos << 20 | 6 << 28
            following = 60 if self.ip_options else self.protocol
            length = len(self.ip_options) + l4_length
            extension = bytes([self.protocol]) + self.ip_options[1:] if self.ip_options else b""
            return (
                struct.pack(">IHBB", head, length, following, self.ttl)
                + source
                + destination
                + extension
            )
        words = 5 + len(self.ip_options) // 4
        header = (
            struct.pack(
                ">BBHHHBBH",
                0x40 | words,
                self.tos,
                words * 4 + l4_length,
                self.identification & 0xFFFF,
                self.fragment,
                self.ttl,
                self.protocol,
                0,
            )
            + source
            + destination
            + self.ip_options
        )
        value = internet_checksum(header) ^ (0x5555 if self.bad_ip else 0)
        return header[:10] + struct.pack(">H", value) + header[12:]

    def build(self) -> bytes:
        """The packet with all checksums."""
        l4 = self.l4_header(len(self.payload)) + self.payload
        value = internet_checksum(self.pseudo(len(l4)) + l4)
        if self.protocol == 17:
            value = (value or 0xFFFF) if self.udp_checksum else 0
        value ^= 0x1234 if self.bad_l4 else 0
        at = 16 if self.protocol == 6 else 6
        l4 = l4[:at] + struct.pack(">H", value) + l4[at + 2 :]
        return self.ip_header(len(l4)) + l4

    def offloaded(self, gso_type: int, width: int) -> tuple[tuple[int, ...], bytes]:
        """virtio header (unpacked) and packet with the checksum left to the reader."""
        l4 = self.l4_header(len(self.payload)) + self.payload
        at = 16 if self.protocol == 6 else 6
        value = folded(self.pseudo(len(l4)))
        l4 = l4[:at] + struct.pack(">H", value) + l4[at + 2 :]
        start = self.l4_start()
        return (1, gso_type, 0, width, start, at), self.ip_header(len(l4)) + l4

    def segments(self, width: int) -> list[Packet]:
        """What the kernel's GSO makes of it."""
        pieces = [self.payload[i : i + width] for i in range(0, len(self.payload), width)]
        made = []
        for number, piece in enumerate(pieces):
            flags = self.flags
            if number < len(pieces) - 1:
                flags &= ~(FIN | PSH)
            if number:
                flags &= ~CWR
            made.append(
                Packet(
                    **{
                        name: getattr(self, name)
                        for name in self.__dataclass_fields__
                        if name not in ("payload", "sequence", "flags", "identification")
                    },
                    payload=piece,
                    sequence=self.sequence + number * width,
                    flags=flags,
                    identification=self.identification + number,
                )
            )
        return made


def parse(packet: bytes) -> tuple[Packet, int]:
    """The fields of a well-formed packet (at most one extension header), and its header length."""
    version = packet[0] >> 4
    start = (packet[0] & 15) * 4 if version == 4 else 40
    protocol = packet[9] if version == 4 else packet[6]
    made = Packet(version=version, protocol=protocol)
    if version == 4:
        made.tos, made.ttl = packet[1], packet[8]
        made.identification, made.fragment = struct.unpack_from(">HH", packet, 4)
        made.ip_options = packet[20:start]
        made.source, made.destination = packet[12:16], packet[16:20]
    else:
        made.tos = int.from_bytes(packet[:4], "big") >> 20 & 0xFF
        made.ttl = packet[7]
        made.source, made.destination = packet[8:24], packet[24:40]
        if protocol == 60:
            made.protocol = protocol = packet[40]
            made.ip_options = b"\0" + packet[41:48]
            start = 48
    made.ports = struct.unpack_from(">HH", packet, start)
    end = start + 8
    if protocol == 6:
        made.sequence, made.ack = struct.unpack_from(">II", packet, start + 4)
        made.flags = packet[start + 13]
        made.window, _, made.urgent = struct.unpack_from(">HHH", packet, start + 14)
        end = start + (packet[start + 12] >> 4) * 4
        made.options = packet[start + 20 : end]
    made.payload = packet[end:]
    return made, end


def cut(vnet: tuple[int, ...], packet: bytes) -> list[bytes]:
    """What a TUN write stands for: its packets, one by one, complete."""
    flags, gso_type, _, width, start, at = vnet
    if gso_type == 0:
        if not flags & 1:
            return [packet]
        value = internet_checksum(packet[start:])
        if value == 0 and at == 6:
            value = 0xFFFF
        field_at = start + at
        return [packet[:field_at] + struct.pack(">H", value) + packet[field_at + 2 :]]
    whole, _ = parse(packet)
    return [piece.build() for piece in whole.segments(width)]
