"""A tester's UDP port as a real socket, with the kernel's receive times."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Sequence

from wgspec.target import Address, Arrival, Port, RealTimeInstance

_UDP_SEGMENT = 103
_MAX_SEGMENTS, _MAX_TRAIN = 60, 60_000


def monotonic_of(ancillary: list[tuple[int, int, bytes]]) -> tuple[float, int]:
    """(receive time on the monotonic clock, TOS byte or -1) of a datagram's control data."""
    at, tos = time.monotonic(), -1
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == 35:
            seconds, ns = struct.unpack("qq", data[:16])
            at -= max(0.0, time.time() - (seconds + ns / 1e9))
        elif level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6):
            tos = data[0]
    return at, tos


class UdpPort(Port):
    """A UDP socket in the tester's namespace."""

    def __init__(self, instance: RealTimeInstance, sock: socket.socket) -> None:
        name = sock.getsockname()
        super().__init__(instance, Address(name[0], name[1]))
        self._sock = sock
        self._real = instance
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(64):
            try:
                data, ancillary, _, source = self._sock.recvmsg(65536, 512)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error came back: the next receive is for data
            at, tos = monotonic_of(ancillary)
            self.arrived(Arrival(at, data, Address(source[0], source[1]), self.address, tos))
        self._real.wake()

    def _transmit(self, datagrams: Sequence[bytes], to: Address) -> None:
        for data in datagrams:
            for _ in range(3):
                try:
                    self._sock.sendto(data, to)
                except ConnectionRefusedError:
                    continue
                except BlockingIOError:
                    time.sleep(0.002)
                    continue
                break

    def train(self, datagrams: Sequence[bytes]) -> None:
        """As super-packets of the kernel (UDP GSO), which a veth hands over whole."""
        size = len(datagrams[0])
        to = self.instance.address(self.address.family)
        step = min(_MAX_SEGMENTS, _MAX_TRAIN // size)
        segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", size))
        for start in range(0, len(datagrams), step):
            part = datagrams[start : start + step]
            assert all(len(data) == size for data in part)
            try:
                self._sock.sendmsg(part, [segment], 0, to)
            except OSError:  # this kernel or route cannot: one by one is as right
                self._transmit(part, to)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
