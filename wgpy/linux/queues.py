"""The ports of an interface that several processes share (`wgpy.linux.workers`).

What the owner writes to a queue of the TUN device decides which queue the flow's answers
come from (the kernel remembers it), so it writes to the senders' queues and keeps its own
for flows that nobody answers.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pytun

from wgpy.dataplane.offload import NO_OFFLOAD, VNET_SIZE
from wgpy.linux.gso import GsoUdp
from wgpy.linux.tun import DEFAULT_MTU, TunError
from wgpy.linux.vnet import VnetTun
from wgpy.protocol.policy import Buffer

_ADDRESSES_AND_PORTS: Final = {4: slice(12, 24), 6: slice(8, 44)}
_NOTHING: Final = slice(0)


class SharedTun(VnetTun):
    """A TUN device with a queue for each process; what arrives is written to the senders'."""

    def __init__(self, name: str, workers: int, *, mtu: int = DEFAULT_MTU) -> None:
        """As `VnetTun`."""
        super().__init__(name, flags=pytun.IFF_MULTI_QUEUE, mtu=mtu)
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR | pytun.IFF_MULTI_QUEUE
        self._others = []
        try:
            for _ in range(workers - 1):
                self._others.append(pytun.TunTapDevice(name=self.name, flags=flags))
        except (pytun.Error, OSError) as error:
            self.close()
            raise TunError(f"cannot make a queue of {name}: {error}") from error
        self.queues: list[int] = [other.fileno() for other in self._others]
        """Descriptors of the senders' queues."""
        for fd in self.queues:
            os.set_blocking(fd, False)
        self.before_close: Callable[[], None] = lambda: None
        self.before_write: Callable[[], None] = lambda: None

    def _queue_for(self, packet: Buffer) -> int:
        """The same for all packets of a flow: by addresses and, usually, ports."""
        queues = self.queues
        if len(queues) == 1:
            return queues[0]
        part = _ADDRESSES_AND_PORTS.get(packet[0] >> 4 if packet else 0, _NOTHING)
        return queues[sum(packet[part]) % len(queues)]

    def write_from(self, view: memoryview) -> bool:
        """As `VnetTun.write_from`."""
        self.before_write()
        try:
            os.write(self._queue_for(view[VNET_SIZE:]), view)
        except OSError:
            return False
        return True

    def write(self, packets: Iterable[Buffer]) -> int:
        """As `VnetTun.write`."""
        self.before_write()
        refused = 0
        for packet in packets:
            try:
                os.writev(self._queue_for(packet), (NO_OFFLOAD, packet))
            except OSError:
                refused += 1
        return refused

    def close(self) -> None:
        """As `LinuxTun.close`."""
        if self._fd >= 0:
            with contextlib.suppress(AttributeError):
                self.before_close()
            for other in self._others:
                other.close()
        super().close()


class SharedUdp(GsoUdp):
    """UDP whose sockets other processes hold too: they hear of it before one is closed."""

    def __init__(self, *, report: Callable[[str], None]) -> None:
        super().__init__(report=report)
        self.share: Callable[[Sequence[socket.socket]], None] = lambda _: None

    def rebind(self, port: int) -> None:
        """As `GsoUdp.rebind`."""
        before = self._sockets
        super().rebind(port)
        if self._sockets is not before:
            self.share(self._sockets)

    def close(self) -> None:
        """As `GsoUdp.close`."""
        if self._sockets:
            self.share(())
        super().close()

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """Those that are open."""
        return self._sockets
