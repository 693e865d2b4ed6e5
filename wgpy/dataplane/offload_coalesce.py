"""Merging: consecutive segments of one flow, opened from a train, become one TUN write.

The rule is exactness.  Segments are merged if, and only if, cutting the super-packet
restores every one of them byte for byte: `Stencil.write` says what the headers would be,
and they are compared with the headers that came, checksums included.  So a wrong
checksum, a gap, a reordering, another option, window, TTL or ECN mark, or an
identification that does not count up is never smoothed over: such a packet goes out alone.

Some packets are never merged although they would pass: fragments, IPv4 options, IPv6
extension headers, TCP without ACK or with SYN, RST, URG or CWR, UDP without a checksum.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from wgpy.dataplane.batch import Bytes, Rows
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
from wgpy.dataplane.offload_headers import Cut, merged_headers, row_sums
from wgpy.dataplane.offload_segment import Stencils
from wgpy.protocol.constants import TRANSPORT_HEADER_SIZE as BODY

_ODD_FLAGS: Final = TCP_SYN | TCP_RST | TCP_URG | TCP_CWR
_MORE_OR_OFFSET: Final = 0xBFFF
"""IPv4 flags and fragment offset without DF; the reserved bit counts as odd."""

_PATIENCE: Final = 3
"""Fruitless comparisons after which the rest of a train goes out as it is."""


class Candidate(NamedTuple):
    """A segment that may begin a super-packet, and its payload in bytes."""

    shape: Shape
    payload: int


def examine(packet: memoryview) -> Candidate | None:
    """Whether an opened packet (padding included) may be merged with its successors."""
    first = packet[0]
    if first == 0x45:
        if len(packet) < 28 or (packet[6] << 8 | packet[7]) & _MORE_OR_OFFSET:
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
        if flags & _ODD_FLAGS or not flags & TCP_ACK or length < l4 + 20:
            return None
    elif protocol == UDP:
        length = l4 + 8
    else:
        return None
    if not length < size <= len(packet):
        return None
    return Candidate(Shape(first >> 4, protocol, l4, length), size - length)


class Merger:
    """Merges runs of a train; owns the buffer in which super-packets are put together."""

    __slots__ = ("_out", "_patience", "_stencils", "_view", "udp")

    def __init__(self, *, udp: bool) -> None:
        """`udp`: the device takes USO super-packets."""
        self.udp = udp
        self._patience = _PATIENCE
        self._stencils = Stencils()
        self._out = bytearray(VNET_SIZE + MAX_PACKET)
        self._view = memoryview(self._out)

    def merge(
        self, rows: Rows, first: int, count: int, last: int
    ) -> tuple[int, memoryview | None]:
        """Merge as many of the `count` opened messages from `first` on as belong together.

        `last` is the plaintext size of the last one; all others fill their rows.  Returns
        how many were dealt with, and the super-packet behind its virtio header (valid
        until the next call), or None: deliver these as they are.
        """
        if first == 0:
            self._patience = _PATIENCE
        candidate = examine(rows.plaintexts[first]) if count > 1 else None
        if candidate is None or (candidate.shape.protocol == UDP and not self.udp):
            return 1, None
        shape, width = candidate
        count = min(count, (MAX_PACKET - shape.length) // width)
        if count < 2 or not _same_flow(rows, first, shape):
            return 1, None
        run = _Run(rows, first, shape, width)
        if run.rows.plain < shape.length + width or run.ends_at_once():
            return 1, None
        cut = run.cut(count, last)
        if cut is None:
            return 1, None
        good = self._restored(run, cut)
        if 1 <= good < cut.segments:
            # What breaks the pattern may be the end of this super-packet: short, or PSH.
            cut = run.cut(good + 1, rows.plain if good + 1 < count else last) or cut
            good = self._restored(run, cut)
        if good == cut.segments:
            return good, self._build(run, cut)
        if good > 1:
            return good, self._build(run, Cut(0, good, width, width, True))
        # Nothing follows it.  That may be true of the whole train (say, a constant
        # identification), and looking is not free.
        self._patience -= 1
        return (1 if self._patience > 0 else count), None

    def _restored(self, run: _Run, cut: Cut) -> int:
        """How many leading segments come out of cutting exactly as they came in."""
        whole = run.whole(cut.segments)
        payload = run.payload(cut)
        stencil = self._stencils[run.shape]
        pseudo = pseudo_sum(whole, run.shape)
        expected = stencil.write(whole, cut, row_sums(payload), pseudo)
        came = run.headers(cut.segments)
        if expected.tobytes() == came.tobytes():
            return cut.segments
        return int((expected != came).any(axis=1).argmax())

    def _build(self, run: _Run, cut: Cut) -> memoryview:
        """The super-packet of segments that were found to fit."""
        shape, full = run.shape, cut.segments - (cut.last != cut.width)
        size = (cut.segments - 1) * cut.width + cut.last
        start = VNET_SIZE + shape.length
        out = self._out
        kind = GSO_UDP_L4
        if shape.protocol == TCP:
            kind = GSO_TCPV4 if shape.version == 4 else GSO_TCPV6
        offset = 16 if shape.protocol == TCP else 6
        VNET.pack_into(
            out, 0, NEEDS_CSUM, kind, shape.length, cut.width, shape.l4, offset
        )
        out[VNET_SIZE:start] = merged_headers(run.whole(cut.segments), shape, size)
        body = BODY + shape.length
        rows = run.rows.bytes[run.first : run.first + full, body : body + cut.width]
        joined: Bytes = np.ndarray((full, cut.width), np.uint8, out, start)
        joined[:] = rows
        if full < cut.segments:
            packet = run.rows.plaintexts[run.first + full]
            at = start + full * cut.width
            out[at : at + cut.last] = packet[shape.length : shape.length + cut.last]
        return self._view[: start + size]


class _Run:
    """Messages of a train from `first` on that may be segments of one super-packet."""

    __slots__ = ("first", "rows", "shape", "width")

    def __init__(self, rows: Rows, first: int, shape: Shape, width: int) -> None:
        self.rows = rows
        self.first = first
        self.shape = shape
        self.width = width

    def ends_at_once(self) -> bool:
        """FIN or PSH: the first segment is also the last."""
        packet, shape = self.rows.plaintexts[self.first], self.shape
        return shape.protocol == TCP and bool(packet[shape.l4 + 13] & (TCP_FIN | TCP_PSH))

    def cut(self, count: int, last: int) -> Cut | None:
        """The first `count` as a cut; one less when the last one cannot be part of it."""
        # Examined in full, because what lies behind its end is about to be overwritten.
        candidate = examine(self.rows.plaintexts[self.first + count - 1][:last])
        if candidate and candidate.shape == self.shape and candidate.payload <= self.width:
            return Cut(0, count, self.width, candidate.payload, True)
        return Cut(0, count - 1, self.width, self.width, True) if count > 2 else None

    def whole(self, count: int) -> bytes:
        """The first headers, with the flags that the last segment adds."""
        packets, shape = self.rows.plaintexts, self.shape
        headers = bytearray(packets[self.first][: shape.length])
        if shape.protocol == TCP:
            flags = shape.l4 + 13
            headers[flags] |= packets[self.first + count - 1][flags] & (TCP_FIN | TCP_PSH)
        return bytes(headers)

    def headers(self, count: int) -> Bytes:
        """The headers as they came."""
        end = self.first + count
        return self.rows.bytes[self.first : end, BODY : BODY + self.shape.length]

    def payload(self, cut: Cut) -> Bytes:
        """The payloads; what lies behind a short last one becomes zero."""
        body, end = BODY + self.shape.length, self.first + cut.segments
        rows = self.rows.bytes
        if cut.last < cut.width:
            rows[end - 1, body + cut.last : body + cut.width] = 0
        return rows[self.first : end, body : body + cut.width]


def _same_flow(rows: Rows, first: int, shape: Shape) -> bool:
    """Whether addresses and ports of the second message are the first one's."""
    start, end = (12, 24) if shape.version == 4 else (8, 44)
    a, b = rows.plaintexts[first], rows.plaintexts[first + 1]
    return a[start:end] == b[start:end]
