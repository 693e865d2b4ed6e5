"""Under a flood of packets, a change holds from the moment that `wg` returns."""

from __future__ import annotations

import socket

import pytest

from tests.interop.tunnel import connect, make_ends
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
OUTGOING = 4
MARKER = 9
TRANSPORT = b"\4\0\0\0"


class Outer:
    """The datagrams that leave a namespace by its Ethernet device, in order."""

    def __init__(self, end) -> None:
        self._namespace = end.namespace
        shown = end.namespace.run("ip", "-br", "link", "show", "type", "veth").stdout
        with end.namespace.entered():
            kind = socket.htons(ETH_P_ALL)
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((shown.split("@")[0], ETH_P_ALL))
        self._socket.setblocking(False)
        self.transport = 0
        self.marked: int | None = None

    def mark(self, target: str) -> None:
        """Send a datagram that divides what was sent before from what is sent after."""
        with self._namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"", (target, MARKER))

    def read(self) -> int:
        """Take what has passed; how many transport messages that were more than keepalives."""
        while True:
            try:
                data, address = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return self.transport
            if address[2] != OUTGOING:
                continue
            if data[22:24] == MARKER.to_bytes(2):
                self.marked = self.transport
            elif data[28:32] == TRANSPORT and len(data) > 28 + 32:
                self.transport += 1

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("what", ["allowed-ips", "remove"])
def test_a_change_holds_from_the_answer_on(lab, what) -> None:
    """`wg set` returns under a flood of pings, and not one more goes where it went before."""
    left, right = make_ends(lab, "py", "py")
    connect(left, right)
    left.namespace.run("ping", "-c1", "-W20", right.inner[4])
    far = "10.88.0.1"
    peer = ("peer", right.public_key)
    left.wg("set", left.name, *peer, "allowed-ips", f"{right.allowed_ips()},{far}/32")
    left.namespace.ip(f"route add {far} dev {left.name}")
    outer = Outer(left)
    flood = left.namespace.start("ping", "-nq", "-i0.002", "-c1000", "-W1", far)
    assert wait_until(lambda: outer.read() > 100)
    change = ("allowed-ips", right.allowed_ips()) if what == "allowed-ips" else ("remove",)
    left.wg("set", left.name, *peer, *change)
    outer.mark(right.outer[4])
    assert flood.poll() is None, "the flood ended too soon to tell"
    flood.wait(30)
    assert outer.read() == outer.marked > 100
    outer.close()
