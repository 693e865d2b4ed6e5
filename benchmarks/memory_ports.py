"""A TUN device and a UDP socket in memory, for the batch path.

They return queued packets with one copy, as a system call would, and count what they get;
nothing is delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from wgpy.dataplane.offload import GSO_NONE, MAX_TRAIN, NO_OFFLOAD, VNET, VNET_SIZE, describe
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint

MOST = 64
"""Datagrams of one train, as long as it does not exceed what one UDP payload holds."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one UDP GRO receive gives: equal-sized datagrams, the last perhaps shorter."""

    data: bytes
    stride: int
    endpoint: Endpoint

    @property
    def size(self) -> int:
        return len(self.data)


class Tun:
    """Packets with virtio headers; `packets` and `writes` count what was delivered."""

    mtu = 1420
    udp_offload = True

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self._written: list[bytes] = []
        self.given_up: set[int] = set()

    def offer(self, packets: list[bytes]) -> None:
        """Finished packets, read one by one."""
        self.waiting.extend(NO_OFFLOAD + packet for packet in packets)

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
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
        self._written.append(bytes(view))
        return True

    def delivered(self) -> tuple[int, int]:
        """(Packets, writes) since the last call; a super-packet counts for all its segments."""
        written, self._written = self._written, []
        return sum(map(_segments, written)), len(written)


def _segments(written: bytes) -> int:
    vnet = VNET.unpack_from(written)
    if vnet[1] == GSO_NONE:
        return 1
    whole = describe(written[VNET_SIZE:], vnet)
    return 1 if whole is None else whole.segments


class Udp:
    """Trains; `datagrams` and `sends` count what was sent."""

    def __init__(self) -> None:
        self.waiting: deque[Arrival] = deque()
        self._datagrams = 0

    def arrive(self, datagrams: list[Datagram]) -> None:
        """Datagrams in the order given; equal neighbours of one source share a train."""
        run: list[bytes] = []
        source: Endpoint | None = None
        for data, endpoint in datagrams:
            full = bool(run) and (
                len(run) == MOST
                or len(run[-1]) < len(run[0])
                or (len(run) + 1) * len(run[0]) > MAX_TRAIN
            )
            if run and (full or endpoint != source or len(data) > len(run[0])):
                self._queue(run, source)
                run = []
            run.append(bytes(data))
            source = endpoint
        self._queue(run, source)

    def _queue(self, run: list[bytes], source: Endpoint | None) -> None:
        if run and source is not None:
            self.waiting.append(Arrival(b"".join(run), len(run[0]), source))

    def receive_train(self, _fd: int, buffer: bytearray, /) -> Arrival | None:
        if not self.waiting:
            return None
        train = self.waiting.popleft()
        buffer[: train.size] = train.data
        return train

    def send_train(self, train: memoryview, stride: int, _endpoint: Endpoint) -> int:
        self._datagrams += -(-len(train) // stride)
        return 0

    def sent(self) -> int:
        """Datagrams since the last call."""
        count, self._datagrams = self._datagrams, 0
        return count
