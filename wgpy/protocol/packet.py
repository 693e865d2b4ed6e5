"""What the data plane reads of an inner IP packet: version, total length, addresses."""

from __future__ import annotations

from typing import NamedTuple

from wgpy.protocol.buffer import Buffer

_IPV4_HEADER = 20
_IPV6_HEADER = 40


class Addresses(NamedTuple):
    """Packed source and destination, and the length in bytes that the header states."""

    source: bytes
    destination: bytes
    total_length: int


def read_addresses(packet: Buffer) -> Addresses | None:
    """Addresses of an IPv4 or IPv6 packet; None when it is neither or truncated.

    A buffer longer than the header states is fine: the rest is padding (§5.4.6).
    """
    size = len(packet)
    if size < _IPV4_HEADER:
        return None
    version = packet[0] >> 4
    if version == 4:
        total = packet[2] << 8 | packet[3]
        if not _IPV4_HEADER <= (packet[0] & 15) * 4 <= total <= size:
            return None
        return Addresses(bytes(packet[12:16]), bytes(packet[16:20]), total)
    if version == 6 and size >= _IPV6_HEADER:
        total = _IPV6_HEADER + (packet[4] << 8 | packet[5])
        if total > size:
            return None
        return Addresses(bytes(packet[8:24]), bytes(packet[24:40]), total)
    return None


def padded_size(size: int, mtu: int) -> int:
    """Length of `size` bytes after zero padding to 16, never past the MTU (§5.4.6).

    A packet larger than the MTU (it shrank meanwhile) is padded as its last MTU-sized part.
    """
    if mtu <= 0:
        return (size + 15) & ~15
    whole, last = divmod(size, mtu)
    if last == 0:
        return size
    return whole * mtu + min(mtu, (last + 15) & ~15)
