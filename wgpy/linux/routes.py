"""Whether a remembered source address still fits the route to a peer.

The rule is the kernel's (drivers/net/wireguard/socket.c, `send4`): the source that a peer
wrote to is kept while it is this host's and the route to the peer, asked for with that
source, leaves by the interface that the peer's datagram came in by.  Otherwise routing
chooses.  The kernel asks so for IPv4 only; here IPv6 is treated alike.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from wgpy.linux import rtnetlink
from wgpy.protocol.endpoint import Endpoint

_ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""
RTA_DST: Final = 1
RTA_SRC: Final = 2
RTA_OIF: Final = 4
RTA_MARK: Final = 16
RTA_IP_PROTO: Final = 27
RTA_SPORT: Final = 28
RTA_DPORT: Final = 29
RTN_LOCAL: Final = 2
_PORT: Final = struct.Struct("!H")
_NUMBER: Final = struct.Struct("=I")

NO_ROUTE: Final = frozenset({errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
"""Answers that say: not with this source.  EINVAL: the address is not this host's."""


class Routes:
    """The routing questions of one UDP port; lives in the network namespace of its sockets."""

    def __init__(self) -> None:
        """Raises OSError where there is no netlink."""
        self._asked = rtnetlink.opened()

    def fits(self, endpoint: Endpoint, port: int, mark: int) -> bool:
        """Whether datagrams from `port` with `mark` may leave from the endpoint's local address."""
        if is_link_local(endpoint.local_ip) or is_link_local(endpoint.ip):
            return True  # The interface is part of the address: there is no other route.
        family = socket.AF_INET if len(endpoint.ip) == 4 else socket.AF_INET6
        bits = 8 * len(endpoint.ip)
        request = _ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
        for kind, data in (
            (RTA_DST, endpoint.ip),
            (RTA_SRC, endpoint.local_ip),
            (RTA_MARK, _NUMBER.pack(mark)),
            (RTA_IP_PROTO, bytes([socket.IPPROTO_UDP])),
            (RTA_SPORT, _PORT.pack(port)),
            (RTA_DPORT, _PORT.pack(endpoint.port)),
        ):
            request += rtnetlink.attribute(kind, data)
        try:
            (answer,) = rtnetlink.ask(self._asked, rtnetlink.RTM_GETROUTE, request, 0)
        except OSError as error:
            return error.errno not in NO_ROUTE
        kind = _ROUTE.unpack_from(answer)[7]
        found = dict(rtnetlink.attributes(answer[_ROUTE.size :]))
        if kind == RTN_LOCAL or not endpoint.local_ifindex:
            return True
        (leaves_by,) = _NUMBER.unpack(found.get(RTA_OIF, bytes(4)))
        return bool(leaves_by == endpoint.local_ifindex)

    def close(self) -> None:
        """No more questions."""
        self._asked.close()


def is_link_local(ip: bytes) -> bool:
    """Whether this is an IPv6 link-local address (fe80::/10)."""
    return len(ip) == 16 and ip[0] == 0xFE and ip[1] & 0xC0 == 0x80
