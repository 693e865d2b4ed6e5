"""The ports of the batch path in memory: a TUN device with virtio headers, UDP in trains.

They hand over what was queued with one copy, as a system call would, and keep what the path
writes and sends.  Nothing is delivered anywhere and no descriptor rings: whoever owns the
ports calls the path.  Packets in `waiting` and `written` stand behind their virtio headers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wgpy.dataplane.offload import MAX_SENT, MAX_TRAIN, NO_OFFLOAD
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one UDP GRO receive gives: equal-sized datagrams, the last perhaps shorter."""

    data: bytes
    stride: int
    endpoint: Endpoint

    @property
    def size(self) -> int:
        """Bytes of all datagrams."""
        return len(self.data)

    def messages(self) -> list[bytes]:
        """The datagrams one by one."""
        step = max(self.stride, 1)
        return [self.data[at : at + step] for at in range(0, max(self.size, 1), step)]


def arrivals(datagrams: Iterable[Datagram], most: int = MAX_SENT) -> Iterator[Arrival]:
    """Datagrams as UDP GRO hands them over: neighbours of one source and size share a train.

    A train has at most `most` datagrams and `MAX_TRAIN` bytes; its last may be shorter.
    """
    train: list[bytes] = []
    source: Endpoint | None = None
    for data, endpoint in datagrams:
        if source is not None and not (
            endpoint == source
            and len(train) < most
            and 0 < len(data) <= len(train[0]) == len(train[-1])
            and (len(train) + 1) * len(train[0]) <= MAX_TRAIN
        ):
            yield Arrival(b"".join(train), len(train[0]), source)
            train = []
        train.append(bytes(data))
        source = endpoint
    if source is not None:
        yield Arrival(b"".join(train), len(train[0]), source)


class BatchTun:
    """A TUN device: the host offers packets, the path reads and writes them."""

    def __init__(self, mtu: int = 1420, *, udp_offload: bool = True) -> None:
        """`udp_offload`: whether it takes USO super-packets."""
        self.mtu = mtu
        self.udp_offload = udp_offload
        self.given_up: set[int] = set()
        """IP protocols whose super-packets the device refuses."""
        self.waiting: deque[bytes] = deque()
        self.written: list[bytes] = []

    def offer(self, packets: Iterable[bytes]) -> None:
        """The host sends finished packets, read one by one."""
        self.waiting.extend(NO_OFFLOAD + packet for packet in packets)

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        """As `SuperTun.read_into`."""
        sizes: list[int] = []
        for view in views:
            if not self.waiting:
                break
            packet = self.waiting.popleft()
            view[: len(packet)] = packet
            sizes.append(len(packet))
            if len(packet) > large:
                break
        return sizes

    def write_from(self, view: memoryview) -> bool:
        """As `SuperTun.write_from`; nothing is refused."""
        self.written.append(bytes(view))
        return True

    def write(self, packets: Iterable[Buffer]) -> int:
        """As `TunPort.write`; nothing is refused."""
        self.written.extend(NO_OFFLOAD + packet for packet in packets)
        return 0

    def cap_super_packets(self) -> None:
        """Nothing to adapt: the host offers what it wants."""

    def take_written(self) -> list[bytes]:
        """What was written since the last call."""
        written, self.written = self.written, []
        return written


class BatchUdp:
    """A UDP socket: trains arrive, and the path sends trains and single datagrams."""

    def __init__(self) -> None:
        self.waiting: deque[Arrival] = deque()
        self.sent: list[Arrival] = []
        """What was sent, in order: each train or datagram is one of them."""
        self.refuse = False
        """While True the socket refuses everything."""

    def arrive(self, datagrams: Iterable[Datagram]) -> None:
        """Datagrams from the network, in the order given."""
        self.waiting.extend(arrivals(datagrams))

    def receive_train(self, _fd: int, buffer: memoryview, /) -> Arrival | None:
        """As `TrainSource.receive_train`."""
        if not self.waiting:
            return None
        train = self.waiting.popleft()
        buffer[: train.size] = train.data
        return train

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        """As `TrainSink.send_train`; ValueError for what one UDP GSO send cannot hold."""
        count = -(-len(train) // stride)
        if count > MAX_SENT or (count > 1 and len(train) > MAX_TRAIN):
            raise ValueError(f"{count} datagrams, {len(train)} bytes in one send")
        if self.refuse:
            return count
        self.sent.append(Arrival(bytes(train), stride, endpoint))
        return 0

    def send(self, datagrams: Iterable[Datagram]) -> int:
        """As `UdpPort.send`."""
        found = [Arrival(bytes(data), len(data), endpoint) for data, endpoint in datagrams]
        if self.refuse:
            return len(found)
        self.sent += found
        return 0

    def overflowed(self) -> int:
        """Nothing is lost."""
        return 0

    def handshakes_overflowed(self) -> int:
        """Nothing is lost."""
        return 0

    def take_sent(self) -> list[Datagram]:
        """The datagrams sent since the last call, one by one."""
        sent, self.sent = self.sent, []
        return [Datagram(data, one.endpoint) for one in sent for data in one.messages()]
