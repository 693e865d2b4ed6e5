"""The two edges behind one test interface: Linux in namespaces, and memory.

A `TunEdge` is a device with the host's side of it; a `UdpEdge` is two hosts, the left
one with two addresses of each family.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tests.support.netns import Lab, Namespace
from wgpy.dataplane.ports import TunPort, UdpPort
from wgpy.linux.tun import LinuxTun
from wgpy.linux.udp import LinuxUdp
from wgpy.memory.ports import MemoryTun, Network

LEFT = ("192.0.2.1", "192.0.2.11", "2001:db8::1", "2001:db8::11")
RIGHT = ("192.0.2.2", "2001:db8::2")
ETH_P_IP, ETH_P_IPV6, ETH_P_ALL = 0x0800, 0x86DD, 3


def ready(fd: int, seconds: float = 5) -> bool:
    """Whether `fd` is readable within some seconds."""
    return bool(select.select([fd], [], [], seconds)[0])


@contextlib.contextmanager
def only_holder(home: Namespace) -> Iterator[subprocess.Popen[str]]:
    """The only process in a network namespace: that ends with it, for nothing else pins it."""
    command = home.command("unshare", "--net", "sh", "-c", "echo ready && exec sleep 60")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        try:
            yield holder
        finally:
            holder.kill()


class TunEdge(Protocol):
    tun: TunPort

    def inject(self, *packets: bytes) -> None: ...
    def delivered(self, count: int) -> list[bytes]: ...
    def down(self) -> None: ...
    def delete(self) -> None: ...


class MemoryTunEdge:
    def __init__(self) -> None:
        self.tun = MemoryTun(mtu=9000)
        self.inject = self.tun.inject
        self.delete = self.tun.delete

    def delivered(self, _count: int) -> list[bytes]:
        return self.tun.delivered

    def down(self) -> None:
        self.tun.up = False


class LinuxTunEdge:
    """The host's side is a packet socket on the device: all that passes, as it passes."""

    def __init__(self, lab: Lab, device: type[LinuxTun] = LinuxTun) -> None:
        self._namespace = lab.namespace("tun")
        name = lab.interface()
        with self._namespace.entered():
            self.tun = device(name, mtu=9000)
            self._namespace.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
            self._namespace.ip(f"link set {name} up")
            self._host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._host.bind((name, ETH_P_ALL))
            self._host.settimeout(5)

    def inject(self, *packets: bytes) -> None:
        for packet in packets:
            kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
            self._host.sendto(packet, (self.tun.name, kind))

    def delivered(self, count: int) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < count:
            packet, address = self._host.recvfrom(65535)
            if address[2] != socket.PACKET_OUTGOING:
                packets.append(packet)
        return packets

    def down(self) -> None:
        self._namespace.ip(f"link set {self.tun.name} down")

    def delete(self) -> None:
        self._namespace.ip(f"link delete {self.tun.name}")

    def close(self) -> None:
        self._host.close()


class UdpEdge(Protocol):
    left: Callable[[], UdpPort]
    right: Callable[[], UdpPort]

    def lose(self, address: str) -> None:
        """The left host loses an address."""


class MemoryUdpEdge:
    def __init__(self) -> None:
        network = Network()
        self._left = network.host(*LEFT)
        self.left = self._left.udp
        self.right = network.host(*RIGHT).udp

    def lose(self, address: str) -> None:
        self._left.remove_address(address)


class LinuxUdpEdge:
    def __init__(self, lab: Lab, port: type[LinuxUdp] = LinuxUdp) -> None:
        self._left, self._right = lab.namespace("left"), lab.namespace("right")
        self._device, _ = lab.veth(
            self._left,
            self._right,
            " ".join(f"{a}/{64 if ':' in a else 24}" for a in LEFT),
            " ".join(f"{a}/{64 if ':' in a else 24}" for a in RIGHT),
        )
        self.left = lambda: Inside(self._left, port())
        self.right = lambda: Inside(self._right, port())

    def lose(self, address: str) -> None:
        length = 64 if ":" in address else 24
        # Deleting a primary address would take the secondary ones along.
        subprocess.run(
            self._left.command("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1"),
            check=True,
        )
        self._left.ip(f"address delete {address}/{length} dev {self._device}")


class Inside:
    """A port whose sockets are made in a namespace."""

    def __init__(self, namespace: Namespace, port: LinuxUdp) -> None:
        self._namespace = namespace
        self._port = port

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if not callable(value):
            return value

        def inside(*arguments: Any) -> Any:
            with self._namespace.entered():
                return value(*arguments)

        return inside
