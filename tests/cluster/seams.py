"""What the tests of the seams between table and kernel share."""

from __future__ import annotations

import contextlib
import socket

from testbed.cluster import wait_until
from tests.cluster.craft import Flow
from tests.cluster.harness import Range

ICMP_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


class Eavesdropper:
    """All frames on the underlay's bridge, whole, kept until they are counted."""

    def __init__(self, r: Range) -> None:
        space = r.cluster.namespaces["underlay"]
        self._range = r
        self._socket = space.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        self._socket.setblocking(False)
        self.frames: list[bytes] = []

    def count(self, marker: bytes) -> int:
        self._range.cluster.settle(self._range.sniffer)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.frames.append(self._socket.recv(1 << 16))
        return sum(frame.count(marker) for frame in self.frames)

    def close(self) -> None:
        self._socket.close()


class Errors:
    """ICMP errors that a pod's own stack is handed."""

    def __init__(self, r: Range, pod: str, version: int) -> None:
        space = r.cluster.namespaces[pod]
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._socket = space.socket(family, socket.SOCK_RAW, ICMP_PROTOCOL[version])
        self._socket.setblocking(False)
        self._start = 20 if version == 4 else 0
        self._got: list[tuple[bytes, str]] = []

    def got(self, marker: bytes) -> set[tuple[int, str]]:
        """Type and sender of those that quote the marker."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = self._socket.recvfrom(1 << 16)
                self._got.append((data[self._start :], sender[0]))
        return {(data[0], sender) for data, sender in self._got if marker in data}

    def close(self) -> None:
        self._socket.close()


def client(r, version, destination):
    return Flow(r.pod("alpha/client", version), destination)


def works(r):
    for version in (4, 6):
        target = r.pod("beta/server", version)
        assert wait_until(lambda t=target: r.ping("alpha/client", t, count=1) == 1, 20), target
