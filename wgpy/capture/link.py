"""From a captured frame to the UDP payload in it.

Link types: Ethernet (VLAN tags skipped), raw IP, BSD loopback, Linux cooked v1 and v2.
IPv4 and IPv6 with options and extension headers; fragments are put together.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from wgpy.capture.frames import Frame
from wgpy.protocol.endpoint import Endpoint

ETHERNET, NULL, RAW, SLL, SLL2 = 1, 0, 101, 113, 276
_RAW_TYPES = {RAW, 12, 14, 228, 229}
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN_TYPES = {0x8100, 0x88A8, 0x9100}
_UDP, _FRAGMENT = 17, 44
_EXTENSIONS = {0, 43, 60}
_MAX_FRAGMENTED = 1024


class Udp(NamedTuple):
    """A UDP datagram: endpoints and payload."""

    source: Endpoint
    destination: Endpoint
    payload: bytes


def network_layer(frame: Frame) -> bytes | None:
    """The IP packet in a frame, or None."""
    data, kind = frame.data, frame.link_type
    if kind in _RAW_TYPES:
        return data
    if kind == NULL:
        return data[4:]
    if kind == SLL:
        return _after_type(data, 14)
    if kind == SLL2:
        return data[20:] if int.from_bytes(data[:2]) in (_IPV4, _IPV6) else None
    if kind == ETHERNET:
        return _after_type(data, 12)
    return None


def _after_type(data: bytes, place: int) -> bytes | None:
    """What follows the EtherType at `place`, VLAN tags skipped."""
    kind = int.from_bytes(data[place : place + 2])
    while kind in _VLAN_TYPES:
        place += 4
        kind = int.from_bytes(data[place : place + 2])
    return data[place + 2 :] if kind in (_IPV4, _IPV6) else None


class _Part(NamedTuple):
    offset: int
    more: bool
    data: bytes


class Reassembler:
    """Takes frames in order, gives UDP datagrams; holds a bounded number of fragments."""

    def __init__(self) -> None:
        self._parts: dict[tuple[bytes, bytes, int], list[_Part]] = {}

    def datagram(self, frame: Frame) -> Udp | None:
        """The UDP datagram that this frame completes, or None."""
        packet = network_layer(frame)
        if not packet:
            return None
        try:
            return self._ipv4(packet) if packet[0] >> 4 == 4 else self._ipv6(packet)
        except (struct.error, IndexError):
            return None

    def _ipv4(self, packet: bytes) -> Udp | None:
        header = (packet[0] & 15) * 4
        total, identity, fragment = struct.unpack_from("!HHH", packet, 2)
        if packet[9] != _UDP:
            return None
        source, destination = packet[12:16], packet[16:20]
        # A capture on the sending host may see length 0 where the card was to segment.
        payload = packet[header : total or len(packet)]
        if fragment & 0x3FFF:
            part = _Part((fragment & 0x1FFF) * 8, bool(fragment & 0x2000), payload)
            whole = self._join((source, destination, identity), part)
            if whole is None:
                return None
            payload = whole
        return _udp(source, destination, payload)

    def _ipv6(self, packet: bytes) -> Udp | None:
        if packet[0] >> 4 != 6:
            return None
        size, following = struct.unpack_from("!HB", packet, 4)
        source, destination = packet[8:24], packet[24:40]
        end = 40 + size if size else len(packet)
        place = 40
        while following in _EXTENSIONS:
            following, words = packet[place], packet[place + 1]
            place += 8 + words * 8
        if following == _FRAGMENT:
            following, _, fragment, identity = struct.unpack_from("!BBHI", packet, place)
            part = _Part(fragment & 0xFFF8, bool(fragment & 1), packet[place + 8 : end])
            whole = self._join((source, destination, identity), part)
            return None if whole is None or following != _UDP else _udp(source, destination, whole)
        return _udp(source, destination, packet[place:end]) if following == _UDP else None

    def _join(self, key: tuple[bytes, bytes, int], part: _Part) -> bytes | None:
        if key not in self._parts and len(self._parts) >= _MAX_FRAGMENTED:
            del self._parts[next(iter(self._parts))]
        parts = self._parts.setdefault(key, [])
        parts.append(part)
        whole = b""
        for piece in sorted(parts):
            if piece.offset != len(whole):
                return None
            whole += piece.data
        if max(parts).more:
            return None
        del self._parts[key]
        return whole


def _udp(source: bytes, destination: bytes, data: bytes) -> Udp | None:
    if len(data) < 8:
        return None
    from_port, to_port, size = struct.unpack_from("!HHH", data)
    payload = data[8 : size if size >= 8 else len(data)]
    return Udp(Endpoint(source, from_port), Endpoint(destination, to_port), payload)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of `data`.

    The sum of 16-bit words with end-around carry is the whole number modulo 2^16 - 1.
    """
    number = int.from_bytes(data + b"\0" if len(data) % 2 else data)
    return (0xFFFF - number % 0xFFFF) % 0xFFFF if number else 0xFFFF


def udp_packet(datagram: Udp) -> bytes:
    """The datagram inside UDP and IP headers, for a capture of what a socket carries."""
    source, destination, payload = datagram
    size = 8 + len(payload)
    ports = struct.pack("!HHH", source.port, destination.port, size)
    if len(source.ip) == 16:
        pseudo = source.ip + destination.ip + struct.pack("!IHBB", size, 0, 0, _UDP)
        total = checksum(pseudo + ports + bytes(2) + payload) or 0xFFFF
        udp = ports + struct.pack("!H", total) + payload
        return struct.pack("!IHBB", 6 << 28, size, _UDP, 64) + source.ip + destination.ip + udp
    udp = ports + bytes(2) + payload  # IPv4 lets the checksum out
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, _UDP, 0)
    head += source.ip + destination.ip
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp
