"""The layers around an IP packet, one function each: tags, labels, tunnels.

A layer is a number: an EtherType, or one of the few below that have none.  Each function
takes the frame's bytes and the place where its layer begins, and returns the next layer
and its place; layer `NOTHING` ends the walk.  Running past the end raises IndexError
or struct.error: the frame is cut or broken.

No available parser is sufficient: dpkt knows neither GTP-U nor
Geneve nor snap lengths, scapy takes a millisecond a packet, and both give no reason for what
they do not read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

NOTHING, IP, ETHERNET_FRAME, PPP_FRAME, GRE = 0, 1, 2, 3, 4
IPV4, IPV6, MPLS, PPPOE = 0x0800, 0x86DD, 0x8847, 0x8864
_ETHERNET_BRIDGED: Final = 0x6558
_VLAN_TYPES: Final = (0x8100, 0x88A8, 0x9100, 0x9200)
_NO_IP: Final = {
    0x0806, 0x8035, 0x8863, 0x8809, 0x888E, 0x88CC, 0x88F7, 0x9000, 0x809B, 0x80F3, 0x8137,
    0x88E1, 0x8912, 0x890D, 0x893A, 0x8914, 0x8902, 0x88E3, 0x88B8, 0x8892,
}  # fmt: skip
"""EtherTypes that never carry IP: ARP, LLDP, EAPOL, PTP and the like."""
_CARRIERS: Final = {0x88E5: "MACsec", 0x88E7: "provider backbone bridges", 0x894F: "NSH"}

Step = tuple[int, int]


class Unread(Exception):
    """A frame that is not read; the text is its kind, for the counts."""


def ether_type(data: bytes, place: int) -> int:
    """The big-endian number of two bytes."""
    number: int = struct.unpack_from("!H", data, place)[0]
    return number


def _ethernet(data: bytes, place: int) -> Step:
    kind = ether_type(data, place + 12)
    return (kind, place + 14) if kind >= 0x600 else llc(data, place + 14)


def llc(data: bytes, place: int) -> Step:
    """IEEE 802.2: IP only behind a SNAP header."""
    if data[place : place + 3] != b"\xaa\xaa\x03":
        return NOTHING, 0
    return ether_type(data, place + 6), place + 8


def _vlan(data: bytes, place: int) -> Step:
    return ether_type(data, place + 2), place + 4


def ip(data: bytes, place: int) -> Step:
    """IPv4 or IPv6 by its version, for layers that do not say which."""
    version = data[place] >> 4
    return {4: IPV4, 6: IPV6}.get(version, NOTHING), place


def _mpls(data: bytes, place: int) -> Step:
    """Labels up to the bottom of the stack; then IP, or Ethernet (a pseudowire, RFC 4448)."""
    while not data[place + 2] & 1:
        place += 4
    place += 4
    version = data[place] >> 4
    if version in (4, 6):
        return ip(data, place)
    return ETHERNET_FRAME, place if version else place + 4


def _ppp(data: bytes, place: int) -> Step:
    """RFC 1661, with or without address and control bytes."""
    if data[place : place + 2] == b"\xff\x03":
        place += 2
    if data[place] & 1:
        protocol, place = data[place], place + 1
    else:
        protocol, place = ether_type(data, place), place + 2
    if protocol == 0xFD:
        raise Unread("compressed PPP")
    return {0x21: IPV4, 0x57: IPV6, 0x281: MPLS}.get(protocol, NOTHING), place


def _pppoe(data: bytes, place: int) -> Step:
    return (PPP_FRAME, place + 6) if data[place + 1] == 0 else (NOTHING, 0)


def _gre(data: bytes, place: int) -> Step:
    """RFC 2784 and 2890, PPTP's version 1, and ERSPAN inside."""
    flags, protocol = struct.unpack_from("!HH", data, place)
    if flags & 0x4000:
        raise Unread("GRE with source routing")
    sequence = bool(flags & 0x1000)
    if flags & 7 == 1:
        return PPP_FRAME, place + 8 + 4 * sequence + 4 * bool(flags & 0x80)
    place += 4 + 4 * bool(flags & 0x8000) + 4 * bool(flags & 0x2000) + 4 * sequence
    if protocol == 0x88BE:  # ERSPAN: type I has no header of its own
        return ETHERNET_FRAME, place + 8 * sequence
    if protocol == 0x22EB:
        return ETHERNET_FRAME, place + (20 if data[place + 11] & 1 else 12)
    return protocol, place


LAYERS: Final[dict[int, Callable[[bytes, int], Step]]] = {
    IP: ip,
    ETHERNET_FRAME: _ethernet,
    _ETHERNET_BRIDGED: _ethernet,
    PPP_FRAME: _ppp,
    PPPOE: _pppoe,
    MPLS: _mpls,
    0x8848: _mpls,
    GRE: _gre,
    **dict.fromkeys(_VLAN_TYPES, _vlan),
}


def unknown(layer: int) -> None:
    """Raises `Unread` for a layer that may carry IP and is not in `LAYERS`."""
    if layer in _CARRIERS:
        raise Unread(f"{_CARRIERS[layer]} (EtherType 0x{layer:04x})")
    if layer >= 0x600 and layer not in _NO_IP:
        raise Unread(f"EtherType 0x{layer:04x}")


# --- tunnels in UDP --------------------------------------------------------------------


def _vxlan(data: bytes, place: int) -> Step:
    return (ETHERNET_FRAME, place + 8) if data[place] & 8 else (NOTHING, 0)


def _vxlan_gpe(data: bytes, place: int) -> Step:
    if data[place] & 0x0C != 0x0C:
        return NOTHING, 0
    return {1: IPV4, 2: IPV6, 3: ETHERNET_FRAME}.get(data[place + 3], NOTHING), place + 8


def _geneve(data: bytes, place: int) -> Step:
    protocol = ether_type(data, place + 2)
    if data[place] & 0xC0 or protocol not in (_ETHERNET_BRIDGED, IPV4, IPV6):
        return NOTHING, 0
    return protocol, place + 8 + 4 * (data[place] & 0x3F)


def _gtp(data: bytes, place: int) -> Step:
    """GTP-U version 1 (TS 29.281): user data, extension headers skipped."""
    flags = data[place]
    if flags >> 4 != 3 or data[place + 1] != 255:
        return NOTHING, 0
    place += 8
    if flags & 7:
        following = data[place + 3] if flags & 4 else 0
        place += 4
        while following:
            size = 4 * data[place]
            if size == 0:
                return NOTHING, 0
            following, place = data[place + size - 1], place + size
    return ip(data, place)


UDP_TUNNELS: Final[dict[int, Callable[[bytes, int], Step]]] = {
    4789: _vxlan,
    8472: _vxlan,
    4790: _vxlan_gpe,
    6081: _geneve,
    2152: _gtp,
}
"""By destination port.  No header of theirs can be one of WireGuard's messages."""
