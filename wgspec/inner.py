"""Inner packets that can be recognised at the other end.

Each is a valid UDP datagram (the one kind that every target can take and give) with its own
source port, so that nothing merges two of them, and an 8-byte token after a magic: a
target that forwards (TTL, checksums change) or rebuilds packets still shows the token.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from random import Random

MAGIC = b"wgspec:"
TOKEN_SIZE = 8
SMALLEST_4 = 20 + 8 + len(MAGIC) + TOKEN_SIZE
SMALLEST_6 = 40 + 8 + len(MAGIC) + TOKEN_SIZE
DISCARD_PORT = 9


@dataclass(frozen=True, slots=True)
class Inner:
    """An inner packet and the token that identifies it."""

    packet: bytes
    token: bytes


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def packet(rng: Random, source: str, destination: str, *, size: int = 0, tos: int = 0) -> Inner:
    """A UDP packet of `size` bytes in all (at least the smallest that holds a token)."""
    header = 20 if ipaddress.ip_address(source).version == 4 else 40
    token = rng.randbytes(TOKEN_SIZE)
    body = MAGIC + token
    body += bytes(max(0, size - header - 8 - len(body)))
    port, identity = rng.randrange(10000, 60000), rng.randrange(65536)
    made = udp_packet(source, port, destination, DISCARD_PORT, body, tos=tos, identity=identity)
    return Inner(made, token)


def udp_packet(
    source: str,
    source_port: int,
    destination: str,
    destination_port: int,
    body: bytes,
    *,
    tos: int = 0,
    identity: int = 0,
) -> bytes:
    """An IPv4 or IPv6 packet with a UDP datagram, checksums correct."""
    src, dst = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    udp = struct.pack("!HHHH", source_port, destination_port, 8 + len(body), 0) + body
    pseudo = src.packed + dst.packed + struct.pack("!IHBB", len(udp), 0, 0, 17)
    total = checksum(pseudo + udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", total) + udp[8:]
    if src.version == 6:
        first = (6 << 28) | (tos << 20)
        return struct.pack("!IHBB", first, len(udp), 17, 64) + src.packed + dst.packed + udp
    ip = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(udp), identity, 0, 64, 17, 0)
    ip += src.packed + dst.packed
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + udp


def token_of(data: bytes) -> bytes | None:
    """The token in a packet (or in anything that carries one)."""
    at = data.find(MAGIC)
    if at < 0 or len(data) < at + len(MAGIC) + TOKEN_SIZE:
        return None
    return data[at + len(MAGIC) : at + len(MAGIC) + TOKEN_SIZE]


def length(data: bytes) -> int:
    """The length that the IP header claims; 0 when it is not an IP packet."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        return int.from_bytes(data[2:4], "big")
    if len(data) >= 40 and data[0] >> 4 == 6:
        return 40 + int.from_bytes(data[4:6], "big")
    return 0
