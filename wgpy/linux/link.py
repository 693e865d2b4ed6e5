"""Watching the TUN device's link: up or down, its MTU, and whether it still is.

The netlink socket is only a bell: whatever link it rings for, the device's own state is
asked again with two ioctls.  Nothing has to be parsed, a lost message does no harm, and
the start stays free of a netlink library.

A device may be moved to another network namespace while it works (its sockets stay
behind: the namespace trick of WireGuard).  The bell then follows it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from wgpy.dataplane.ports import DeviceGone
from wgpy.linux.tun import LinuxTun

RTMGRP_LINK = 1
SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
TUNGETDEVNETNS = 0x54E3
IFF_UP = 1
CLONE_NEWNET = 0x40000000


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
    """A descriptor that rings when links change, and the question what is now."""

    def __init__(self, tun: LinuxTun) -> None:
        self._tun = tun
        self._bell = _bell()

    def fileno(self) -> int:
        """Readable when some link changed.  Changes when the device moved: ask again."""
        return self._bell.fileno()

    def state(self) -> LinkState:
        """Silence the bell and ask; raises `DeviceGone`."""
        self._silence()
        try:
            return self._ask()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        self._follow()
        try:
            return self._ask()
        except OSError as error:
            raise DeviceGone from error

    def close(self) -> None:
        """Stop watching."""
        self._bell.close()

    def _ask(self) -> LinkState:
        return _ask(self._bell, self._tun.name)

    def _silence(self) -> None:
        """Take what waits; an overflow (ENOBUFS) rings as well as a message."""
        while True:
            try:
                self._bell.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def _follow(self) -> None:
        """The device is not in the bell's namespace: hang a new bell where it is now."""
        try:
            namespace = fcntl.ioctl(self._tun.fileno(), TUNGETDEVNETNS)
        except OSError as error:
            raise DeviceGone from error
        try:
            with _inside(namespace):
                moved = _bell()
        finally:
            os.close(namespace)
        self._bell.close()
        self._bell = moved


def _bell() -> socket.socket:
    bell = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    bell.bind((0, RTMGRP_LINK))
    return bell


@contextlib.contextmanager
def _inside(namespace: int) -> Iterator[None]:
    """This thread in the network namespace `namespace` (a descriptor)."""
    import ctypes  # Only here: it costs start-up time.

    libc = ctypes.CDLL(None, use_errno=True)

    def enter(fd: int) -> None:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot enter the device's network namespace")

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)
