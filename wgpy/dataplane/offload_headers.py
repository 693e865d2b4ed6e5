"""The headers of the segments of one super-packet, all at once.

`HeaderBlock.write` answers one question: given the headers of the whole and the sums of
the payloads, what are the headers of segments 0, 1, 2 …?  As the kernel's GSO does it:

* IPv4 total length and IPv6 payload length, the UDP length: each segment's own;
* IPv4 identification: counts up from the whole's (RFC 6864 requires no more);
* TCP sequence number: grows by the segment size;
* TCP flags: FIN and PSH on the last segment only, CWR on the first only (RFC 3168 §6.1.2);
* checksums anew; everything else (options, DSCP, ECN, TTL, window …) as in the whole.

Cutting (`offload_segment`) uses the answer; merging (`offload_coalesce`) compares what
came with the answer, so it merges exactly what cutting would restore.

Few array operations, because each costs as much as summing a packet.  All rows start as
one template; what differs is added.  2**16 is 1 modulo 65535, so a number contributes its
own value to a big-endian sum, and 256 times that to a little-endian one, which is what
numpy's sums of payloads are: checksums of all rows follow from the first one's by
arithmetic.  Only identification and sequence numbers that wrap break the pattern.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wgpy.dataplane.offload import (
    MAX_MESSAGES,
    TCP,
    TCP_CWR,
    TCP_FIN,
    TCP_PSH,
    Shape,
    checksum,
    pseudo_sum,
)
from wgpy.dataplane.train_tools import Bytes, Column, Cut

Sums = npt.NDArray[np.uint32]

_MODULUS: Final = 65_535
_CEILING: Final = _MODULUS * 60_000
"""A multiple of 65535 above every sum that occurs (at most 32768 words of a packet), and
so far below 2**32 that corrections can be added to a difference."""
_RISING: Final = np.arange(MAX_MESSAGES, dtype=np.uint32)
_IDS: Final = np.arange(1 << 16, dtype=">u2")
_FALLING: Final = ((65_534 - np.arange(_MODULUS + MAX_MESSAGES)) % _MODULUS).astype(">u2")
"""65534, 65533, … 0, 65534 …: the IPv4 checksums of rising identifications."""
_MARKS: Final = TCP_FIN | TCP_PSH | TCP_CWR


class Payloads:
    """Payloads of equal size, one in each row, that can be summed repeatedly."""

    __slots__ = ("_even", "_words", "bytes")

    def __init__(self, rows: Bytes) -> None:
        self.bytes = rows
        count, width = rows.shape
        # Rows of odd size are summed in a copy, with a zero behind each.
        self._even = np.zeros((count, width + 1), np.uint8) if width & 1 else None
        self._words: Column = (rows if self._even is None else self._even).view("<u2")

    def sums(self) -> Sums:
        """One's-complement sums of each, little-endian, not reduced (below 2**31)."""
        if self._even is not None:
            self._even[:, :-1] = self.bytes
        sums: Sums = np.add.reduce(self._words, axis=1, dtype=np.uint32)
        return sums


