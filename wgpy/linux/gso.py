"""UDP in trains: one system call for up to 64 datagrams of equal size (GSO and GRO).

Sending, UDP_SEGMENT tells the kernel where to cut; receiving, UDP_GRO lets it hand over
what came back to back from one source.  Sizes and order are exactly those on the wire.

A socket or a device may refuse: EIO where the device cannot checksum, EINVAL where a
datagram would have to be fragmented.  Then the datagrams of that train go out one by
one, as `LinuxUdp` sends them; after EIO the socket stays with that, otherwise it tries
again after `DETOUR` trains, since another route may do.  A socket that fails to receive
because of GRO goes on without (`wgpy.linux.refusals`).  `report` hears of each once.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from wgpy.linux.refusals import Refusals
from wgpy.linux.udp import (
    ANCILLARY_SIZE,
    Address,
    LinuxUdp,
    Way,
    memory_info,
    read_endpoint,
)
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint

# Linux numbers that Python 3.11's `socket` does not name.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

DETOUR: Final = 256
"""Trains sent apart after a refusal before the next attempt."""

_REMEMBERED: Final = 1024
_GRO_REFUSED: Final = frozenset({errno.EINVAL, errno.EIO, errno.EOPNOTSUPP})
_SIZE: Final = struct.Struct("=H")
_GRO_SIZE: Final = struct.Struct("=i")


class Train(NamedTuple):
    """`size` bytes of datagrams of `stride` bytes, the last perhaps shorter."""

    size: int
    stride: int
    endpoint: Endpoint


class GsoUdp(LinuxUdp):
    """`LinuxUdp`, and trains."""

    def __init__(self, *, report: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._report = report
        self._reported = False
        self._gro = Refusals("UDP receive offload", "receiving datagrams one by one", report)
        self._by_fd: dict[int, socket.socket] = {}
        self._apart: dict[int, float] = {}  # socket → trains still to be sent apart
        self._endpoints: dict[tuple[Address, bytes], Endpoint] = {}
        self._drops: dict[int, int] = {}
        self.overflows = 0
        self._gro_buffer = bytearray(1 << 16)

    def rebind(self, port: int) -> None:
        """As `LinuxUdp.rebind`; the sockets receive in trains from then on."""
        before = self._sockets
        super().rebind(port)
        if self._sockets is before:
            return
        self._by_fd = {s.fileno(): s for s in self._sockets_in_turn}
        # What was learnt about the old sockets does not hold for the new ones.
        self._apart.clear()
        self._drops.clear()
        # All, for the kernel builds trains before it knows to which of our sockets they go.
        for s in () if self._gro.given_up else self._sockets_in_turn:
            with contextlib.suppress(OSError):  # Then every train has one datagram.
                s.setsockopt(SOL_UDP, UDP_GRO, 1)

    def close(self) -> None:
        """As `LinuxUdp.close`."""
        super().close()
        self._by_fd = {}

    def receive(self, limit: int) -> list[Datagram]:
        """As `LinuxUdp.receive`: datagrams one by one, at least `limit` if so many wait."""
        received: list[Datagram] = []
        view = memoryview(self._gro_buffer)
        for fd in self._by_fd:
            before = len(received)
            while len(received) - before < -(-limit // len(self._by_fd)):
                train = self.receive_train(fd, self._gro_buffer)
                if train is None:
                    break
                received += (
                    Datagram(bytes(view[i : min(i + train.stride, train.size)]), train.endpoint)
                    for i in range(0, train.size or 1, train.stride or 1)
                )
        return received

    def receive_train(self, fd: int, buffer: bytearray | memoryview) -> Train | None:
        """The next train that waits at `fd`, read into `buffer` (64 KiB); None: nothing."""
        s = self._by_fd.get(fd)
        if s is None:  # Closed meanwhile.
            return None
        try:
            size, items, _flags, sender = s.recvmsg_into(
                (buffer,), ANCILLARY_SIZE, socket.MSG_DONTWAIT
            )
        except OSError as error:
            # Mostly there is nothing, or the pending error of an earlier send (an ICMP answer).
            if error.errno in _GRO_REFUSED:
                self._receive_refused(error)
            return None
        stride, local = size, b""
        for level, kind, value in items:
            if level == SOL_UDP and kind == UDP_GRO:
                (stride,) = _GRO_SIZE.unpack(value)
            elif level != SOL_UDP:
                local = value
        endpoint = self._endpoints.get((sender, local))
        if endpoint is None:
            endpoint = read_endpoint(s.family, sender, items)
            if len(self._endpoints) >= _REMEMBERED:
                self._endpoints.clear()
            self._endpoints[sender, local] = endpoint
        return Train(size, stride, endpoint)

    def _receive_refused(self, error: OSError) -> None:
        """A datagram that waits cannot be had: without GRO it may."""
        if not self._gro.given_up and self._gro.note(error):
            for s in self._sockets_in_turn:
                with contextlib.suppress(OSError):
                    s.setsockopt(SOL_UDP, UDP_GRO, 0)

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        """Send datagrams of `stride` bytes (the last may be shorter); how many were refused."""
        way = self._ways.get(endpoint) or self._find_way(endpoint)
        if way is None:
            return -(-len(train) // stride)
        items = way.source
        if len(train) > stride:
            left = self._apart.get(way.socket.fileno())
            if left is not None:
                self._count_down(way.socket.fileno(), left)
                return self._send_apart(train, stride, endpoint)
            items = (*items, (SOL_UDP, UDP_SEGMENT, _SIZE.pack(stride)))
        try:
            way.socket.sendmsg((train,), items, 0, way.address)
        except OSError as error:
            return self._recover(error, way, train, stride, endpoint)
        return 0

    def overflowed(self) -> int:
        """Datagrams that the sockets for data had no room for since the last call."""
        return self._lost(self._sockets.data)

    def handshakes_overflowed(self) -> int:
        """As `overflowed`, of the sockets that get no transport messages."""
        return self._lost(self._sockets.handshakes)

    def _lost(self, sockets: Sequence[socket.socket]) -> int:
        lost = 0
        for s in sockets:
            fd = s.fileno()
            drops = memory_info(s).drops
            lost += drops - self._drops.get(fd, 0) & 0xFFFFFFFF
            self._drops[fd] = drops
        self.overflows += lost
        return lost

    def _recover(
        self, error: OSError, way: Way, train: memoryview, stride: int, endpoint: Endpoint
    ) -> int:
        """A send failed: once more, in the plain way, unless that is hopeless."""
        if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.EPERM):
            return -(-len(train) // stride)
        refused = self._send_apart(train, stride, endpoint)
        sourceless = way.source and not self._ways[endpoint].source
        if refused == 0 and len(train) > stride and not sourceless:
            for_good = error.errno == errno.EIO
            self._apart[way.socket.fileno()] = float("inf") if for_good else DETOUR
            if not self._reported:
                self._reported = True
                self._report(
                    f"UDP segmentation offload refused ({error.strerror}):"
                    " sending datagrams one by one"
                )
        return refused

    def _count_down(self, fd: int, left: float) -> None:
        if left <= 1:
            del self._apart[fd]
        else:
            self._apart[fd] = left - 1

    def _send_apart(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        """The datagrams of a train, one system call each; how many were refused."""
        return self.send(
            Datagram(train[i : i + stride], endpoint) for i in range(0, len(train), stride)
        )
