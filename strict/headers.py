"""What a raw IP packet has inside: TCP ports, or another packet.  Or the refusal to guess.

The etcd exception lets a packet leave unencrypted because of a port, so the port must
really be one: options and extension headers are walked, later fragments have none, a
source route or a cut-off TCP header counts as unreadable.  Every doubt gives None.

An ICMP error quotes the packet that it is about, and IP-in-IP wraps one: `carried` finds
it, so that it can be judged by its own addresses.  Here every doubt gives the empty
packet, which cannot be judged.

RFC 791, RFC 792, RFC 2003, RFC 4443, RFC 8200 §4, RFC 9293 §3.1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from wgpy.protocol.buffer import Buffer
from wgpy.protocol.packet import read_addresses

ICMP: Final = 1
IPV4_INSIDE: Final = 4
TCP: Final = 6
IPV6_INSIDE: Final = 41
ICMPV6: Final = 58
ICMP_ERRORS: Final = (3, 4, 5, 11, 12)
"""Unreachable, source quench, redirect, time exceeded, parameter problem."""
ICMPV6_INFORMATION: Final = 128
"""The first type that is not an error (RFC 4443 §2.1)."""
ICMPV6_REDIRECT: Final = 137
"""Quotes a packet in one of its options (RFC 4861 §4.6.3)."""
_ICMP_HEADER: Final = 8
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
_EXTENSIONS: Final = (
    _HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS
)  # fmt: skip
_UNREADABLE: Final = b""


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


def carried(packet: Buffer) -> Buffer | None:
    """The packet that an ICMP error quotes or a tunnel wraps, as much of it as is there.

    None: nothing of the kind.  Empty: there is or may be one, and it cannot be read:
    fragments of ICMP or of a tunnel, cut-off headers, redirects of IPv6.
    """
    if len(packet) >= _IPV4_HEADER and packet[0] >> 4 == 4:
        protocol, at = packet[9], (packet[0] & 15) * 4
        if protocol not in (ICMP, IPV4_INSIDE, IPV6_INSIDE):
            return None
        whole = not _uint16(packet, 6) & 0x3FFF
    elif len(packet) >= _IPV6_HEADER and packet[0] >> 4 == 6:
        upper = _walk(packet, len(packet))
        if upper is None:
            return _UNREADABLE
        protocol, at, whole = upper.protocol, upper.at, upper.whole
        if protocol not in (ICMPV6, IPV4_INSIDE, IPV6_INSIDE):
            # A later fragment names an extension header: anything may be behind it.
            return _UNREADABLE if upper.later and protocol in _EXTENSIONS else None
    else:
        return _UNREADABLE
    if not whole or at >= len(packet):
        return _UNREADABLE
    if protocol in (IPV4_INSIDE, IPV6_INSIDE):
        return packet[at:]
    kind = packet[at]
    if protocol == ICMPV6 and kind == ICMPV6_REDIRECT:
        return _UNREADABLE
    error = kind in ICMP_ERRORS if protocol == ICMP else kind < ICMPV6_INFORMATION
    return packet[at + _ICMP_HEADER :] if error else None


def ends(packet: Buffer) -> tuple[bytes, bytes] | None:
    """Source and destination of a packet that may be cut off behind them, or None."""
    if len(packet) >= _IPV4_HEADER and packet[0] >> 4 == 4:
        return bytes(packet[12:16]), bytes(packet[16:20])
    if len(packet) >= _IPV6_HEADER and packet[0] >> 4 == 6:
        return bytes(packet[8:24]), bytes(packet[24:40])
    return None


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


class _Upper(NamedTuple):
    """What follows IPv6's extension headers, and where."""

    protocol: int
    at: int
    routed: bool
    """A routing header was on the way whose segments are not used up."""
    whole: bool
    """Not a fragment."""
    later: bool = False
    """Not the first fragment either: what is at `at` is from the middle of something."""


def _ipv6_tcp(packet: Buffer, end: int) -> int | None:
    """As `_ipv4_tcp`, through the extension headers."""
    upper = _walk(packet, end)
    if upper is None or upper.protocol != TCP or upper.routed or upper.later:
        return None
    return upper.at


def _walk(packet: Buffer, end: int) -> _Upper | None:
    """Through the extension headers; None when they are cut off.

    Behind a later fragment's header stands no other one, whatever it says.
    """
    following, at = packet[6], _IPV6_HEADER
    routed, whole = False, True
    while following in _EXTENSIONS:
        if at + 8 > end:
            return None
        if following == _AUTHENTICATION:
            size = (packet[at + 1] + 2) * 4
        elif following == _FRAGMENT:
            if _uint16(packet, at + 2) & 0xFFF8:
                return _Upper(packet[at], at + 8, routed, False, True)
            whole = whole and not packet[at + 3] & 1
            size = 8
        else:
            routed = routed or (following == _ROUTING and packet[at + 3] != 0)
            size = (packet[at + 1] + 1) * 8
        following, at = packet[at], at + size
    return _Upper(following, at, routed, whole)


def _uint16(packet: Buffer, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]
