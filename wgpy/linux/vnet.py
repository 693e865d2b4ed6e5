"""A TUN device with the virtio header: super-packets in, super-packets out.

IFF_VNET_HDR puts a ten-byte header before every packet, and TUNSETOFFLOAD tells the
kernel which unfinished packets we take: without checksum, TCP up to 64 KiB (TSO), UDP
likewise (USO, from Linux 6.2).  In the other direction the device takes what we merge.
Offloads that the kernel does not know are left out, down to none; `missing` says which.
A merged packet that it refuses all the same is delivered cut (`wgpy.linux.refusals`).

`read_into` and `write_from` are for the batch path.  `read` and `write` speak whole
packets, so this is a `TunPort` like any other.

This module does not import numpy: the start of the program must not wait for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import pytun

from wgpy.dataplane import offload
from wgpy.dataplane.offload import MAX_PACKET, MAX_SENT, MAX_TRAIN
from wgpy.linux import rtnetlink
from wgpy.linux.refusals import Refusals
from wgpy.linux.tun import DEFAULT_MTU, LinuxTun
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import TRANSPORT_OVERHEAD

if TYPE_CHECKING:
    from wgpy.dataplane.offload_segment import Splitter

TUNSETOFFLOAD: Final = 0x400454D0
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_TSO_ECN: Final = 0x08
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40
_TSO: Final = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
_USO: Final = TUN_F_USO4 | TUN_F_USO6

_ATTEMPTS: Final = (
    (_TSO | _USO, ""),
    (_TSO, "the kernel's TUN has no USO: UDP goes packet by packet"),
    (TUN_F_CSUM, "the kernel's TUN has no TSO: TCP goes packet by packet"),
    (0, "the kernel's TUN takes no offloads"),
)

_GSO_TYPE: Final = 1
"""Where a virtio header says how to cut."""
_NOT_THE_OFFLOAD: Final = frozenset({errno.EIO, errno.EBADFD, errno.EAGAIN, errno.ENOMEM})
"""The device is down, gone or full: its segments would fare no better."""

_IFLA_GSO_MAX_SIZE: Final = 41
_U32: Final = struct.Struct("=I")
_TCP_RESERVE: Final = 321
"""Bytes that TCP leaves free of gso_max_size (MAX_TCP_HEADER and one)."""
_TCP_HEADERS: Final = 52
"""IPv4, TCP and its timestamps."""


class VnetTun(LinuxTun):
    """A TUN device that carries super-packets."""

    def __init__(
        self,
        name: str,
        *,
        mtu: int = DEFAULT_MTU,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """As `LinuxTun`.  A kernel that refuses every offload still gives a device.

        `report` is told when it refuses one later.
        """
        super().__init__(name, flags=pytun.IFF_VNET_HDR, mtu=mtu)
        self.missing = ""
        """Description of missing kernel features; empty when there are none."""
        self.udp_offload = False
        """Whether UDP super-packets are taken."""
        self.given_up: set[int] = set()
        """IP protocols whose packets are not to be merged any more."""
        self._refusals = {
            protocol: Refusals(f"merged {what} packets", "delivering them one by one", report)
            for protocol, what in ((offload.TCP, "TCP"), (offload.UDP, "UDP"))
        }
        self._cap = self._capped_for = 0
        for flags, missing in _ATTEMPTS:
            try:
                fcntl.ioctl(self._fd, TUNSETOFFLOAD, flags)
            except OSError:
                continue
            self.missing, self.udp_offload = missing, bool(flags & TUN_F_USO4)
            break
        # Before anybody connects through the device.
        self.cap_super_packets()
        self._splitter: Splitter | None = None
        self._vnet_buffer = bytearray(2 * offload.MAX_PACKET)
        self._vnet_view = memoryview(self._vnet_buffer)[: offload.VNET_SIZE + offload.MAX_PACKET]

    def cap_super_packets(self) -> None:
        """Let TCP make super-packets that fit one UDP GSO send at the present MTU.

        Larger ones are sent as two, so a kernel that refuses does no harm.  The
        cap never shrinks: TCP asks for it when it connects, and what is larger than the
        device takes by then, the kernel cuts into single segments.
        """
        if self.mtu == self._capped_for:
            return
        self._capped_for = self.mtu
        messages = min(MAX_SENT, MAX_TRAIN // (self.mtu + TRANSPORT_OVERHEAD))
        size = min(messages * (self.mtu - _TCP_HEADERS) + _TCP_RESERVE, MAX_PACKET)
        if size > self._cap:
            self._cap = size
            with contextlib.suppress(OSError):
                _set_gso_max_size(socket.if_nametoindex(self.name), size)

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        """Packets behind their virtio headers, one into each view; their sizes.

        Ends when none is ready, and after one of more than `large` bytes.
        """
        sizes: list[int] = []
        readv, fd = os.readv, self._fd
        try:
            for view in views:
                size = readv(fd, (view,))
                sizes.append(size)
                if size > large:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.raise_if_gone()  # Otherwise it passes (the link going down).
        return sizes

    def write_from(self, view: memoryview) -> bool:
        """One packet behind its virtio header; False when the device refused it."""
        try:
            os.write(self._fd, view)
        except OSError as error:
            merged = view[_GSO_TYPE] != offload.GSO_NONE
            return merged and error.errno not in _NOT_THE_OFFLOAD and self._write_cut(view, error)
        return True

    def _write_cut(self, view: memoryview, error: OSError) -> bool:
        """A merged packet was refused: its segments one by one, as they came."""
        self._vnet_buffer[: len(view)] = view
        packets = self._cut(len(view))
        if self.write(packets):
            return False
        udp = view[_GSO_TYPE] == offload.GSO_UDP_L4
        protocol = offload.UDP if udp else offload.TCP
        if self._refusals[protocol].note(error):
            self.given_up.add(protocol)
        return True

    def _cut(self, size: int) -> list[bytes]:
        """The packets of one read of `size` bytes, virtio header included."""
        if self._splitter is None:
            from wgpy.dataplane.offload_segment import Splitter

            self._splitter = Splitter()
        size -= offload.VNET_SIZE
        return self._splitter.packets(self._vnet_buffer, offload.VNET_SIZE, size)

    def read(self, limit: int) -> list[bytes]:
        """As `LinuxTun.read`, super-packets cut; only packets that are ready count."""
        packets = list[bytes]()
        try:
            while len(packets) < limit:
                packets += self._cut(os.readv(self._fd, (self._vnet_view,)))
        except BlockingIOError:
            pass
        except OSError:
            self.raise_if_gone()
        return packets

    def write(self, packets: Iterable[Buffer]) -> int:
        """Deliver whole packets; returns how many the device refused."""
        refused = 0
        for packet in packets:
            try:
                os.writev(self._fd, (offload.NO_OFFLOAD, packet))
            except OSError:
                refused += 1
        return refused


def _set_gso_max_size(index: int, size: int) -> None:
    """Cap the super-packets of a link; raises OSError."""
    link = rtnetlink.LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    cap = rtnetlink.attribute(_IFLA_GSO_MAX_SIZE, _U32.pack(size))
    rtnetlink.change(rtnetlink.RTM_NEWLINK, link + cap)
