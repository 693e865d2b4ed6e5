"""Cutting super-packets and merging segments, segment by segment.

The compiled counterparts of `wgpy.dataplane.offload_segment` and `offload_coalesce`, under the
same rule: a segment is merged if, and only if, cutting would restore it byte for byte.
Where those write the headers of all segments by array operations, one function here
writes the headers of one segment.

Sums are little-endian and modulo 65535 (RFC 1071 §2B); 2**32 is 1 there.
"""

from __future__ import annotations

from typing import Any

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
    UDP,
    VNET_SIZE,
)
from wgpy.dataplane.offload_coalesce import MORE_OR_OFFSET, ODD_FLAGS
from wgpy.turbo.aead import HEADER, OVERHEAD, Bytes
from wgpy.turbo.compiler import compiled
from wgpy.turbo.vectors import copy, load8, load32, store8, store64, sum_blocks

_U = np.uint64
_MODULUS = _U(65_535)
_END = TCP_FIN | TCP_PSH
_MARKS = TCP_FIN | TCP_PSH | TCP_CWR


@compiled
def _sum(address: int, size: int) -> Any:
    """The sum of `size` bytes, padded with a zero to an even number; reduced."""
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
    """A 16-bit number in the byte order in which it is read from the packet."""
    return _U(value >> 8 & 0xFF | (value & 0xFF) << 8)


@compiled
def _read16(address: int) -> Any:
    return load8(address) << 8 | load8(address + 1)


@compiled
def _write16(address: int, value: int) -> None:
    store8(address, value >> 8)
    store8(address + 1, value)


@compiled
def _write_checksum(address: int, total: Any, instead_of_zero: int) -> None:
    """Write the complement of a sum, in memory order."""
    value = (_MODULUS - total % _MODULUS) % _MODULUS
    if value == _U(0):
        value = _U(instead_of_zero)
    store8(address, np.int64(value))
    store8(address + 1, np.int64(value) >> 8)


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
def gather(
    buffer: Bytes, start: int, step: int, count: int, size: int, l4: int, field: int,
    rows: Bytes, stride: int,
) -> None:  # fmt: skip
    """`count` packets of `size` bytes, `step` apart, padded, into `rows`.

    With a `field`, the offset of the L4 checksum, this is completed (NEEDS_CSUM): it has
    the sum of the pseudo header, and `l4` is where summing starts.
    """
    for i in range(count):
        target = rows.ctypes.data + i * stride + HEADER
        copy(target, buffer.ctypes.data + start + i * step, size)
        for at in range(size, stride - OVERHEAD):
            store8(target + at, 0)
        if field:
            zero = 0xFFFF if field - l4 == 6 else 0  # RFC 768, as in `_write_headers`
            _write_checksum(target + field, _sum(target + l4, size - l4), zero)


@compiled
def _examine(packet: int, room: int) -> tuple[int, int, int, bool]:
    """(L4 start, header length, total size, TCP) of a packet that may be merged, or zeros.

    `offload_coalesce.examine` is the same.
    """
    none = 0, 0, 0, False
    if room < 28:
        return none
    if load8(packet) == 0x45:
        if _read16(packet + 6) & MORE_OR_OFFSET:
            return none
        l4, protocol, total = 20, load8(packet + 9), _read16(packet + 2)
    elif load8(packet) >> 4 == 6 and room >= 48:
        l4, protocol, total = 40, load8(packet + 6), 40 + _read16(packet + 4)
    else:
        return none
    tcp = protocol == TCP
    length = l4 + 8
    if total > room:
        return none
    if tcp:
        if total < l4 + 20:
            return none
        flags = load8(packet + l4 + 13)
        length = l4 + (load8(packet + l4 + 12) >> 4) * 4
        if flags & ODD_FLAGS or not flags & TCP_ACK or length < l4 + 20:
            return none
    elif protocol != UDP:
        return none
    return (l4, length, total, tcp) if length < total else none


