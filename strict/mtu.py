"""How large an inner packet may be on a given underlay.

A tunnel packet costs up to 80 bytes: IPv6 40, UDP 8, WireGuard 16 + 16.  Its content is
padded to a multiple of 16, up to 15 bytes more, but never beyond the device's MTU
(whitepaper §5.4.6).  So the device gets underlay − 80, and routes the largest multiple of
16 under that: their packets fit whatever the other end's padding does.
"""

from __future__ import annotations

from typing import Final

OVERHEAD: Final = 80
IPV6_MINIMUM: Final = 1280
"""RFC 8200 §5."""
PADDING: Final = 16
_TCP_AND_IP: Final = {4: 40, 16: 60}


def device_mtu(underlay: int, ipv6: bool) -> int:
    """MTU of the tunnel device, bytes; with IPv6 never under 1280."""
    return max(underlay - OVERHEAD, IPV6_MINIMUM if ipv6 else 68)


def route_mtu(underlay: int, ipv6: bool) -> int:
    """MTU of routes into the tunnel: without padding, or as small as IPv6 allows."""
    rounded = (underlay - OVERHEAD) // PADDING * PADDING
    return max(rounded, IPV6_MINIMUM if ipv6 else 68)


def advertised_mss(mtu: int, address_size: int) -> int:
    """TCP's largest segment for routes of this MTU; `address_size` is 4 or 16."""
    return mtu - _TCP_AND_IP[address_size]