class HeaderBlock:
    """The place where the headers of equal segments are written, one row each.

    `target` has a row for each segment, as wide as the headers of `shape`.
    """

    __slots__ = ("_ids", "_ip_sums", "_l4_sums", "_sequence", "_shape", "_steps", "_sum_steps",
                 "_target", "_width")  # fmt: skip

    def __init__(self, target: Bytes, shape: Shape, width: int) -> None:
        self._target = target
        self._shape = shape
        self._width = width
        count, l4, tcp = len(target), shape.l4, shape.protocol == TCP
        self._ids = _field(target, 4, ">u2")
        self._ip_sums = _field(target, 10, ">u2")
        self._l4_sums = _field(target, l4 + (16 if tcp else 6), "<u2")
        self._sequence = _field(target, l4 + 4, ">u4") if tcp else None
        self._steps: Sums = _RISING[:count] * np.uint32(width)
        self._sum_steps: Sums = (
            self._steps.astype(np.uint64) * 256 % _MODULUS * tcp
        ).astype(np.uint32)

    def write(self, whole: bytes, cut: Cut, sums: Sums, pseudo: int) -> None:
        """Write the headers of the segments that `cut` names, as many as there are rows.

        `whole` are the headers of the super-packet, `sums` the `row_sums` of the payloads,
        `pseudo` the sum of the pseudo header without its length, big-endian.
        """
        shape, l4 = self._shape, self._shape.l4
        template, marks = self._template(whole, cut)
        self._target[:] = np.frombuffer(template, np.uint8)
        if shape.version == 4:
            self._write_ipv4(template, whole, cut)
        if self._sequence is not None:
            self._write_sequence(template)
        fixed = shape.length - l4
        first = int.from_bytes(template[l4:], "big") + pseudo + fixed + cut.width
        totals = sums + self._sum_steps
        np.subtract(_CEILING - first * 256 % _MODULUS, totals, out=totals)
        self._mark(totals, cut, marks)
        totals %= _MODULUS
        if shape.protocol != TCP:
            totals[totals == 0] = 0xFFFF  # RFC 768: zero means "no checksum"
        self._l4_sums[:] = totals

    def _template(self, whole: bytes, cut: Cut) -> tuple[bytearray, int]:
        """Headers of the first of these segments without checksums; FIN, PSH, CWR apart."""
        shape, l4 = self._shape, self._shape.l4
        template = bytearray(whole)
        if shape.version == 4:
            template[2:4] = (shape.length + cut.width).to_bytes(2, "big")
            template[10:12] = b"\0\0"
        else:
            template[4:6] = (shape.length - 40 + cut.width).to_bytes(2, "big")
        if shape.protocol != TCP:
            template[l4 + 4 : l4 + 8] = (8 + cut.width << 16).to_bytes(4, "big")
            return template, 0
        if cut.first:
            sequence = int.from_bytes(whole[l4 + 4 : l4 + 8], "big") + cut.first * cut.width
            template[l4 + 4 : l4 + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        template[l4 + 16 : l4 + 18] = b"\0\0"
        marks = template[l4 + 13] & _MARKS
        template[l4 + 13] ^= marks
        return template, marks

    def _write_ipv4(self, template: bytearray, whole: bytes, cut: Cut) -> None:
        count, l4 = cut.segments, self._shape.l4
        number = int.from_bytes(whole[4:6], "big") + cut.first & 0xFFFF
        fixed = int.from_bytes(template[:4] + template[6:l4], "big")
        if number + count <= _MODULUS:
            self._ids[:] = _IDS[number : number + count]
            start = 65_534 - (-fixed - number) % _MODULUS
            self._ip_sums[:] = _FALLING[start : start + count]
        else:
            numbers = [number + i & 0xFFFF for i in range(count)]
            self._ids[:] = numbers
            self._ip_sums[:] = [(-fixed - n) % _MODULUS for n in numbers]
        if cut.last != cut.width:
            length = self._shape.length + cut.last
            self._target[-1, 2:4] = length >> 8, length & 0xFF
            shorter = cut.width - cut.last
            self._ip_sums[-1] = (int(self._ip_sums[-1]) + shorter) % _MODULUS

    def _write_sequence(self, template: bytearray) -> None:
        assert self._sequence is not None
        l4 = self._shape.l4
        start = int.from_bytes(template[l4 + 4 : l4 + 8], "big")
        self._sequence[:] = self._steps + np.uint32(start)

    def _mark(self, totals: Sums, cut: Cut, marks: int) -> None:
        """What the first and last segment have of their own, and its part in the sums.

        `totals` are complements: what adds to a header is taken from them.
        """
        shape, l4, target = self._shape, self._shape.l4, self._target
        if marks:
            if cut.first == 0 and marks & TCP_CWR:
                target[0, l4 + 13] |= TCP_CWR
                _take(totals, 0, TCP_CWR)
            if cut.final and marks & (TCP_FIN | TCP_PSH):
                target[-1, l4 + 13] |= marks & (TCP_FIN | TCP_PSH)
                _take(totals, -1, marks & (TCP_FIN | TCP_PSH))
        shorter = cut.width - cut.last
        if shorter:
            _take(totals, -1, -shorter)  # The length in the pseudo header.
            if shape.version == 6:
                length = shape.length - 40 + cut.last
                target[-1, 4:6] = length >> 8, length & 0xFF
            if shape.protocol != TCP:
                _take(totals, -1, -shorter)  # And the one in UDP's own header.
                length = 8 + cut.last
                target[-1, l4 + 4 : l4 + 6] = length >> 8, length & 0xFF
        if self._sequence is not None:
            start = int(self._sequence[0])
            if start + cut.segments * cut.width > 1 << 32:
                # Behind the wrap a sequence number is 2**32 less, and its sum 1.
                wrapped = self._sequence < start
                totals[wrapped] += 256


def _take(totals: Sums, row: int, value: int) -> None:
    totals[row] += -value * 256 % _MODULUS


def _field(target: Bytes, offset: int, kind: str) -> Column:
    """A column of numbers over bytes of all rows."""
    size = np.dtype(kind).itemsize
    column: npt.NDArray[Any] = target[:, offset : offset + size].view(kind)[:, 0]
    return column


def merged_headers(whole: bytes, shape: Shape, payload: int) -> bytearray:
    """Headers of a super-packet with `payload` bytes, from those of its first segment.

    The L4 checksum field holds the pseudo header's sum, as NEEDS_CSUM wants it.
    """
    headers = bytearray(whole)
    l4_size = shape.length - shape.l4 + payload
    if shape.version == 4:
        headers[2:4] = (shape.length + payload).to_bytes(2, "big")
        headers[10:12] = b"\0\0"
        headers[10:12] = checksum(headers[: shape.l4]).to_bytes(2, "big")
    else:
        headers[4:6] = (shape.length - 40 + payload).to_bytes(2, "big")
    field = shape.l4 + (16 if shape.protocol == TCP else 6)
    if shape.protocol != TCP:
        headers[shape.l4 + 4 : shape.l4 + 6] = l4_size.to_bytes(2, "big")
    pseudo = (pseudo_sum(headers, shape) + l4_size) % 65_535 or 0xFFFF
    headers[field : field + 2] = pseudo.to_bytes(2, "big")
    return headers
