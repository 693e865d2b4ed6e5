"""The ports in memory: a TUN device, UDP sockets on an imagined network, a clock.

Counterparts of `wgpy.linux`: the same contract tests run on both, and `wgpy.dataplane` runs
on either (each has a descriptor that is readable while something waits).  The network is
perfect; loss, delay and NAT are `wgpy.sim`'s.

    network = Network()
    left = network.host("192.0.2.1", "2001:db8::1")
    udp = left.udp(); udp.rebind(51820)
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable, Sequence

from wgpy.dataplane.ports import DeviceGone
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, parse_address

MAX_DATAGRAM = 65507
FIRST_EPHEMERAL = 32768
INTERFACE = 1


class ManualClock:
    """A clock that moves when told; both times in ns."""

    def __init__(self, monotonic: int = 0, wall: int = 1_600_000_000 * 10**9) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> int:
        return self._monotonic

    def wall(self) -> int:
        return self._wall

    def advance(self, ns: int) -> None:
        """Both clocks go on by `ns`."""
        self._monotonic += ns
        self._wall += ns

    def step_wall(self, ns: int) -> None:
        """Only the wall clock jumps."""
        self._wall += ns


class _Bell:
    """A descriptor that is readable while it rings."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = False

    def fileno(self) -> int:
        return self._fd

    def set(self, ringing: bool) -> None:
        if ringing and not self._rings:
            os.eventfd_write(self._fd, 1)
        elif self._rings and not ringing:
            os.eventfd_read(self._fd)
        self._rings = ringing

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MemoryTun:
    """A `TunPort`; the host's side of it is `inject`, `delivered` and `delete`."""

    def __init__(self, name: str = "wg0", mtu: int = 1420) -> None:
        self.name = name
        self.mtu = mtu
        self.delivered: list[bytes] = []
        self.up = True
        """While False the device refuses packets."""
        self._waiting: deque[bytes] = deque()
        self._bell = _Bell()
        self._gone = False

    def inject(self, *packets: bytes) -> None:
        """The host sends packets into the device."""
        self._waiting.extend(packets)
        self._bell.set(True)

    def delete(self) -> None:
        """The host deletes the device."""
        self._gone = True
        self._bell.set(True)

    def fileno(self) -> int:
        return self._bell.fileno()

    def read(self, limit: int) -> list[bytes]:
        if self._gone:
            raise DeviceGone
        packets = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        self._bell.set(bool(self._waiting))
        return packets

    def write(self, packets: Iterable[Buffer]) -> int:
        refused = 0
        for packet in packets:
            data = bytes(packet)
            if self._gone or not self.up or not data or data[0] >> 4 not in (4, 6):
                refused += 1
            else:
                self.delivered.append(data)
        return refused

    def close(self) -> None:
        self._gone = True
        self._bell.close()


class Network:
    """Joins hosts; every host reaches every other at once and without loss."""

    def __init__(self) -> None:
        self.hosts: dict[bytes, Host] = {}

    def host(self, *addresses: str) -> Host:
        """A new host that has these addresses."""
        host = Host(self)
        for address in addresses:
            host.add_address(address)
        return host


class Host:
    """A host's addresses and bound ports."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._addresses: list[bytes] = []
        self.bound: dict[int, MemoryUdp] = {}

    def add_address(self, address: str) -> None:
        """`address` is this host's now, whoever had it before."""
        packed = parse_address(address)
        self._addresses.append(packed)
        self._network.hosts[packed] = self

    def remove_address(self, address: str) -> None:
        """The host loses `address`."""
        packed = parse_address(address)
        self._addresses.remove(packed)
        del self._network.hosts[packed]

    def udp(self) -> MemoryUdp:
        """A closed `UdpPort`."""
        return MemoryUdp(self)

    def source(self, towards: Endpoint) -> bytes | None:
        """The address to send from; None if the host has none of that family."""
        if towards.local_ip in self._addresses:
            return towards.local_ip
        return next((a for a in self._addresses if len(a) == len(towards.ip)), None)

    def peer(self, ip: bytes) -> Host | None:
        """The host that has `ip`."""
        return self._network.hosts.get(ip)

    def free_port(self) -> int:
        """A port that is not bound on this host."""
        return next(port for port in range(FIRST_EPHEMERAL, 65536) if port not in self.bound)


class MemoryUdp:
    """A `UdpPort` of a `Host`."""

    def __init__(self, host: Host) -> None:
        self.port = 0
        self.mark = 0
        self._host = host
        self._waiting: deque[Datagram] = deque()
        self._bell: _Bell | None = None

    def filenos(self) -> Sequence[int]:
        return [self._bell.fileno()] if self._bell else []

    def handshake_filenos(self) -> Sequence[int]:
        return ()

    def handshake_backlog(self) -> float:
        return 0.0

    def rebind(self, port: int) -> None:
        if port and port == self.port and self._bell:
            return
        self._refuse_used(port)
        self.close()
        self.port = port or self._host.free_port()
        self._host.bound[self.port] = self
        self._bell = _Bell()

    def probe(self, port: int) -> None:
        self._refuse_used(port)
        self.port = port

    def set_mark(self, mark: int) -> None:
        self.mark = mark

    def receive(self, limit: int) -> list[Datagram]:
        received = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if self._bell:
            self._bell.set(bool(self._waiting))
        return received

    def send(self, datagrams: Iterable[Datagram]) -> int:
        return sum(not self._send_one(datagram) for datagram in datagrams)

    def close(self) -> None:
        if self._bell:
            del self._host.bound[self.port]
            self._bell.close()
            self._bell = None
            self._waiting.clear()

    def _refuse_used(self, port: int) -> None:
        if port and self._host.bound.get(port, self) is not self:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def _send_one(self, datagram: Datagram) -> bool:
        source = self._host.source(datagram.endpoint)
        if source is None or not self._bell or len(datagram.data) > MAX_DATAGRAM:
            return False
        host = self._host.peer(datagram.endpoint.ip)
        receiver = host.bound.get(datagram.endpoint.port) if host else None
        if receiver is not None:  # As with real UDP, a missing receiver is not an error.
            seen = Endpoint(source, self.port, 0, datagram.endpoint.ip, INTERFACE)
            receiver.arrive(Datagram(bytes(datagram.data), seen))
        return True

    def arrive(self, datagram: Datagram) -> None:
        """The network delivers a datagram."""
        self._waiting.append(datagram)
        if self._bell:
            self._bell.set(True)
