"""A train: transport messages of equal size, back to back in one buffer.

It is what one UDP GSO send takes and what one UDP GRO receive gives: every message has
the same size, only the last may be shorter.  `Geometry` is the fixed layout of such a
train: for one message size it holds, made once,

* numpy columns over the header fields (§5.4.6: type ‖ receiver_index ‖ counter), so that
  a few array operations write or read the headers of a whole train, and
* memoryviews of every plaintext, and in `NumpyRows` of every ciphertext, so that sealing
  and opening in place is one `map` over prepared objects.

Layout of message i, at ``i * stride``:

    0  type 04 00 00 00 │ 4  receiver_index │ 8  counter │ 16  plaintext … │ tag (16 bytes)

A `Slab` owns the buffer and caches the geometries in use.  Nothing here knows sessions,
peers or IP.
"""

from __future__ import annotations

import contextlib
from collections import deque
from functools import partial
from itertools import repeat
from typing import Any, Final

import numpy as np

from wgpy.dataplane.offload import MAX_MESSAGES, MAX_SENT, MAX_TRAIN
from wgpy.dataplane.train_tools import SLAB_SIZE, Bytes, Column, Slab
from wgpy.protocol.constants import (
    TAG_SIZE,
    TRANSPORT_HEADER_SIZE,
    TRANSPORT_OVERHEAD,
    TYPE_TRANSPORT,
)
from wgpy.protocol.crypto.openssl import OpenSslAead, TagMismatch

_INDEX_SHIFT: Final = 32
_NO_DATA: Final = repeat(None)

ARANGE: Final = np.arange(MAX_MESSAGES, dtype=np.uint64)


def message_head(index: int) -> int:
    """The first eight bytes of a transport message for `index`, as a little-endian number."""
    return TYPE_TRANSPORT | index << _INDEX_SHIFT


class Nonces:
    """Nonces (4 zero bytes ‖ LE64 counter) in one buffer, filled by one array operation."""

    __slots__ = ("counters", "views")

    def __init__(self) -> None:
        buffer = bytearray(12 * MAX_MESSAGES)
        view = memoryview(buffer)
        self.views = [view[i : i + 12] for i in range(0, len(buffer), 12)]
        self.counters: Column = np.ndarray(
            (MAX_MESSAGES,), "<u8", buffer, offset=4, strides=(12,)
        )


class Geometry:
    """Columns and plaintexts of a train with messages of `stride` bytes.

    `capacity` is how many messages one send may hold, `room` how many fit the buffer.
    """

    __slots__ = (
        "_view", "bytes", "capacity", "counters", "flat", "heads", "plain", "plaintexts",
        "room", "stride",
    )  # fmt: skip

    def __init__(self, buffer: bytearray, view: memoryview, stride: int) -> None:
        """`stride` from 32 (an empty packet) to the size of `buffer`."""
        self.stride = stride
        self.plain = stride - TRANSPORT_OVERHEAD
        self.capacity = max(1, min(MAX_SENT, MAX_TRAIN // stride))
        self.room = min(MAX_MESSAGES, SLAB_SIZE // stride)
        self._view = view
        self.flat: Bytes = np.frombuffer(buffer, np.uint8)
        shape, strides = (self.room,), (stride,)
        self.heads: Column = np.ndarray(shape, "<u8", buffer, 0, strides)
        self.counters: Column = np.ndarray(shape, "<u8", buffer, 8, strides)
        self.bytes: Bytes = np.ndarray(
            (self.room, stride), np.uint8, buffer, 0, (stride, 1)
        )
        body, tag = TRANSPORT_HEADER_SIZE, stride - TAG_SIZE
        starts = range(0, self.room * stride, stride)
        self.plaintexts = [view[i + body : i + tag] for i in starts]

    def message(self, index: int, plain: int) -> tuple[memoryview, memoryview]:
        """Plaintext and ciphertext views of a message with `plain` bytes of plaintext."""
        start = index * self.stride + TRANSPORT_HEADER_SIZE
        end = start + plain
        return self._view[start:end], self._view[start : end + TAG_SIZE]

    def train(self, count: int, last: int) -> memoryview:
        """The first `count` messages, the last with `last` plaintext bytes."""
        return self._view[: (count - 1) * self.stride + last + TRANSPORT_OVERHEAD]


class NumpyRows(Geometry):
    """`Rows` that seal and open message by message with package cryptography."""

    __slots__ = ("_nonces", "_sealed")

    def __init__(self, nonces: Nonces, buffer: bytearray, view: memoryview, stride: int) -> None:
        """`nonces` are overwritten by each call; all rows of a slab may share them."""
        super().__init__(buffer, view, stride)
        self._nonces = nonces
        starts = range(TRANSPORT_HEADER_SIZE, self.room * stride, stride)
        self._sealed = [view[i : i + stride - TRANSPORT_HEADER_SIZE] for i in starts]

    def seal(
        self, aead: OpenSslAead, count: int, last: int, index: int, counter: int
    ) -> memoryview:
        """As `Rows.seal`."""
        self.heads[:count] = message_head(index)
        nonces = self._nonces.counters[:count]
        np.add(ARANGE[:count], np.uint64(counter), out=nonces)
        self.counters[:count] = nonces
        plaintexts, sealed = self.plaintexts[:count], self._sealed[:count]
        if last != self.plain:
            plaintexts[-1], sealed[-1] = self.message(count - 1, last)
        seal = aead.cipher.encrypt_into
        deque(map(seal, self._nonces.views, plaintexts, _NO_DATA, sealed), 0)
        return self.train(count, last)

    def ascending(self, first: int, count: int) -> bool:
        """As `Rows.ascending`."""
        counters = self.counters[first : first + count]
        expected: Column = ARANGE[:count] + counters[0]
        return counters.tobytes() == expected.tobytes()

    def open(self, aead: OpenSslAead, first: int, count: int, last: int) -> list[int]:
        """As `Rows.open`."""
        self._nonces.counters[:count] = self.counters[first : first + count]
        end, views = first + count, self._nonces.views
        plaintexts, sealed = self.plaintexts[first:end], self._sealed[first:end]
        if last != self.plain:
            plaintexts[-1], sealed[-1] = self.message(end - 1, last)
        done: list[Any] = []
        wrong: list[int] = []
        open_ = aead.cipher.decrypt_into
        try:
            done.extend(map(open_, views, sealed, _NO_DATA, plaintexts))
            return wrong
        except TagMismatch:
            pass
        while len(done) < count:  # One message has failed: continue behind it.
            wrong.append(first + len(done))
            done.append(None)
            at = len(done)
            with contextlib.suppress(TagMismatch):
                done.extend(map(open_, views[at:], sealed[at:], _NO_DATA, plaintexts[at:]))
                break
        return wrong


def numpy_slab() -> Slab:
    """A slab of `NumpyRows`."""
    return Slab(partial(NumpyRows, Nonces()))
