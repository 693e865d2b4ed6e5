"""The TUN device as a `TunPort`.

One device, one file descriptor, whole IP packets without a packet-information header.
`flags` leaves room for IFF_VNET_HDR: the batch path opens the device with it and reads
and writes `fileno()` itself.  Link state and MTU are `wgpy.linux.link`'s; addresses and
routes are `wgpy.linux.netlink`'s.

A device that another program deleted answers every call with EBADFD: that becomes
`DeviceGone`, the one error that must end the data plane.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

import pytun

from wgpy.dataplane.ports import DeviceGone
from wgpy.protocol.policy import Buffer

CLONE_DEVICE = Path("/dev/net/tun")
TUNGETIFF = 0x800454D2
RTM_SETLINK = 19
NLM_F_REQUEST, NLM_F_ACK = 1, 4
IFLA_AF_SPEC = 26
IFLA_INET6_ADDR_GEN_MODE = 8
IN6_ADDR_GEN_MODE_NONE = 1
IFREQ_SIZE = 40
NAME_SIZE = 16
DEFAULT_MTU = 1420
"""What fits a 1500-byte IPv6 underlay: 1500 - 40 (IPv6) - 8 (UDP) - 32 (WireGuard)."""

MAX_PACKET = 65535


class TunError(Exception):
    """The device cannot be made; the message says why and what to do."""


def _explain(name: str, error: OSError | None, text: str) -> TunError:
    """The reason in words, with the fix."""
    if not CLONE_DEVICE.exists():
        return TunError(
            f"{CLONE_DEVICE} does not exist: `modprobe tun`, in a container"
            f" `--device {CLONE_DEVICE}`"
        )
    if not os.access(CLONE_DEVICE, os.R_OK | os.W_OK):
        return TunError(f"no permission to open {CLONE_DEVICE}: run as root")
    number = error.errno if error is not None else None
    reasons = {
        errno.EPERM: "no permission: run as root, or with CAP_NET_ADMIN in this network namespace",
        errno.EBUSY: "the interface is in use by another program: `ip link delete` it, or"
        " end that program",
        errno.EINVAL: "an interface of that name exists and is not a TUN device, or the name is"
        " not one that an interface can have",
        errno.ENODEV: "the kernel has no TUN driver: `modprobe tun`",
    }
    return TunError(f"cannot make TUN device {name}: {reasons.get(number or 0, text)}")


def no_link_local(name: str) -> None:
    """Keep the kernel from giving the device a link-local address, as WireGuard's own does.

    Such an address brings router solicitations and multicast reports, for which no peer is,
    and a line in each configuration that is saved.  RTM_SETLINK with IFLA_AF_SPEC, AF_INET6,
    IFLA_INET6_ADDR_GEN_MODE; by hand, for the start has no netlink library.
    """
    mode = struct.pack("=HHB3x", 5, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)
    family = struct.pack("=HH", 4 + len(mode), socket.AF_INET6) + mode
    attribute = struct.pack("=HH", 4 + len(family), IFLA_AF_SPEC) + family
    link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(name), 0, 0)
    size = 16 + len(link) + len(attribute)
    header = struct.pack("=IHHII", size, RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(header + link + attribute)
        netlink.recv(4096)  # Refused by a kernel without IPv6, which is as good.


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
        try:
            answer = fcntl.ioctl(self._fd, TUNGETIFF, bytes(IFREQ_SIZE))
        except OSError as error:
            raise DeviceGone from error
        return answer[:NAME_SIZE].rstrip(b"\0").decode()

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
            _ = self.name  # Gone, or an error that passes (the link going down).
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
