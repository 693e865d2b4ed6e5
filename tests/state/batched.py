"""An engine behind the batch path of the data plane, with the surface of a bare engine.

What the property test demands of the readable path it so demands of the fast one: packets
and datagrams go through `BatchPath` on imagined ports, singly and in trains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from wgpy.dataplane.offload import NO_OFFLOAD, VNET_SIZE
from wgpy.dataplane.pipeline import BatchPath
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import Device
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.engine import Engine
from wgpy.protocol.settings import DeviceChange
from wgpy.protocol.timers import Deadline


class FakeTun:
    """A TUN device with virtio headers, in memory."""

    udp_offload = False
    mtu = 1420

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.written: list[bytes] = []
        self.given_up: set[int] = set()

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        sizes = []
        for view in views:
            if not self.waiting:
                break
            packet = self.waiting.popleft()
            assert len(packet) + VNET_SIZE <= large
            whole = bytes(NO_OFFLOAD) + packet
            view[: len(whole)] = whole
            sizes.append(len(whole))
        return sizes

    def write_from(self, view: memoryview) -> bool:
        assert view[:VNET_SIZE] == NO_OFFLOAD, "nothing here can be merged"
        self.written.append(bytes(view[VNET_SIZE:]))
        return True

    def write(self, packets: Iterable[Buffer]) -> int:
        self.written += map(bytes, packets)
        return 0

    def cap_super_packets(self) -> None:
        """Nothing to adapt."""


@dataclass
class FakeTrain:
    size: int
    stride: int
    endpoint: Endpoint


class FakeUdp:
    """A UDP socket with segmentation, in memory."""

    def __init__(self) -> None:
        self.waiting: deque[Datagram] = deque()
        self.sent: list[Datagram] = []

    def receive_train(self, _fd: int, buffer: bytearray) -> FakeTrain | None:
        """As GRO: datagrams of one source and one size, the last perhaps shorter."""
        if not self.waiting:
            return None
        first = self.waiting.popleft()
        stride, parts = len(first.data), [bytes(first.data)]
        while self.waiting and len(parts[-1]) == stride:
            data, endpoint = self.waiting[0]
            if endpoint != first.endpoint or not 0 < len(data) <= stride:
                break
            parts.append(bytes(self.waiting.popleft().data))
        whole = b"".join(parts)
        buffer[: len(whole)] = whole
        return FakeTrain(len(whole), stride, first.endpoint)

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        for at in range(0, len(train), stride):
            self.sent.append(Datagram(bytes(train[at : at + stride]), endpoint))
        return 0

    def send(self, datagrams: Iterable[Datagram]) -> int:
        self.sent += [Datagram(bytes(data), endpoint) for data, endpoint in datagrams]
        return 0

    def overflowed(self) -> int:
        return 0

    def handshakes_overflowed(self) -> int:
        return 0


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
        self._tun, self._udp = FakeTun(), FakeUdp()
        self._path = BatchPath(self._interface, self._tun, self._udp)  # type: ignore[arg-type]

    @property
    def device(self) -> Device:
        return self._engine.device

    @property
    def drops(self) -> Mapping[DropReason, int]:
        return self._engine.drops

    def receive(self, datagrams: Iterable[Datagram], *, now: int) -> None:
        self._interface.time = now
        self._udp.waiting += datagrams
        for _ in _while(self._udp.waiting):
            self._path.udp_ready(0)

    def send(self, packets: Iterable[bytes], *, now: int) -> None:
        self._interface.time = now
        self._tun.waiting += packets
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
        sent, self._udp.sent = self._udp.sent, []
        return sent

    def pull_packets(self) -> list[bytes]:
        written, self._tun.written = self._tun.written, []
        return written

    def pull_plaintext(self) -> list[bytes]:
        """The default policy lets nothing out; what the path writes is all `pull_packets`."""
        return self._engine.pull_plaintext()


def _while(waiting: deque[object] | deque[bytes] | deque[Datagram]) -> Iterator[None]:
    while waiting:
        before = len(waiting)
        yield
        assert len(waiting) < before, "a turn that takes nothing would never end"
