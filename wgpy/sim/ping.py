"""ICMP echo inside tunnels: the simulated hosts answer echo requests."""

from __future__ import annotations

import struct
from typing import NamedTuple

_ICMP = struct.Struct(">BBHHH")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_PROTOCOL = {4: 1, 6: 58}
_HOP_LIMIT = 64


class Echo(NamedTuple):
    """One echo message; addresses packed, `sequence` up to 65535."""

    source: bytes
    destination: bytes
    sequence: int
    reply: bool
    payload: bytes

    def encode(self) -> bytes:
        """The whole IP packet."""
        version = 4 if len(self.source) == 4 else 6
        kind = (_REPLY if self.reply else _REQUEST)[version]
        icmp = _ICMP.pack(kind, 0, 0, 1, self.sequence) + self.payload
        pseudo = b""
        if version == 6:
            pseudo = self.source + self.destination + struct.pack(">II", len(icmp), 58)
        icmp = _ICMP.pack(kind, 0, checksum(pseudo + icmp), 1, self.sequence) + self.payload
        return _ip_header(version, self.source, self.destination, len(icmp)) + icmp

    def answer(self) -> Echo:
        """The reply to this request."""
        return Echo(self.destination, self.source, self.sequence, True, self.payload)


def parse(packet: bytes) -> Echo | None:
    """An echo message, or None for any other packet."""
    version = packet[0] >> 4 if packet else 0
    start = {4: 20, 6: 40}.get(version, 0)
    if not start or len(packet) < start + _ICMP.size:
        return None
    protocol = packet[9] if version == 4 else packet[6]
    kind, _, _, _, sequence = _ICMP.unpack_from(packet, start)
    if protocol != _PROTOCOL[version] or kind not in (_REQUEST[version], _REPLY[version]):
        return None
    source, destination = (
        (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])
    )
    payload = packet[start + _ICMP.size :]
    return Echo(source, destination, sequence, kind == _REPLY[version], payload)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ip_header(version: int, source: bytes, destination: bytes, size: int) -> bytes:
    if version == 6:
        fixed = struct.pack(">IHBB", 6 << 28, size, _PROTOCOL[6], _HOP_LIMIT)
        return fixed + source + destination

    def pack(sum_: int) -> bytes:
        fixed = (0x45, 0, 20 + size, 0, 0x4000, _HOP_LIMIT, _PROTOCOL[4], sum_)
        return struct.pack(">BBHHHBBH", *fixed) + source + destination

    return pack(checksum(pack(0)))
