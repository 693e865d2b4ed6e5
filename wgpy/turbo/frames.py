"""Cutting super-packets and merging segments, segment by segment.

The compiled twins of `wgpy.dataplane.offload_segment` and `offload_coalesce`, under the
same rule: a segment is merged if, and only if, cutting would restore it byte for byte.
Where those write the headers of all segments by array operations, here one function
writes those of one segment, and reads as the rule does.

Sums are little-endian and modulo 65535 (RFC 1071 §2B); 2**32 is 1 there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpy.dataplane.offload import TCP_CWR, TCP_FIN, TCP_PSH
from wgpy.turbo.aead import HEADER, OVERHEAD, Bytes
from wgpy.turbo.compiler import compiled
from wgpy.turbo.vectors import copy, load8, load32, store8, sum_blocks

_U = np.uint64
_MODULUS = _U(65_535)
_END = TCP_FIN | TCP_PSH
_MARKS = TCP_FIN | TCP_PSH | TCP_CWR


@compiled
def _sum(address: int, size: int) -> Any:
    """Of `size` bytes, a zero behind an odd one; reduced."""
    blocks = size >> 6
    total = sum_blocks(address, blocks) if blocks else _U(0)
    at = blocks << 6
    while at + 4 <= size:
        total += _U(load32(address + at))
        at += 4
    shift = _U(0)
    while at < size:
        total += _U(load8(address + at)) << shift
        shift += _U(8)
        at += 1
    return total % _MODULUS


@compiled
def _swapped(value: int) -> Any:
    """A number of 16 bits as it is read from the packet."""
    return _U(value >> 8 & 0xFF | (value & 0xFF) << 8)


@compiled
def _read16(address: int) -> int:
    return load8(address) << 8 | load8(address + 1)


@compiled
def _write16(address: int, value: int) -> None:
    store8(address, value >> 8)
    store8(address + 1, value)


@compiled
def _write_checksum(address: int, total: Any, instead_of_zero: int) -> None:
    """The complement of a sum, as it lies in memory."""
    value = np.int64((_MODULUS - total % _MODULUS) % _MODULUS)
    if value == 0:
        value = instead_of_zero
    store8(address, value)
    store8(address + 1, value >> 8)


@compiled
def _write_headers(
    target: int, whole: int, l4: int, length: int, tcp: bool,
    number: int, width: int, payload: int, marks: int, pseudo: Any, body: Any,
) -> None:  # fmt: skip
    """The headers of segment `number` of a super-packet whose own lie at `whole`.

    It carries `payload` bytes that add up to `body`, those before it `width` each; `marks`
    are the flags FIN, PSH and CWR it has; `pseudo` is the sum of the pseudo header without
    its length.
    """
    copy(target, whole, length)
    if load8(whole) >> 4 == 4:
        _write16(target + 2, length + payload)
        _write16(target + 4, _read16(whole + 4) + number)
        _write16(target + 10, 0)
        _write_checksum(target + 10, _sum(target, l4), 0)
    else:
        _write16(target + 4, length - 40 + payload)
    if tcp:
        sequence = (_read16(whole + l4 + 4) << 16 | _read16(whole + l4 + 6)) + number * width
        _write16(target + l4 + 4, sequence >> 16)
        _write16(target + l4 + 6, sequence)
        store8(target + l4 + 13, load8(whole + l4 + 13) & ~_MARKS | marks)
        field, zero = target + l4 + 16, 0
    else:
        _write16(target + l4 + 4, 8 + payload)
        field, zero = target + l4 + 6, 0xFFFF  # RFC 768: zero means "no checksum"
    _write16(field, 0)
    total = _sum(target + l4, length - l4) + body + pseudo + _swapped(length - l4 + payload)
    _write_checksum(field, total, zero)


@compiled
def cut(
    buffer: Bytes, start: int, size: int, l4: int, length: int, tcp: bool,
    first: int, count: int, width: int, last: int, final: bool,
    rows: Bytes, stride: int,
) -> None:  # fmt: skip
    """Segments `first` … of the super-packet of `size` bytes at `start`, padded, into `rows`.

    See `wgpy.dataplane.offload_headers.Cut`; the L4 checksum field of the super-packet has
    the sum of its pseudo header (NEEDS_CSUM).
    """
    whole = buffer.ctypes.data + start
    field = whole + l4 + (16 if tcp else 6)
    stated = _U(load8(field)) | _U(load8(field + 1)) << _U(8)
    pseudo = (stated + _MODULUS - _swapped(size - l4)) % _MODULUS
    flags = load8(whole + l4 + 13) if tcp else 0
    source = whole + length + first * width
    for i in range(count):
        payload = last if i == count - 1 else width
        target = rows.ctypes.data + i * stride + HEADER
        marks = flags & TCP_CWR if first + i == 0 else 0
        if final and i == count - 1:
            marks |= flags & _END
        copy(target + length, source, payload)
        body = _sum(source, payload)
        _write_headers(
            target, whole, l4, length, tcp, first + i, width, payload, marks, pseudo, body
        )
        # Padding: what is left of a full row, and of a shorter last one as far as it is sent.
        for at in range(length + payload, stride - OVERHEAD):
            store8(target + at, 0)
        source += width


@compiled
def merge(
    rows: Bytes, stride: int, first: int, count: int, last: int,
    l4: int, length: int, tcp: bool, width: int, pseudo: int, out: Bytes, start: int,
) -> tuple[int, int]:  # fmt: skip
    """How many messages from `first` on are consecutive segments of one super-packet.

    Their payloads go to `out` from `start` on.  There are `count` opened messages, the
    last with `last` plaintext bytes; the first one's headers have the shape given, and it
    carries `width` bytes.  Also returns the payload of the last segment.  `pseudo` is the
    sum of the pseudo header without its length.
    """
    whole = rows.ctypes.data + first * stride + HEADER
    expected = np.empty(length, np.uint8)
    header = expected.ctypes.data
    target = out.ctypes.data + start
    version = load8(whole) >> 4
    for i in range(count):
        source = whole + i * stride
        room = last if i == count - 1 else stride - OVERHEAD
        if room < length:
            return i, width
        total = _read16(source + 2) if version == 4 else 40 + _read16(source + 4)
        payload = total - length
        if payload < 1 or payload > width or total > room:
            return i, width
        marks = load8(source + l4 + 13) & _END if tcp and i else 0
        body = _sum(source + length, payload)
        _write_headers(
            header, whole, l4, length, tcp, i, width, payload, marks, _U(pseudo), body
        )
        for at in range(length):
            if load8(source + at) != load8(header + at):
                return i, width
        copy(target, source + length, payload)
        target += payload
        if payload < width or marks:
            return i + 1, payload
    return count, width
