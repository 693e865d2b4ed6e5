"""The TUN device as a `TunPort`.

One device, one file descriptor, whole IP packets without a packet-information header.
`flags` leaves room for IFF_VNET_HDR: the batch path opens the device with it and reads
and writes `fileno()` itself.  Link state and MTU are `wgpy.linux.link`'s; addresses and
routes are `wgpy.linux.netlink`'s.

A device that another program deleted answers every call with EBADFD: that becomes
`DeviceGone`, the one error that must end the data plane.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import pytun

from wgpy import typed
from wgpy.dataplane.ports import DeviceGone
from wgpy.linux import rtnetlink
from wgpy.linux.rtnetlink import attribute
from wgpy.protocol.buffer import Buffer

CLONE_DEVICE = Path("/dev/net/tun")
TUNGETIFF = 0x800454D2
IFLA_AF_SPEC = 26
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
IFA_FLAGS = 8
IFA_F_STABLE_PRIVACY = 0x800
"""A TUN device has no hardware address: what the kernel makes up carries this flag."""
RT_SCOPE_LINK = 253
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
IFREQ_SIZE = 40
NAME_SIZE = 16
IN_CONTAINER = f"start it with `--device {CLONE_DEVICE}`"
DEFAULT_MTU = 1420
"""What fits a 1500-byte IPv6 underlay: 1500 - 40 (IPv6) - 8 (UDP) - 32 (WireGuard)."""

MAX_PACKET = 65535


class TunError(Exception):
    """The device cannot be made; the message says why and what to do."""


def why_not_openable() -> str:
    """Why the clone device cannot be opened, and what to do; empty when it can."""
    try:
        os.close(os.open(CLONE_DEVICE, os.O_RDWR))
    except OSError as error:
        return _no_clone_device(error)
    return ""


def _no_clone_device(error: OSError) -> str:
    """Missing, without a driver, or denied: three causes with three fixes."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        load = typed.as_root("modprobe", "tun")
        return f"{CLONE_DEVICE} does not exist: `{load}`; in a container {IN_CONTAINER}"
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return f"the kernel has no TUN driver: `{typed.as_root('modprobe', 'tun')}`"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"{CLONE_DEVICE}: {error.strerror}"
    if os.geteuid() != 0:
        return f"no permission to open {CLONE_DEVICE}: `{typed.again_as_root()}`"
    return f"root may not open {CLONE_DEVICE}: in a container {IN_CONTAINER}"


def _explain(name: str, error: OSError | None, text: str) -> TunError:
    """The reason in words, with the fix."""
    if reason := why_not_openable():
        return TunError(reason)
    number = error.errno if error is not None else None
    if number in (errno.EPERM, errno.EACCES):
        fix = "the network namespace is not this user's: it needs CAP_NET_ADMIN there"
        if os.geteuid() != 0:
            fix = f"`{typed.again_as_root()}`, or give it CAP_NET_ADMIN in this network namespace"
        return TunError(f"no permission to make TUN device {name}: {fix}")
    reasons = {
        errno.EBUSY: "the interface is in use by another program: `"
        f"{typed.as_root('ip', 'link', 'delete', 'dev', name)}`, or end that program",
        errno.EINVAL: "an interface of that name exists and is not a TUN device, or the name is"
        " not one that an interface can have",
    }
    return TunError(f"cannot make TUN device {name}: {reasons.get(number or 0, text)}")


def no_link_local(name: str) -> None:
    """Keep the kernel from giving the device a link-local address, as WireGuard's own does.

    Such an address brings router solicitations and multicast reports, for which no peer is,
    and a line in each configuration that is saved.  One that is there already goes: the
    kernel makes the device's IPv6 anew in another network namespace, and when the MTU
    comes back over 1280.
    """
    with contextlib.suppress(OSError):  # A kernel without IPv6, which is as good.
        index = socket.if_nametoindex(name)
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        family = attribute(IFLA_AF_SPEC, attribute(socket.AF_INET6, mode))
        link = rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        rtnetlink.change(rtnetlink.RTM_SETLINK, link + family)
        _remove_link_local(index)


def _remove_link_local(index: int) -> None:
    """Delete the addresses that the kernel made up; those of a person stay."""
    family = _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, 0)
    with rtnetlink.opened() as asked:
        for message in rtnetlink.ask(asked, rtnetlink.RTM_GETADDR, family, rtnetlink.NLM_F_DUMP):
            *_, scope, of = _ADDRESS.unpack_from(message)
            found = dict(rtnetlink.attributes(message[_ADDRESS.size :]))
            flags = int.from_bytes(found.get(IFA_FLAGS, b""), sys.byteorder)
            if of == index and scope == RT_SCOPE_LINK and flags & IFA_F_STABLE_PRIVACY:
                rtnetlink.ask(asked, rtnetlink.RTM_DELADDR, message)


class LinuxTun:
    """A TUN device, made on opening and gone when closed."""

    def __init__(self, name: str, *, flags: int = 0, mtu: int = DEFAULT_MTU) -> None:
        """Make `name` (a ``%d`` in it is numbered by the kernel); raises `TunError`."""
        try:
            self._device = pytun.TunTapDevice(
                name=name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI | flags
            )
        except (pytun.Error, OSError) as error:
            number = next((a for a in error.args if isinstance(a, int)), None)
            raise _explain(
                name, OSError(number, "") if number else None, str(error)
            ) from error
        self._fd: int = self._device.fileno()
        self._buffer = bytearray(MAX_PACKET)
        os.set_blocking(self._fd, False)
        self._device.mtu = mtu
        no_link_local(name=self.name)
        self.mtu = mtu
        """Kept current by whoever watches the link."""

    @property
    def name(self) -> str:
        """The device's name now (it may have been renamed); raises `DeviceGone`."""
        return self._request()[:NAME_SIZE].rstrip(b"\0").decode()

    def raise_if_gone(self) -> None:
        """Raise `DeviceGone` if the device was deleted."""
        self._request()

    def _request(self) -> bytes:
        """The device's `struct ifreq`; raises `DeviceGone`."""
        try:
            return fcntl.ioctl(self._fd, TUNGETIFF, bytes(IFREQ_SIZE))
        except OSError as error:
            raise DeviceGone from error

    def fileno(self) -> int:
        """Readable when a packet waits, or when the device is gone."""
        return self._fd

    def read(self, limit: int) -> list[bytes]:
        """Up to `limit` packets that are ready now; raises `DeviceGone`."""
        packets: list[bytes] = []
        buffer, fd = self._buffer, self._fd
        try:
            while len(packets) < limit:
                size = os.readv(fd, (buffer,))
                packets.append(bytes(buffer[:size]))
        except BlockingIOError:
            pass
        except OSError:
            self.raise_if_gone()  # Otherwise it passes (the link going down).
        return packets

    def write(self, packets: Iterable[Buffer]) -> int:
        """Deliver packets; returns how many the device refused (down, malformed)."""
        refused = 0
        for packet in packets:
            try:
                os.write(self._fd, packet)
            except OSError:
                refused += 1
        return refused

    def close(self) -> None:
        """Remove the device."""
        if self._fd >= 0:
            self._fd = -1
            self._device.close()
