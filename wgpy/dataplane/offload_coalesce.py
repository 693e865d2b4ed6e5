"""Merging: consecutive segments of one flow, opened from a train, become one TUN write.

The rule is exactness.  Segments are merged if, and only if, cutting the super-packet
restores every one of them byte for byte: `HeaderBlock.write` says what the headers would be,
and they are compared with the headers that came, checksums included.  So a wrong
checksum, a gap, a reordering, another option, window, TTL or ECN mark, or an
identification that does not count up is never hidden: such a packet is delivered alone.

Some packets are never merged although they would pass: fragments, IPv4 options, IPv6
extension headers, TCP without ACK or with SYN, RST, URG or CWR, UDP without a checksum.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from wgpy.dataplane.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    MAX_PACKET,
    NEEDS_CSUM,
    TCP,
    TCP_ACK,
    TCP_CWR,
    TCP_FIN,
    TCP_PSH,
    TCP_RST,
    TCP_SYN,
    TCP_URG,
    UDP,
    VNET,
    VNET_SIZE,
    Shape,
    pseudo_sum,
)
from wgpy.dataplane.offload_headers import HeaderBlock, Payloads, merged_headers
from wgpy.dataplane.train_tools import Bytes, Cut, Rows
from wgpy.protocol.constants import TRANSPORT_HEADER_SIZE as BODY

ODD_FLAGS: Final = TCP_SYN | TCP_RST | TCP_URG | TCP_CWR
MORE_OR_OFFSET: Final = 0xBFFF
"""IPv4 flags and fragment offset without DF; the reserved bit counts as odd."""

_REMEMBERED: Final = 128
_PATIENCE: Final = 3
"""Failed comparisons after which the rest of a train is delivered unmerged."""


class Candidate(NamedTuple):
    """A segment that may begin a super-packet, and its payload in bytes."""

    shape: Shape
    payload: int


def examine(packet: memoryview) -> Candidate | None:
    """Whether an opened packet (padding included) may be merged with its successors."""
    first = packet[0]
    if first == 0x45:
        if len(packet) < 28 or (packet[6] << 8 | packet[7]) & MORE_OR_OFFSET:
            return None
        l4, protocol, size = 20, packet[9], packet[2] << 8 | packet[3]
    elif first >> 4 == 6 and len(packet) >= 48:
        l4, protocol, size = 40, packet[6], 40 + (packet[4] << 8 | packet[5])
    else:
        return None
    if protocol == TCP:
        if size < l4 + 20 or size > len(packet):
            return None
        flags, length = packet[l4 + 13], l4 + (packet[l4 + 12] >> 4) * 4
        if flags & ODD_FLAGS or not flags & TCP_ACK or length < l4 + 20:
            return None
    elif protocol == UDP:
        length = l4 + 8
    else:
        return None
    if not length < size <= len(packet):
        return None
    return Candidate(Shape(first >> 4, protocol, l4, length), size - length)


class _Frame:
    """Views of consecutive opened messages, for one shape of headers, width and number."""

    __slots__ = ("_joined", "came", "expected", "headers", "payloads")

    def __init__(
        self, rows: Rows, first: int, count: int, shape: Shape, width: int, out: bytearray
    ) -> None:
        messages, body = rows.bytes[first : first + count], BODY + shape.length
        self.came = messages[:, BODY:body]
        self.expected: Bytes = np.empty((count, shape.length), np.uint8)
        self.headers = HeaderBlock(self.expected, shape, width)
        self.payloads = Payloads(messages[:, body : body + width])
        self._joined: Bytes = np.ndarray(
            (count, width), np.uint8, out, VNET_SIZE + shape.length
        )

    def join(self, full: int) -> None:
        """Copy the first `full` payloads behind each other, to where they are written from."""
        if full == len(self._joined):
            self._joined[:] = self.payloads.bytes
        else:
            self._joined[:full] = self.payloads.bytes[:full]


class NumpyMerger:
    """A `Merger` that compares all headers at once, by array operations."""

    __slots__ = ("_frame", "_frames", "_out", "_patience", "_view", "udp")

    def __init__(self, *, udp: bool) -> None:
        """`udp`: the device takes USO super-packets."""
        self.udp = udp
        self._patience = _PATIENCE
        self._frame: _Frame
        self._frames: dict[tuple[int, Shape, int, int], _Frame] = {}
        # Room for a short last segment as if it were whole.
        self._out = bytearray(VNET_SIZE + 2 * MAX_PACKET)
        self._view = memoryview(self._out)

    def merge(
        self, rows: Rows, first: int, count: int, last: int
    ) -> tuple[int, memoryview | None]:
        """As `Merger.merge`."""
        if first == 0:
            self._patience = _PATIENCE
        candidate = examine(rows.plaintexts[first]) if count > 1 else None
        if candidate is None or (candidate.shape.protocol == UDP and not self.udp):
            return 1, None
        shape, width = candidate
        count = min(count, (MAX_PACKET - shape.length) // width)
        if count < 2 or not _same_flow(rows, first, shape) or _ends(rows, first, shape):
            return 1, None
        cut = self._fit(rows, first, count, last, candidate)
        if cut is not None:
            return cut.segments, self._build(rows, first, shape, cut)
        # Nothing follows it.  That may hold for the whole train (say, a constant
        # identification), and comparing costs time.
        self._patience -= 1
        return (1 if self._patience > 0 else count), None

    def _fit(
        self, rows: Rows, first: int, count: int, last: int, candidate: Candidate
    ) -> Cut | None:
        """The longest beginning, of at least two, that cutting would restore exactly."""
        cut = _cut(rows, first, count, last, candidate)
        if cut is None:
            return None
        good = self._restored(rows, first, candidate, cut)
        if 1 <= good < cut.segments:
            # What breaks the pattern may be the end of this super-packet: short, or PSH.
            size = last if good + 1 == count else rows.plain
            cut = _cut(rows, first, good + 1, size, candidate) or cut
            good = self._restored(rows, first, candidate, cut)
        if good == cut.segments:
            return cut
        return Cut(0, good, cut.width, cut.width, True) if good > 1 else None

    def _restored(self, rows: Rows, first: int, candidate: Candidate, cut: Cut) -> int:
        """How many leading segments come out of cutting exactly as they came in."""
        shape, width = candidate
        whole = _whole(rows, first, cut.segments, shape)
        frame = self._frame = self._find_frame(rows, first, cut.segments, shape, width)
        if cut.last < width:
            # Behind its end, where nothing is read any more.
            frame.payloads.bytes[-1, cut.last :] = 0
        pseudo = pseudo_sum(whole, shape)
        frame.headers.write(whole, cut, frame.payloads.sums(), pseudo)
        if frame.expected.tobytes() == frame.came.tobytes():
            return cut.segments
        return int((frame.expected != frame.came).any(axis=1).argmax())

    def _build(self, rows: Rows, first: int, shape: Shape, cut: Cut) -> memoryview:
        """Build the super-packet from segments that passed `_fit`."""
        size = (cut.segments - 1) * cut.width + cut.last
        start = VNET_SIZE + shape.length
        out, tcp = self._out, shape.protocol == TCP
        kind = (GSO_TCPV4 if shape.version == 4 else GSO_TCPV6) if tcp else GSO_UDP_L4
        offset = 16 if tcp else 6
        VNET.pack_into(out, 0, NEEDS_CSUM, kind, shape.length, cut.width, shape.l4, offset)
        whole = _whole(rows, first, cut.segments, shape)
        out[VNET_SIZE:start] = merged_headers(whole, shape, size)
        self._join(rows, first, shape, cut)
        return self._view[: start + size]

    def _join(self, rows: Rows, first: int, shape: Shape, cut: Cut) -> None:
        """Put the payloads behind each other; the frame last used has these or more."""
        full = cut.segments - (cut.last != cut.width)
        self._frame.join(full)
        if full < cut.segments:
            packet = rows.plaintexts[first + full]
            at = VNET_SIZE + shape.length + full * cut.width
            self._out[at : at + cut.last] = packet[shape.length : shape.length + cut.last]

    def _find_frame(self, rows: Rows, first: int, count: int, shape: Shape, width: int) -> _Frame:
        if first:
            return _Frame(rows, first, count, shape, width, self._out)
        key = (rows.stride, shape, width, count)
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _REMEMBERED:
                del self._frames[next(iter(self._frames))]
            frame = self._frames[key] = _Frame(rows, 0, count, shape, width, self._out)
        return frame


def _ends(rows: Rows, first: int, shape: Shape) -> bool:
    """FIN or PSH: the first segment is also the last."""
    flags = shape.l4 + 13
    return shape.protocol == TCP and bool(rows.plaintexts[first][flags] & (TCP_FIN | TCP_PSH))


def _cut(rows: Rows, first: int, count: int, last: int, candidate: Candidate) -> Cut | None:
    """`count` messages as a cut; one less when the last one cannot be part of it."""
    width = candidate.payload
    # Examined in full, because what lies behind its end is about to be overwritten.
    end = examine(rows.plaintexts[first + count - 1][:last])
    if end and end.shape == candidate.shape and end.payload <= width:
        return Cut(0, count, width, end.payload, True)
    return Cut(0, count - 1, width, width, True) if count > 2 else None


def _whole(rows: Rows, first: int, count: int, shape: Shape) -> bytes:
    """The first headers, with the flags that the last segment adds."""
    headers = bytearray(rows.plaintexts[first][: shape.length])
    if shape.protocol == TCP:
        flags = shape.l4 + 13
        headers[flags] |= rows.plaintexts[first + count - 1][flags] & (TCP_FIN | TCP_PSH)
    return bytes(headers)


def _same_flow(rows: Rows, first: int, shape: Shape) -> bool:
    """Whether addresses and ports of the second message are the first one's."""
    start, end = (12, 24) if shape.version == 4 else (8, 44)
    a, b = rows.plaintexts[first], rows.plaintexts[first + 1]
    return a[start:end] == b[start:end]