@compiled
def _pseudo(packet: int, l4: int) -> Any:
    """The sum of the pseudo header without its length."""
    if l4 == 20:
        return _sum(packet + 12, 8) + _swapped(load8(packet + 9))
    return _sum(packet + 8, 32) + _swapped(load8(packet + 6))


@compiled
def merge(
    rows: Bytes, stride: int, first: int, count: int, last: int, udp: bool, out: Bytes
) -> tuple[int, int]:
    """Put consecutive segments of one flow together, from message `first` on.

    There are `count` opened messages, the last with `last` plaintext bytes.  Returns how
    many of them were merged and the size of the super-packet in `out`, its virtio header
    included; (0, 0) when it would be fewer than two.
    """
    whole = rows.ctypes.data + first * stride + HEADER
    l4, length, total, tcp = _examine(whole, last if count == 1 else stride - OVERHEAD)
    if not length or not (tcp or udp) or (tcp and load8(whole + l4 + 13) & _END):
        return 0, 0
    width = total - length
    headers = out.ctypes.data + VNET_SIZE
    pseudo = _pseudo(whole, l4)
    good, size, marks = 0, length, 0
    while good < count and not marks and length + (good + 1) * width <= MAX_PACKET:
        source = whole + good * stride
        room = last if good == count - 1 else stride - OVERHEAD
        total = 0
        if room >= length:
            total = _read16(source + 2) if l4 == 20 else 40 + _read16(source + 4)
        payload = total - length
        if not 0 < payload <= width or total > room:
            break
        ends = load8(source + l4 + 13) & _END if tcp else 0
        # The headers that cutting would give are written where the payload will be.
        target = headers + size
        body = _sum(source + length, payload)
        _write_headers(
            target, whole, l4, length, tcp, good, width, payload, ends, pseudo, body
        )
        if not _same(source, target, length):
            break
        copy(target, source + length, payload)
        good, size, marks = good + 1, size + payload, ends
        if payload < width:
            break
    if good < 2:
        return 0, 0
    _write_merged(out.ctypes.data, whole, l4, length, tcp, width, size, marks, pseudo)
    return good, VNET_SIZE + size


@compiled
def _same(a: int, b: int, size: int) -> bool:
    """Whether two headers are equal; their size is a multiple of four."""
    for at in range(0, size, 4):  # noqa: SIM110 (no generator in compiled code)
        if load32(a + at) != load32(b + at):
            return False
    return True


@compiled
def _write_merged(
    out: int, whole: int, l4: int, length: int, tcp: bool, width: int, size: int, marks: int,
    pseudo: Any,
) -> None:  # fmt: skip
    """The virtio header and the headers of a super-packet of `size` bytes.

    The L4 checksum field has the pseudo header's sum, as NEEDS_CSUM wants it.
    """
    kind = GSO_UDP_L4
    if tcp:
        kind = GSO_TCPV4 if l4 == 20 else GSO_TCPV6
    offset = 16 if tcp else 6
    # Native byte order: little-endian, see `ready`.
    store64(out, _U(NEEDS_CSUM | kind << 8 | length << 16 | width << 32 | l4 << 48))
    store8(out + 8, offset)
    store8(out + 9, 0)
    headers = out + VNET_SIZE
    copy(headers, whole, length)
    if l4 == 20:
        _write16(headers + 2, size)
        _write16(headers + 10, 0)
        _write_checksum(headers + 10, _sum(headers, l4), 0)
    else:
        _write16(headers + 4, size - 40)
    if tcp:
        store8(headers + l4 + 13, load8(whole + l4 + 13) | marks)
    else:
        _write16(headers + l4 + 4, size - l4)
    stated = (pseudo + _swapped(size - l4)) % _MODULUS
    field = headers + l4 + offset
    _write_checksum(field, _MODULUS - stated, 0xFFFF)
