"""An engine behind the batch path of the data plane, with the surface of a bare engine.

So the property test demands of the batch path what it demands of the readable one: packets
and datagrams go through `BatchPath` on ports in memory, singly and in trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from wgpy.dataplane.offload import NO_OFFLOAD, VNET_SIZE
from wgpy.dataplane.pipeline import BatchPath
from wgpy.memory.batch import Arrival, BatchTun, BatchUdp
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import Device
from wgpy.protocol.drops import DropReason
from wgpy.protocol.engine import Engine
from wgpy.protocol.settings import DeviceChange
from wgpy.protocol.timers import Deadline


class FakeInterface:
    """What `BatchPath` needs of an interface; its clock is the test's."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.listeners: list[object] = []
        self.time = 0
        self.clock = self

    def now(self) -> int:
        return self.time

    def monotonic(self) -> int:
        return self.time


class BatchedEngine:
    """`Engine`'s surface over `BatchPath`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._interface = FakeInterface(engine)
        self._tun, self._udp = BatchTun(udp_offload=False), BatchUdp()
        self._path = BatchPath(self._interface, self._tun, self._udp)  # type: ignore[arg-type]

    @property
    def device(self) -> Device:
        return self._engine.device

    @property
    def drops(self) -> Mapping[DropReason, int]:
        return self._engine.drops

    def receive(self, datagrams: Iterable[Datagram], *, now: int) -> None:
        self._interface.time = now
        self._udp.arrive(datagrams)
        for _ in _while(self._udp.waiting):
            self._path.udp_ready(0)

    def send(self, packets: Iterable[bytes], *, now: int) -> None:
        self._interface.time = now
        packets = list(packets)
        assert all(len(packet) <= self._tun.mtu for packet in packets)
        self._tun.offer(packets)
        for _ in _while(self._tun.waiting):
            self._path.tun_ready()

    def handle_deadline(self, *, now: int) -> None:
        self._interface.time = now
        self._engine.handle_deadline(now=now)
        self._path.flush()

    def next_deadline(self) -> Deadline | None:
        return self._engine.next_deadline()

    def apply(self, change: DeviceChange, *, now: int) -> None:
        self._interface.time = now
        self._engine.apply(change, now=now)
        self._path.flush()

    def set_up(self, up: bool, *, now: int) -> None:
        self._interface.time = now
        self._engine.set_up(up, now=now)
        self._path.flush()

    def set_wall_clock(self, *, now: int, wall: int) -> None:
        self._engine.set_wall_clock(now=now, wall=wall)

    def pull_datagrams(self) -> list[Datagram]:
        return self._udp.take_sent()

    def pull_packets(self) -> list[bytes]:
        written = self._tun.take_written()
        assert all(data[:VNET_SIZE] == NO_OFFLOAD for data in written), "nothing here can be merged"
        return [data[VNET_SIZE:] for data in written]

    def pull_plaintext(self) -> list[bytes]:
        """The default policy lets nothing out; what the path writes is all `pull_packets`."""
        return self._engine.pull_plaintext()


def _while(waiting: deque[bytes] | deque[Arrival]) -> Iterator[None]:
    while waiting:
        before = len(waiting)
        yield
        assert len(waiting) < before, "a turn that takes nothing would never end"
