"""Cutting: a super-packet from the TUN device becomes plaintexts of a train.

The payload is copied once, from the buffer it was read into to the rows of the train;
headers, lengths, checksums and padding are array operations over all rows
(`offload_headers`).  What is written is the plaintext of §5.4.6, zero-padded; headers of
the transport messages and sealing are `train`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from wgpy.dataplane.offload import (
    GSO_NONE,
    NEEDS_CSUM,
    VNET,
    VNET_SIZE,
    Shape,
    SuperPacket,
    complete_checksum,
    describe,
    stated_pseudo_sum,
)
from wgpy.dataplane.offload_headers import HeaderBlock, Payloads
from wgpy.dataplane.train import numpy_slab
from wgpy.dataplane.train_tools import Bytes, Column, Cut, Rows
from wgpy.protocol.constants import TRANSPORT_HEADER_SIZE as BODY
from wgpy.protocol.constants import TRANSPORT_OVERHEAD

_REMEMBERED: Final = 128


def cuts(super_packet: SuperPacket, capacity: int) -> Iterator[Cut]:
    """The super-packet in trains of at most `capacity` segments."""
    total = super_packet.segments
    for first in range(0, total, capacity):
        count = min(capacity, total - first)
        final = first + count == total
        last = super_packet.last if final else super_packet.width
        yield Cut(first, count, super_packet.width, last, final)


class _Frame:
    """Views of the plaintexts of a train, for one shape of headers, width and number."""

    __slots__ = ("headers", "padding", "payloads")

    def __init__(self, rows: Rows, shape: Shape, width: int, count: int) -> None:
        out, end = rows.bytes[:count], BODY + shape.length + width
        self.headers = HeaderBlock(out[:, BODY : BODY + shape.length], shape, width)
        self.payloads = Payloads(out[:, BODY + shape.length : end])
        self.padding = out[:, end : BODY + rows.plain] if end < BODY + rows.plain else None


class NumpySegmenter:
    """A `Segmenter` that cuts all segments at once, by array operations."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames: dict[tuple[int, Shape, int, int], _Frame] = {}

    def segment(
        self, rows: Rows, buffer: bytearray, start: int, super_packet: SuperPacket, cut: Cut
    ) -> None:
        """As `Segmenter.segment`; the room behind the super-packet is overwritten with zeros."""
        shape, width, count = super_packet.shape, cut.width, cut.segments
        body = start + shape.length + cut.first * width
        if cut.last < width:
            end = body + count * width
            missing = width - cut.last
            buffer[end - missing : end] = bytes(missing)
        frame = self._frame(rows, shape, width, count)
        frame.payloads.bytes[:] = np.ndarray((count, width), np.uint8, buffer, body)
        whole = bytes(buffer[start : start + shape.length])
        pseudo = stated_pseudo_sum(whole, shape, super_packet.size)
        frame.headers.write(whole, cut, frame.payloads.sums(), pseudo)
        if frame.padding is not None:
            frame.padding[:] = 0

    def gather(
        self, rows: Rows, buffer: bytearray, start: int, stride: int, count: int, size: int,
        checksum: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        """As `Segmenter.gather`."""
        packets: Bytes = np.ndarray((count, size), np.uint8, buffer, start, (stride, 1))
        out = rows.bytes[:count]
        out[:, BODY : BODY + size] = packets
        if size < rows.plain:
            out[:, BODY + size : BODY + rows.plain] = 0
        if checksum is not None:
            _complete_checksums(rows, count, size, *checksum)

    def _frame(self, rows: Rows, shape: Shape, width: int, count: int) -> _Frame:
        key = (rows.stride, shape, width, count)
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _REMEMBERED:
                del self._frames[next(iter(self._frames))]
            frame = self._frames[key] = _Frame(rows, shape, width, count)
        return frame


def all_equal(buffer: bytearray, start: int, stride: int, count: int, size: int) -> bool:
    """Whether the `size` bytes at `start` are the same at each of `count` steps of `stride`."""
    fields: Bytes = np.ndarray((count, size), np.uint8, buffer, start, (stride, 1))
    return fields.tobytes() == bytes(buffer[start : start + size]) * count


def _complete_checksums(rows: Rows, count: int, size: int, start: int, offset: int) -> None:
    sums = Payloads(rows.bytes[:count, BODY + start : BODY + size]).sums()
    result = (np.uint32(65_535 * 65_535) - sums) % np.uint32(65_535)
    if offset == 6:
        result[result == 0] = 0xFFFF  # RFC 768, as `complete_checksum`
    field: Column = np.ndarray(
        (count,), "<u2", rows.bytes, BODY + start + offset, (rows.stride,)
    )
    field[:] = result


class Splitter:
    """Turns what a TUN read returned into whole packets, as bytes."""

    __slots__ = ("_segmenter", "_slab")

    def __init__(self) -> None:
        self._slab = numpy_slab()
        self._segmenter = NumpySegmenter()

    def packets(self, buffer: bytearray, start: int, size: int) -> list[bytes]:
        """The packets of `size` bytes at `start`, whose virtio header lies before them.

        `buffer` has room as `Segmenter.segment` wants it.  A header that contradicts its
        packet is not followed: the packet comes out as it is, for the engine to judge.
        """
        vnet = VNET.unpack_from(buffer, start - VNET_SIZE)
        packet = memoryview(buffer)[start : start + size]
        if vnet[1] == GSO_NONE:
            if vnet[0] & NEEDS_CSUM:
                complete_checksum(packet, vnet[4], vnet[5])
            return [bytes(packet)]
        super_packet = describe(packet, vnet)
        if super_packet is None:
            return [bytes(packet)]
        header = super_packet.shape.length
        rows = self._slab.rows(header + super_packet.width + TRANSPORT_OVERHEAD)
        made: list[bytes] = []
        for cut in cuts(super_packet, rows.capacity):
            self._segmenter.segment(rows, buffer, start, super_packet, cut)
            made += map(bytes, rows.plaintexts[: cut.segments - 1])
            made.append(bytes(rows.plaintexts[cut.segments - 1][: header + cut.last]))
        return made
