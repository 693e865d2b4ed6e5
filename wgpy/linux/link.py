"""Watching the network: the TUN device's link, and what decides how datagrams leave.

The netlink socket is only a bell: whatever it rings for, the device's own state is asked
again with two ioctls.  Nothing has to be parsed, a lost message does no harm, and the
start stays free of a netlink library.  It rings for addresses, routes and rules as well,
since a source address that was remembered may not fit them any more (`wgpy.linux.udp`).

A device may be moved to another network namespace while it works (its sockets stay
behind: the namespace trick of WireGuard).  It is asked there then, without keeping
anything open: a socket would keep that namespace alive after everybody else has left it.
The bell hears of other namespaces where the kernel allows that; besides, the link is
looked at once a second while it is away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from wgpy.dataplane.ports import Clock
from wgpy.linux import rtnetlink
from wgpy.linux.namespace import inside
from wgpy.linux.tun import LinuxTun, no_link_local
from wgpy.protocol.constants import NS

SIOCGIFFLAGS: Final = 0x8913
SIOCGIFMTU: Final = 0x8921
TUNGETDEVNETNS: Final = 0x54E3
IFF_UP: Final = 1

SOL_NETLINK: Final = 270
NETLINK_LISTEN_ALL_NSID: Final = 8
NETNSA_NSID: Final = 1
NETNSA_FD: Final = 3
ANY_NSID: Final = -1

LINKS: Final = 1 << 0
ADDRESSES: Final = 1 << 4 | 1 << 8
ROUTES: Final = 1 << 6 | 1 << 10 | 1 << 31
"""IPv4, IPv6, next hops (RTNLGRP_NEXTHOP)."""
RULES: Final = 1 << 7 | 1 << 18
SMALL_BUFFER: Final = 1
"""The kernel makes it its least.  A full bell rings as well, and is silenced as fast."""

LOOK_INTERVAL: Final = 1 * NS
"""How often a link in another namespace is looked at."""
ATTEMPTS: Final = 3
"""A device may be renamed or moved between two questions."""
IPV6_MINIMUM_MTU: Final = 1280


class LinkState(NamedTuple):
    """What the device's link is: administratively `up`, `mtu` in bytes."""

    up: bool
    mtu: int


def link_state(name: str) -> LinkState:
    """The link of that name in this network namespace; raises OSError (ENODEV: none)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        return _ask(any_socket, name)


def _ask(any_socket: socket.socket, name: str) -> LinkState:
    request = struct.pack("16s24x", name.encode())
    flags = fcntl.ioctl(any_socket, SIOCGIFFLAGS, request)
    mtu = fcntl.ioctl(any_socket, SIOCGIFMTU, request)
    return LinkState(
        bool(struct.unpack_from("H", flags, 16)[0] & IFF_UP), struct.unpack_from("i", mtu, 16)[0]
    )


class LinkWatch:
    """A descriptor that rings when the network changes, and the question how the link is.

    For the loop it has deadlines, too (`Timed`), while the device is in another namespace.
    """

    def __init__(self, tun: LinuxTun, clock: Clock) -> None:
        self._tun = tun
        self._clock = clock
        self._bell = rtnetlink.opened(LINKS | ADDRESSES | ROUTES | RULES)
        self._bell.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        with _own_namespace() as home:
            self._home = _identity(home)
        self._place: tuple[int, int] | None = self._home
        self._last = LinkState(False, tun.mtu)
        self._looked = clock.monotonic()

    def fileno(self) -> int:
        """Readable when something changed; the same for ever."""
        return self._bell.fileno()

    def next_deadline(self) -> int | None:
        """When to ask for the state again though the bell was silent, in ns."""
        return None if self._place == self._home else self._looked + LOOK_INTERVAL

    def state(self) -> LinkState:
        """Silence the bell and ask; raises `DeviceGone`."""
        self._silence()
        self._looked = self._clock.monotonic()
        for _ in range(ATTEMPTS):
            try:
                self._last = self._ask()
                return self._last
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EPERM):
                    raise
        # It is where we may not look.  Whoever moved it there will set it up, and a port
        # that is open too early does no harm.
        self._place = None
        self._last = LinkState(True, self._last.mtu)
        return self._last

    def close(self) -> None:
        """Stop watching."""
        self._bell.close()

    def _silence(self) -> None:
        """Take what waits; an overflow (ENOBUFS) rings as well as a message."""
        while True:
            try:
                self._bell.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _ask(self) -> LinkState:
        """The link where it is now; OSError: ENODEV, not there any more, or EPERM."""
        name = self._tun.name
        try:
            namespace = fcntl.ioctl(self._tun.fileno(), TUNGETDEVNETNS)
        except OSError:  # A kernel before 5.2, or no right to know.
            return _ask(self._bell, name)
        try:
            place = _identity(namespace)
            moved = place != self._place
            if moved:
                self._hear(namespace)
            at_home = place == self._home
            with contextlib.nullcontext() if at_home else inside(namespace):
                state = _ask(self._bell, name) if at_home else link_state(name)
                if moved or self._last.mtu < IPV6_MINIMUM_MTU <= state.mtu:
                    no_link_local(name)
            self._place = place
            return state
        finally:
            os.close(namespace)

    def _hear(self, namespace: int) -> None:
        """Let the bell ring for another namespace too, if that is allowed.

        It does for all that have a number here; where a device moves straight from here
        the kernel has given one.
        """
        with contextlib.suppress(OSError):
            self._bell.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
            rtnetlink.change(
                rtnetlink.RTM_NEWNSID,
                bytes(4)
                + rtnetlink.attribute(NETNSA_NSID, struct.pack("=i", ANY_NSID))
                + rtnetlink.attribute(NETNSA_FD, struct.pack("=I", namespace)),
            )


def _identity(namespace: int) -> tuple[int, int]:
    """What tells the namespace of a descriptor from others."""
    status = os.fstat(namespace)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _own_namespace() -> Iterator[int]:
    """A descriptor of this thread's network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield home
    finally:
        os.close(home)
