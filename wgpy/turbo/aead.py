"""ChaCha20-Poly1305 (RFC 8439 §2.8) for a whole train in one call.

A train is `count` messages of `stride` bytes in one buffer, the last perhaps shorter
(`wgpy.dataplane.train` draws it); each has its counter in its header, and no additional
data (§5.4.6).  This saves more than the calls: the ChaCha20 blocks
of all messages fill the lanes of a vector one after the other, and eight messages are
authenticated side by side.

`seal` and `open_` touch only what lies between the first message's header and the last
one's tag; the caller has checked that it is inside the buffer.  Opening checks before it
decrypts: a message with a wrong tag stays as it came.

Numbers are 64 bits wide and written with their type, because numba converts a mixture of
signed and unsigned numbers to float.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wgpy.protocol.constants import TAG_SIZE, TRANSPORT_HEADER_SIZE, TRANSPORT_OVERHEAD
from wgpy.turbo.compiler import compiled
from wgpy.turbo.vectors import (
    BLOCK,
    BLOCKS,
    LANES,
    absorb,
    keystream,
    load8,
    load64,
    store8,
    store64,
    xor64,
)

HEADER: Final = TRANSPORT_HEADER_SIZE
OVERHEAD: Final = TRANSPORT_OVERHEAD
_COUNTER: Final = 8
"""Where the counter lies in the header of a message."""
_SUM: Final = TAG_SIZE
"""Bytes that Poly1305 takes at a time."""

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Longs = npt.NDArray[np.uint64]

_U = np.uint64
_LIMB: Final = _U((1 << 26) - 1)
_FIVE: Final = _U(5)
_HALF: Final = _U((1 << 32) - 1)
# RFC 8439 §2.5: some bits of r are clear.
_CLAMP_LOW: Final = _U(0x0FFFFFFC0FFFFFFF)
_CLAMP_HIGH: Final = _U(0x0FFFFFFC0FFFFFFC)


@compiled
def _seat(rows: Any, lane: int, block: int, counter: Any) -> None:
    """Set which block a lane computes."""
    rows[0, lane] = block
    rows[1, lane] = counter & _HALF
    rows[2, lane] = counter >> _U(32)


@compiled
def _one_time_keys(train: int, stride: int, count: int, key: int) -> Longs:
    """The first half of block 0 of each message (RFC 8439 §2.6)."""
    keys = np.empty((count, 4), np.uint64)
    rows = np.zeros((3, BLOCKS), np.uint32)
    stream = np.empty((BLOCKS, BLOCK // 8), np.uint64)
    for first in range(0, count, BLOCKS):
        number = min(BLOCKS, count - first)
        for lane in range(number):
            _seat(rows, lane, 0, load64(train + (first + lane) * stride + _COUNTER))
        keystream(key, rows.ctypes.data, stream.ctypes.data)
        for lane in range(number):
            keys[first + lane] = stream[lane, :4]
    return keys


@compiled
def _xor(train: int, stride: int, count: int, last: int, key: int, good: Flags) -> None:
    """XOR the keystream from block 1 on into the messages that are `good`."""
    rows = np.zeros((3, BLOCKS), np.uint32)
    stream = np.empty(BLOCKS * BLOCK, np.uint8)
    targets = np.empty(BLOCKS, np.intp)
    sizes = np.empty(BLOCKS, np.intp)
    lane = 0
    for message in range(count):
        if good[message]:
            start = train + message * stride
            counter = load64(start + _COUNTER)
            size = last if message == count - 1 else stride - OVERHEAD
            for at in range(0, size, BLOCK):
                _seat(rows, lane, 1 + at // BLOCK, counter)
                targets[lane] = start + HEADER + at
                sizes[lane] = size - at
                lane += 1
                if lane == BLOCKS:
                    _spend(key, rows, stream, targets, sizes, lane)
                    lane = 0
    if lane:
        _spend(key, rows, stream, targets, sizes, lane)


@compiled
def _spend(key: int, rows: Any, stream: Any, targets: Any, sizes: Any, lanes: int) -> None:
    """Compute sixteen blocks and use the first `lanes` of them."""
    source = stream.ctypes.data
    keystream(key, rows.ctypes.data, source)
    for lane in range(lanes):
        target = targets[lane]
        if sizes[lane] >= BLOCK:
            xor64(target, source)
        else:
            for at in range(sizes[lane]):
                store8(target + at, load8(target + at) ^ load8(source + at))
        source += BLOCK


@compiled
def _tags(train: int, stride: int, count: int, last: int, keys: Longs) -> Longs:
    """The correct tags of the messages, which are encrypted."""
    tags = np.empty((count, 2), np.uint64)
    plain = stride - OVERHEAD
    full = count if last == plain else count - 1
    # What eight messages need: r, h, their padded ends, addresses.
    work = (
        np.empty((5, LANES), np.uint64),
        np.empty((5, LANES), np.uint64),
        np.zeros((LANES, 4), np.uint64),
        np.empty(LANES, np.intp),
    )
    for first in range(0, full, LANES):
        number = min(LANES, full - first)
        _group(train + first * stride, stride, number, plain, keys[first:], tags[first:], work)
    if full < count:  # Shorter than the others, so it goes alone.
        _group(train + full * stride, stride, 1, last, keys[full:], tags[full:], work)
    return tags


@compiled
def _group(
    train: int, stride: int, number: int, size: int, keys: Longs, tags: Longs, work: Any
) -> None:
    """The tags of up to eight messages of `size` bytes; lanes left over repeat the last."""
    r, h, ends, addresses = work
    rest = size % _SUM
    for lane in range(LANES):
        message = min(lane, number - 1)
        low, high = keys[message, 0] & _CLAMP_LOW, keys[message, 1] & _CLAMP_HIGH
        # 128 bits in limbs of 26.
        r[0, lane] = low & _LIMB
        r[1, lane] = low >> _U(26) & _LIMB
        r[2, lane] = (low >> _U(52) | high << _U(12)) & _LIMB
        r[3, lane] = high >> _U(14) & _LIMB
        r[4, lane] = high >> _U(40)
        for limb in range(5):
            h[limb, lane] = 0
        addresses[lane] = train + message * stride + HEADER
    absorb(addresses.ctypes.data, size // _SUM, r.ctypes.data, h.ctypes.data)
    # The last bytes, zero-padded, and the length block (RFC 8439 §2.8).
    skip = 0 if rest else _SUM
    for lane in range(LANES):
        end = ends.ctypes.data + lane * 2 * _SUM
        if rest:
            ends[lane, 0] = ends[lane, 1] = 0
            source = addresses[lane] + size - rest
            for at in range(rest):
                store8(end + at, load8(source + at))
        ends[lane, 3] = size
        addresses[lane] = end + skip
    absorb(addresses.ctypes.data, 2 - skip // _SUM, r.ctypes.data, h.ctypes.data)
    for lane in range(number):
        _finish(h[:, lane], keys[lane], tags[lane])


@compiled
def _finish(h: Longs, key: Longs, tag: Longs) -> None:
    """h modulo 2^130 - 5, plus s (RFC 8439 §2.5)."""
    for _ in range(2):  # Twice around, so that all limbs are small.
        over = _U(0)
        for i in range(5):
            h[i] += over
            over = h[i] >> _U(26)
            h[i] &= _LIMB
        h[0] += over * _FIVE
    # Is it p or more?  Then h + 5 reaches 2^130, and is h - p but for that bit.
    over = _FIVE
    for i in range(5):
        over = over + h[i] >> _U(26)
    add = over * _FIVE
    for i in range(5):
        add += h[i]
        h[i] = add & _LIMB
        add >>= _U(26)
    low = h[0] | h[1] << _U(26) | h[2] << _U(52)
    high = h[2] >> _U(12) | h[3] << _U(14) | h[4] << _U(40)
    tag[0] = low + key[2]
    tag[1] = high + key[3] + _U(tag[0] < low)


@compiled
def seal(
    buffer: Bytes, stride: int, count: int, last: int, index: int, counter: Any, key: Bytes
) -> None:
    """Label and seal `count` plaintexts in place, the last of `last` bytes.

    `index` is the receiver's, counters ascend from `counter`, which is unsigned; `key` has
    32 bytes.
    """
    train = buffer.ctypes.data
    for message in range(count):
        store64(train + message * stride, _U(4) | _U(index) << _U(32))
        store64(train + message * stride + _COUNTER, counter + _U(message))
    secret = key.ctypes.data
    _xor(train, stride, count, last, secret, np.ones(count, np.bool_))
    keys = _one_time_keys(train, stride, count, secret)
    tags = _tags(train, stride, count, last, keys)
    for message in range(count):
        size = last if message == count - 1 else stride - OVERHEAD
        tag = train + message * stride + HEADER + size
        store64(tag, tags[message, 0])
        store64(tag + 8, tags[message, 1])


@compiled
def open_(
    buffer: Bytes, stride: int, first: int, count: int, last: int, key: Bytes, good: Flags
) -> bool:
    """Open `count` messages from `first` on in place, the last with `last` plaintext bytes.

    `good` says of each whether its tag was right, the result whether all were.
    """
    train = buffer.ctypes.data + first * stride
    secret = key.ctypes.data
    keys = _one_time_keys(train, stride, count, secret)
    tags = _tags(train, stride, count, last, keys)
    all_good = True
    for message in range(count):
        size = last if message == count - 1 else stride - OVERHEAD
        tag = train + message * stride + HEADER + size
        wrong = tags[message, 0] ^ load64(tag) | tags[message, 1] ^ load64(tag + 8)
        good[message] = wrong == _U(0)
        all_good &= good[message]
    _xor(train, stride, count, last, secret, good)
    return all_good


@compiled
def ascend(buffer: Bytes, stride: int, first: int, count: int) -> bool:
    """Whether the counters of `count` messages from `first` on increase by one each."""
    at = buffer.ctypes.data + first * stride + _COUNTER
    start = load64(at)
    for message in range(count):  # noqa: SIM110 (no generator in compiled code)
        if load64(at + message * stride) != start + _U(message):
            return False
    return True
