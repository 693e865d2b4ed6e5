"""Inner packets to measure with: plain UDP ones, and TCP super-packets as TUN reads them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wgpy.dataplane.offload import GSO_TCPV4, NEEDS_CSUM, TCP, VNET

_TCP_SIZE = 32
"""A header with the timestamp option, as every connection on Linux has it."""


@dataclass(frozen=True, slots=True)
class SuperPacket:
    """`whole` with its virtio header, and the finished `segments` that it stands for."""

    whole: bytes
    segments: list[bytes]


def udp_run(source: bytes, destination: bytes, size: int, count: int) -> list[bytes]:
    """`count` packets as a connected socket sends them: ascending identifications."""
    return [udp_packet(source, destination, size, number) for number in range(count)]


def udp_packet(source: bytes, destination: bytes, size: int, number: int = 0) -> bytes:
    """An IPv4/UDP packet of `size` bytes in all (at least 28), its payload zeros."""
    ports = (4000, 4001, size - 20)
    pseudo = (*struct.unpack(">4H", source + destination), 17, size - 20)
    checksum = ~_folded(sum(ports) + sum(pseudo)) & 0xFFFF or 0xFFFF
    header = struct.pack(">HHHH", *ports, checksum)
    return _ip(source, destination, size, 17, number) + header + bytes(size - 28)


def super_packet(source: bytes, destination: bytes, segments: int, mtu: int) -> SuperPacket:
    """A TCP super-packet of `segments` full segments for an MTU."""
    width = mtu - 20 - _TCP_SIZE
    size = 20 + _TCP_SIZE + segments * width
    payload = (bytes(range(256)) * (segments * width // 256 + 1))[: segments * width]
    pseudo = _folded(sum(struct.unpack(">4H", source + destination)) + TCP + size - 20)
    vnet = VNET.pack(NEEDS_CSUM, GSO_TCPV4, 20 + _TCP_SIZE, width, 20, 16)
    whole = _ip(source, destination, size, TCP) + _tcp(0, pseudo) + payload
    cut = [
        _segment(source, destination, number, payload[number * width : (number + 1) * width])
        for number in range(segments)
    ]
    return SuperPacket(vnet + whole, cut)


def _segment(source: bytes, destination: bytes, number: int, payload: bytes) -> bytes:
    size = 20 + _TCP_SIZE + len(payload)
    pseudo = _folded(sum(struct.unpack(">4H", source + destination)) + TCP + size - 20)
    offset = number * len(payload)
    body = _tcp(offset, pseudo) + payload
    words = struct.unpack(f">{len(body) // 2}H", body)
    header = _tcp(offset, ~_folded(sum(words)) & 0xFFFF)
    return _ip(source, destination, size, TCP, number) + header + payload


def _tcp(offset: int, checksum: int) -> bytes:
    head = (4000, 4001, 1_000_000 + offset, 7, _TCP_SIZE << 2, 0x10, 512, checksum, 0)
    return struct.pack(">HHIIBBHHH", *head) + struct.pack(">BBBBII", 1, 1, 8, 10, 12345, 54321)


def _ip(source: bytes, destination: bytes, size: int, protocol: int, number: int = 0) -> bytes:
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, size, number, 0x4000, 64, protocol, 0, source, destination
    )
    total = ~_folded(sum(struct.unpack(">10H", head))) & 0xFFFF
    return head[:10] + struct.pack(">H", total) + head[12:]


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
