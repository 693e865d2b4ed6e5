"""The compiled implementation of the protocols in `wgpy.dataplane.train_tools`.

Bounds are checked here, or by the geometry that a slab makes, before an address reaches
compiled code.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from wgpy.dataplane.offload import MAX_MESSAGES, MAX_PACKET, TCP, VNET_SIZE, SuperPacket
from wgpy.dataplane.train import Geometry
from wgpy.dataplane.train_tools import Bytes, Cut, Rows, Slab, Tools
from wgpy.protocol.crypto.openssl import OpenSslAead, OpenSslCrypto
from wgpy.turbo import aead, frames


class TurboAead(OpenSslAead):
    """Keeps its key for compiled code; the key is never shown."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.key: Final = np.frombuffer(key, np.uint8)


class TurboCrypto(OpenSslCrypto):
    """The openssl backend; whole trains are sealed and opened by compiled code."""

    __slots__ = ()

    def aead(self, key: bytes) -> TurboAead:
        """ChaCha20-Poly1305 under `key`."""
        return TurboAead(key)


def _key(aead_: OpenSslAead) -> Bytes:
    """The key for compiled code, which only the AEADs of `TurboCrypto` keep."""
    if isinstance(aead_, TurboAead):
        return aead_.key
    raise TypeError("compiled rows need an AEAD of TurboCrypto")


class TurboRows(Geometry):
    """`Rows` that seal and open a train in one call."""

    __slots__ = ("_good",)

    def __init__(self, buffer: bytearray, view: memoryview, stride: int) -> None:
        super().__init__(buffer, view, stride)
        self._good = np.ones(MAX_MESSAGES, np.bool_)

    def seal(
        self, aead_: OpenSslAead, count: int, last: int, index: int, counter: int
    ) -> memoryview:
        """As `Rows.seal`."""
        if not (0 < count <= self.room and 0 <= last <= self.plain):
            raise ValueError(f"{count} messages, the last of {last} bytes")
        aead.seal(self.flat, self.stride, count, last, index, np.uint64(counter), _key(aead_))
        return self.train(count, last)

    def ascending(self, first: int, count: int) -> bool:
        """As `Rows.ascending`."""
        return bool(aead.ascend(self.flat, self.stride, first, count))

    def open(self, aead_: OpenSslAead, first: int, count: int, last: int) -> list[int]:
        """As `Rows.open`."""
        if not (first >= 0 < count and first + count <= self.room and 0 <= last <= self.plain):
            raise ValueError(f"{count} messages from {first}, the last of {last} bytes")
        good = self._good
        if aead.open_(self.flat, self.stride, first, count, last, _key(aead_), good):
            return []
        return (first + np.flatnonzero(~good[:count])).tolist()


def turbo_slab() -> Slab:
    """A slab of `TurboRows`."""
    return Slab(TurboRows)


class TurboSegmenter:
    """A `Segmenter` that goes segment by segment."""

    __slots__ = ("_array", "_buffer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._array: Bytes = np.empty(0, np.uint8)

    def segment(
        self, rows: Rows, buffer: bytearray, start: int, super_packet: SuperPacket, cut: Cut
    ) -> None:
        """As `Segmenter.segment`, without writing to `buffer`."""
        shape = super_packet.shape
        size = shape.length + (cut.first + cut.segments - 1) * cut.width + cut.last
        if not (
            0 <= start <= len(buffer) - size
            and 0 < cut.last <= cut.width
            and 0 < cut.segments <= rows.room
            and shape.length + cut.width <= rows.plain
        ):
            raise ValueError(f"{cut} of {super_packet} at {start}")
        frames.cut(
            self._seen(buffer), start, super_packet.size,
            shape.l4, shape.length, shape.protocol == TCP,
            cut.first, cut.segments, cut.width, cut.last, cut.final,
            rows.flat, rows.stride,
        )  # fmt: skip

    def gather(
        self, rows: Rows, buffer: bytearray, start: int, stride: int, count: int, size: int,
        checksum: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        """As `Segmenter.gather`."""
        l4, offset = checksum or (0, 0)
        if not (
            0 <= start <= len(buffer) - size - (count - 1) * stride
            and 0 < count <= rows.room
            and 0 <= l4 <= l4 + offset + 2 <= size <= rows.plain
        ):
            raise ValueError(f"{count} packets of {size} bytes at {start}, checksum {checksum}")
        frames.gather(
            self._seen(buffer), start, stride, count, size,
            l4, l4 + offset, rows.flat, rows.stride,
        )  # fmt: skip

    def _seen(self, buffer: bytearray) -> Bytes:
        """The buffer as an array; most users have only one."""
        if buffer is not self._buffer:
            self._buffer, self._array = buffer, np.frombuffer(buffer, np.uint8)
        return self._array


class TurboMerger:
    """A `Merger` that looks segment by segment and joins what fits as it goes."""

    __slots__ = ("_array", "_udp", "_view")

    def __init__(self, *, udp: bool) -> None:
        """`udp`: the device takes USO super-packets."""
        self._udp = udp
        out = bytearray(VNET_SIZE + 2 * MAX_PACKET)
        self._view = memoryview(out)
        self._array: Bytes = np.frombuffer(out, np.uint8)

    def merge(
        self, rows: Rows, first: int, count: int, last: int
    ) -> tuple[int, memoryview | None]:
        """As `Merger.merge`."""
        if not (first >= 0 < count and first + count <= rows.room and 0 <= last <= rows.plain):
            raise ValueError(f"{count} messages from {first}, the last of {last} bytes")
        used, size = frames.merge(
            rows.flat, rows.stride, first, count, last, self._udp, self._array
        )
        return (used, self._view[:size]) if used else (1, None)


TURBO: Final = Tools(turbo_slab, TurboSegmenter, TurboMerger)
