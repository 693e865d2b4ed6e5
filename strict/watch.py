"""A notification when routes, rules, links or nftables change.

Two netlink sockets that only listen.  Their content is discarded: the
agent then compares the kernel's state with the desired state.  rtnetlink(7), libnftnl's groups.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_NFTABLES: Final = 7
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE = 1, 5, 7, 8
_IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE = 9, 11, 19


class KernelWatch:
    """In the network namespace of the calling process."""

    def __init__(self) -> None:
        self.routing = _listen(
            socket.NETLINK_ROUTE,
            (_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV4_RULE, _IPV6_ADDRESS, _IPV6_ROUTE, _IPV6_RULE),
        )
        self.nftables = _listen(_NETLINK_NETFILTER, (_NFTABLES,))

    def __iter__(self) -> Iterator[socket.socket]:
        yield self.routing
        yield self.nftables

    def close(self) -> None:
        self.routing.close()
        self.nftables.close()


def drain(bell: socket.socket) -> bool:
    """Discard pending messages; True if there were any (or too many to keep)."""
    rang = False
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                bell.recv(1 << 16)
            except BlockingIOError:
                raise
            except OSError:
                pass  # ENOBUFS: messages were lost, which is a notification as well.
            rang = True
    return rang


def _listen(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    bell.bind((0, 0))
    for group in groups:
        bell.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return bell
