"""TCP ports out of a raw IP packet, or the refusal to guess.

The etcd exception lets a packet leave unencrypted because of a port, so the port must
really be one: options and extension headers are walked, later fragments have none, a
source route or a cut-off TCP header counts as unreadable.  Every doubt gives None.
RFC 791, RFC 8200 §4, RFC 9293 §3.1.
"""

from __future__ import annotations

from typing import Final

from wgpy.protocol.packet import read_addresses
from wgpy.protocol.policy import Buffer

TCP: Final = 6
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_TCP_HEADER: Final = 20
_END_OF_OPTIONS: Final = 0
_NO_OPERATION: Final = 1
_SOURCE_ROUTES: Final = (131, 137)
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_DESTINATION_OPTIONS: Final = 60


def tcp_ports(packet: Buffer) -> tuple[int, int] | None:
    """(source, destination) port of a TCP packet or first fragment, or None."""
    addresses = read_addresses(packet)
    if addresses is None:
        return None
    end = addresses.total_length
    start = _ipv4_tcp(packet) if packet[0] >> 4 == 4 else _ipv6_tcp(packet, end)
    if start is None or start + _TCP_HEADER > end:
        return None
    tcp_header = (packet[start + 12] >> 4) * 4
    if tcp_header < _TCP_HEADER or start + tcp_header > end:
        return None
    return _uint16(packet, start), _uint16(packet, start + 2)


def _ipv4_tcp(packet: Buffer) -> int | None:
    """Where the TCP header starts, if there is one that may be trusted."""
    header = (packet[0] & 15) * 4
    if packet[9] != TCP or _uint16(packet, 6) & 0x1FFF:
        return None
    at = _IPV4_HEADER
    while at < header:
        option = packet[at]
        if option == _END_OF_OPTIONS:
            break
        if option == _NO_OPERATION:
            at += 1
            continue
        if option in _SOURCE_ROUTES or at + 2 > header or packet[at + 1] < 2:
            return None
        at += packet[at + 1]
    return header if at <= header else None


def _ipv6_tcp(packet: Buffer, end: int) -> int | None:
    """As `_ipv4_tcp`, through the extension headers."""
    following, at = packet[6], _IPV6_HEADER
    while following != TCP:
        if at + 8 > end:
            return None
        if following in (_HOP_BY_HOP, _DESTINATION_OPTIONS):
            size = (packet[at + 1] + 1) * 8
        elif following == _AUTHENTICATION:
            size = (packet[at + 1] + 2) * 4
        elif following == _FRAGMENT:
            if _uint16(packet, at + 2) & 0xFFF8:
                return None
            size = 8
        elif following == _ROUTING and packet[at + 3] == 0:
            size = (packet[at + 1] + 1) * 8
        else:
            return None
        following, at = packet[at], at + size
    return at


def _uint16(packet: Buffer, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]
