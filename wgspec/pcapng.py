"""A small pcapng writer: datagrams as raw IP packets, comments, and the keys inside.

The Decryption Secrets Block of type 0x57474b4c ("WGKL") holds a WireGuard key log, so that
Wireshark and tshark open the file decrypted without further options.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from wgspec.inner import checksum
from wgspec.transcript import Entry, Transcript

_SECTION, _INTERFACE, _ENHANCED, _SECRETS = 0x0A0D0D0A, 1, 6, 0x0000000A
_WIREGUARD_KEY_LOG = 0x57474B4C
_LINKTYPE_RAW = 101
EPOCH = 1_700_000_000
"""Captures carry times from the case's start; this is their zero."""


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _options(pairs: Iterable[tuple[int, bytes]]) -> bytes:
    out = b"".join(struct.pack("<HH", code, len(value)) + _pad(value) for code, value in pairs)
    return out + bytes(4) if out else b""


def ip_packet(entry: Entry) -> bytes:
    """The datagram inside UDP and IP headers."""
    assert entry.source is not None and entry.destination is not None
    source = ipaddress.ip_address(entry.source.ip)
    destination = ipaddress.ip_address(entry.destination.ip)
    ports = struct.pack("!HHH", entry.source.port, entry.destination.port, 8 + len(entry.data))
    pseudo = (
        source.packed + destination.packed + struct.pack("!IHBB", 8 + len(entry.data), 0, 0, 17)
    )
    total = checksum(pseudo + ports + bytes(2) + entry.data) or 0xFFFF
    udp = ports + struct.pack("!H", total) + entry.data
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64)
        return head + source.packed + destination.packed + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += source.packed + destination.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp


def _packet(entry: Entry, comment: str) -> bytes:
    data = ip_packet(entry)
    us = int((EPOCH + max(0.0, entry.at)) * 1e6)
    head = struct.pack("<IIIII", 0, us >> 32, us & 0xFFFFFFFF, len(data), len(data))
    return _block(_ENHANCED, head + _pad(data) + _options([(1, comment.encode())]))


def capture(transcript: Transcript, comment: str) -> bytes:
    """The whole file; `comment` goes to the section header, notes to the packet after them."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _options([(1, comment.encode())])
    out = [_block(_SECTION, section)]
    out.append(_block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_RAW, 0, 0)))
    if transcript.secrets:
        log = ("\n".join(transcript.secrets) + "\n").encode()
        out.append(_block(_SECRETS, struct.pack("<II", _WIREGUARD_KEY_LOG, len(log)) + _pad(log)))
    notes: list[str] = []
    for entry in transcript.ordered():
        if entry.source is None:
            notes.append(entry.text)
            continue
        out.append(_packet(entry, "\n".join([*notes, f"{entry.direction} {entry.text}"])))
        notes.clear()
    return b"".join(out)
