"""The headers of the segments of one super-packet, all at once.

`Stencil.write` answers one question: given the headers of the whole and the sums of the
payloads, what are the headers of segments 0, 1, 2 …?  As the kernel's GSO does it:

* IPv4 total length and IPv6 payload length, the UDP length: each segment's own;
* IPv4 identification: counts up from the whole's (RFC 6864 asks no more);
* TCP sequence number: grows by the segment size;
* TCP flags: FIN and PSH on the last segment only, CWR on the first only (RFC 3168 §6.1.2);
* checksums anew; everything else (options, DSCP, ECN, TTL, window …) as in the whole.

Cutting (`offload_segment`) uses the answer; merging (`offload_coalesce`) compares what
came with the answer, so it merges exactly what cutting would restore.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from wgpy.dataplane.batch import Bytes, Column
from wgpy.dataplane.offload import (
    MAX_MESSAGES,
    TCP,
    TCP_CWR,
    TCP_FIN,
    TCP_PSH,
    Shape,
    checksum,
    pseudo_sum,
    swap16,
)

Sums = npt.NDArray[np.uint32]

_CEILING: Final = np.uint32(65_535 * 65_535)
"""A multiple of 65535 above every sum that occurs (at most 32768 words of a packet)."""
_MODULUS: Final = np.uint32(65_535)
_RISING32: Final = np.arange(MAX_MESSAGES, dtype=np.uint32)
_RISING16: Final = np.arange(MAX_MESSAGES, dtype=np.uint16)


class Cut(NamedTuple):
    """Which segments: `segments` of them from number `first`, of `width` payload bytes.

    `last` is the payload of the last one of these; `final` says that it is the last of
    the super-packet too.
    """

    first: int
    segments: int
    width: int
    last: int
    final: bool


def row_sums(rows: Bytes) -> Sums:
    """One's-complement sums of each row, little-endian, not reduced (below 2**31)."""
    count, width = rows.shape
    if width & 1:
        even = np.zeros((count, width + 1), np.uint8)
        even[:, :width] = rows
        rows = even
    words: npt.NDArray[np.uint16] = rows.view("<u2")
    sums: Sums = np.add.reduce(words, axis=1, dtype=np.uint32)
    return sums


class Stencil:
    """Header rows of one `Shape`, with a column over each field that varies."""

    __slots__ = (
        "_flags",
        "_id",
        "_ip_sum",
        "_ip_words",
        "_l4_size",
        "_l4_sum",
        "_l4_words",
        "_sequence",
        "_size",
        "rows",
        "shape",
    )

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        l4 = shape.l4
        self.rows: Bytes = np.zeros((MAX_MESSAGES, shape.length), np.uint8)
        words: Column = self.rows.view("<u2")
        self._l4_words = words[:, l4 // 2 :]
        self._ip_words = words[:, : l4 // 2]
        self._size = self._field(">u2", 2 if shape.version == 4 else 4)
        self._id = self._field(">u2", 4)
        self._ip_sum = self._field("<u2", 10)
        tcp = shape.protocol == TCP
        self._l4_sum = self._field("<u2", l4 + (16 if tcp else 6))
        self._sequence = self._field(">u4", l4 + 4) if tcp else None
        self._flags = self.rows[:, l4 + 13] if tcp else None
        self._l4_size = None if tcp else self._field(">u2", l4 + 4)

    def _field(self, kind: str, offset: int) -> Column:
        width = self.rows.shape[1]
        return np.ndarray((MAX_MESSAGES,), kind, self.rows, offset, (width,))

    def write(self, whole: bytes, cut: Cut, sums: Sums, pseudo: int) -> Bytes:
        """Headers of the segments that `cut` names.

        `whole` are the headers of the super-packet, `sums` the `row_sums` of the payloads,
        `pseudo` the sum of the pseudo header without its length, big-endian.
        The result is a view that the next call overwrites.
        """
        shape, count = self.shape, cut.segments
        rows = self.rows[:count]
        rows[:] = np.frombuffer(whole, np.uint8)
        self._write_lengths(cut)
        if shape.version == 4:
            self._write_ipv4(whole, cut)
        if self._sequence is not None:
            self._write_tcp(whole, cut)
        self._write_l4_sum(cut, sums, pseudo)
        return rows

    def _write_lengths(self, cut: Cut) -> None:
        shape, last = self.shape, cut.segments - 1
        # IPv4 counts its header, IPv6 does not.
        fixed = shape.length - (0 if shape.version == 4 else 40)
        self._size[: cut.segments] = fixed + cut.width
        self._size[last] = fixed + cut.last
        if self._l4_size is not None:
            self._l4_size[: cut.segments] = 8 + cut.width
            self._l4_size[last] = 8 + cut.last

    def _write_ipv4(self, whole: bytes, cut: Cut) -> None:
        count = cut.segments
        identification = int.from_bytes(whole[4:6], "big") + cut.first & 0xFFFF
        self._id[:count] = _RISING16[:count] + np.uint16(identification)
        self._ip_sum[:count] = 0
        self._ip_sum[:count] = _fold(
            np.add.reduce(self._ip_words[:count], axis=1, dtype=np.uint32)
        )

    def _write_tcp(self, whole: bytes, cut: Cut) -> None:
        assert self._sequence is not None and self._flags is not None
        l4, count = self.shape.l4, cut.segments
        sequence = int.from_bytes(whole[l4 + 4 : l4 + 8], "big") + cut.first * cut.width
        steps = _RISING32[:count] * np.uint32(cut.width)
        self._sequence[:count] = steps + np.uint32(sequence & 0xFFFFFFFF)
        flags = whole[l4 + 13]
        if flags & (TCP_FIN | TCP_PSH | TCP_CWR):
            self._flags[:count] = flags & ~(TCP_FIN | TCP_PSH | TCP_CWR)
            if cut.first == 0:
                self._flags[0] |= flags & TCP_CWR
            if cut.final:
                self._flags[count - 1] |= flags & (TCP_FIN | TCP_PSH)

    def _write_l4_sum(self, cut: Cut, sums: Sums, pseudo: int) -> None:
        shape, count = self.shape, cut.segments
        fixed = shape.length - shape.l4
        field = self._l4_sum[:count]
        field[:] = 0
        total = np.add.reduce(self._l4_words[:count], axis=1, dtype=np.uint32)
        total += sums
        total += np.uint32(swap16((pseudo + fixed + cut.width) % 65_535))
        if cut.last != cut.width:
            total[-1] += _MODULUS - np.uint32(swap16(cut.width - cut.last))
        result = _fold(total)
        if shape.protocol != TCP:
            result[result == 0] = 0xFFFF  # RFC 768: zero means "no checksum"
        field[:] = result


def _fold(totals: Sums) -> npt.NDArray[Any]:
    """Complemented checksums of unreduced sums, as the kernel writes them (0 for 0xffff)."""
    return (_CEILING - totals) % _MODULUS


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
