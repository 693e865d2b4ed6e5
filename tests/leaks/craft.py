"""Packets byte by byte: a millisecond is too much for one of ten thousand.

Nothing here is the code under test, and what is odd about a packet is odd on purpose.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from scapy.layers.sctp import crc32c

TCP, UDP, ICMP, ICMP6, SCTP, UNKNOWN = 6, 17, 1, 58, 132, 253
PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "sctp": SCTP, "unknown": UNKNOWN}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    number = int.from_bytes(data + b"\0" if len(data) % 2 else data)
    return (0xFFFF - number % 0xFFFF) % 0xFFFF if number else 0xFFFF


def ip4(
    source: bytes, destination: bytes, protocol: int, load: bytes, *, ttl: int = 60,
    flags: int = 0, offset: int = 0, identity: int = 7, options: bytes = b"", length: int = 0,
) -> bytes:  # fmt: skip
    """`flags`: 2 is don't fragment, 1 more fragments; `offset` counts 8 bytes."""
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0, length or size + len(load), identity,
                       flags << 13 | offset, ttl, protocol, 0)  # fmt: skip
    head += source + destination + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + load


def ip6(
    source: bytes, destination: bytes, protocol: int, load: bytes, *, ttl: int = 60,
    length: int = 0,
) -> bytes:  # fmt: skip
    return struct.pack("!IHBB", 6 << 28, length or len(load), protocol, ttl) + (
        source + destination + load)  # fmt: skip


def ip(source: bytes, destination: bytes, protocol: int, load: bytes, ttl: int = 60) -> bytes:
    """By the size of the addresses."""
    make = ip4 if len(source) == 4 else ip6
    return make(source, destination, protocol, load, ttl=ttl)


def _pseudo(source: bytes, destination: bytes, protocol: int, size: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!HH", protocol, size)
    return source + destination + struct.pack("!II", size, protocol)


def transport(
    name: str, source: bytes, destination: bytes, load: bytes, ports: tuple[int, int]
) -> tuple[int, bytes]:
    """Protocol number and segment, checksums right."""
    protocol = PROTOCOLS[name]
    if name == "udp":
        head = struct.pack("!HHHH", *ports, 8 + len(load), 0)
    elif name == "tcp":
        # The numbers of a TCP header are 8 bytes of payload as well: an error quotes them.
        head = struct.pack("!HH", *ports) + load[:8].ljust(8, b"\0") + b"\x50\x02\xff\xff\0\0\0\0"
    elif name == "icmp" and len(source) == 4:
        head = struct.pack("!BBHHH", 8, 0, 0, *ports)
    elif name == "icmp":
        protocol, head = ICMP6, struct.pack("!BBHHH", 128, 0, 0, *ports)
    elif name == "sctp":
        head = struct.pack("!HHII", *ports, 0, 0)
        chunk = struct.pack("!BBHIIHHI", 0, 3, 16 + len(load), 1, 0, 0, 0, len(load)) + load
        chunk += bytes(-len(chunk) % 4)
        return protocol, head[:8] + struct.pack("<I", crc32c(head + chunk)) + chunk
    else:
        return protocol, load
    place = {"udp": 6, "tcp": 16, "icmp": 2}[name]
    plain = name == "icmp" and len(source) == 4
    segment = head + load
    pseudo = b"" if plain else _pseudo(source, destination, protocol, len(segment))
    total = checksum(pseudo + segment) or 0xFFFF
    return protocol, segment[:place] + struct.pack("!H", total) + segment[place + 2 :]


def error(source: bytes, destination: bytes, quoted: bytes, kind: int, code: int = 0) -> bytes:
    """An ICMP error (by its number of the family) about `quoted`."""
    body = struct.pack("!BBHI", kind, code, 0, 1280 if kind == 2 else 0) + quoted
    if len(source) == 4:
        return ip4(source, destination, ICMP, body[:2] + struct.pack("!H", checksum(body))
                   + body[4:])  # fmt: skip
    total = checksum(_pseudo(source, destination, ICMP6, len(body)) + body)
    return ip6(source, destination, ICMP6, body[:2] + struct.pack("!H", total) + body[4:])


def redirect(source: bytes, destination: bytes, quoted: bytes) -> bytes:
    """IPv6's: two addresses, then options, of which one holds the packet (RFC 4861 §4.6.3)."""
    quoted = quoted[: len(quoted) // 8 * 8]
    option = struct.pack("!BB6x", 4, 1 + len(quoted) // 8) + quoted
    body = struct.pack("!BBHI", 137, 0, 0, 0) + source + destination + option
    total = checksum(_pseudo(source, destination, ICMP6, len(body)) + body)
    return ip6(source, destination, ICMP6, body[:2] + struct.pack("!H", total) + body[4:], ttl=255)


def extension(kind: str, following: int) -> bytes:
    """One IPv6 extension header of 8 bytes (a routing header: 24)."""
    if kind == "routing":
        return bytes([following, 2, 0, 1]) + bytes(4) + bytes(15) + b"\1"
    return bytes([following, 0, 1, 4, 0, 0, 0, 0])


def fragments(packet: bytes, size: int, identity: int) -> Iterator[bytes]:
    """A packet cut into pieces of `size` bytes (a multiple of 8) of what follows the header."""
    if packet[0] >> 4 == 4:
        source, destination, load = packet[12:16], packet[16:20], packet[20:]
        for start in range(0, len(load), size):
            more = start + size < len(load)
            piece = load[start : start + size]
            yield ip4(source, destination, packet[9], piece, ttl=packet[8], flags=int(more),
                      offset=start // 8, identity=identity)  # fmt: skip
        return
    source, destination, load = packet[8:24], packet[24:40], packet[40:]
    for start in range(0, len(load), size):
        more = start + size < len(load)
        head = struct.pack("!BBHI", packet[6], 0, start | int(more), identity)
        yield ip6(source, destination, 44, head + load[start : start + size], ttl=packet[7])
