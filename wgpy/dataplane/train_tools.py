"""The operations of the batch path on whole trains, as protocols: rows, segmenter, merger.

`wgpy.dataplane.interpreted` implements them in numpy, `wgpy.turbo` in compiled code.  The
path does not know which implementation it uses.  Nothing here knows sessions or peers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from wgpy.dataplane.offload import SuperPacket
from wgpy.protocol.crypto.openssl import OpenSslAead

Bytes = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]

SLAB_SIZE: Final = 2 << 16
"""A train of `MAX_TRAIN` bytes with its last message in full."""
_REMEMBERED: Final = 64
"""Geometries cached by a slab: some 20 KB each at 45 messages."""


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


class Rows(Protocol):
    """A train of messages of `stride` bytes, `plain` of them plaintext.

    `capacity` is how many messages one send may hold, `room` how many fit the buffer.
    """

    stride: int
    plain: int
    capacity: int
    room: int
    flat: Bytes
    heads: Column
    counters: Column
    bytes: Bytes
    plaintexts: list[memoryview]

    def message(self, index: int, plain: int) -> tuple[memoryview, memoryview]:
        """Plaintext and ciphertext views of a message with `plain` bytes of plaintext."""

    def seal(
        self, aead: OpenSslAead, count: int, last: int, index: int, counter: int
    ) -> memoryview:
        """Label and seal messages 0 … count-1; the last has `last` plaintext bytes.

        `index` is the receiver's, counters ascend from `counter`.  Returns the whole train.
        """

    def ascending(self, first: int, count: int) -> bool:
        """Whether the counters of `count` messages from `first` on increase by one each."""

    def open(self, aead: OpenSslAead, first: int, count: int, last: int) -> list[int]:
        """Open `count` messages from `first` in place, each with the counter in its header.

        The last has `last` plaintext bytes.  Returns the numbers of those whose tag is
        wrong.
        """


class Segmenter(Protocol):
    """Puts packets into the rows of one slab."""

    def segment(
        self, rows: Rows, buffer: bytearray, start: int, super_packet: SuperPacket, cut: Cut
    ) -> None:
        """Write the plaintexts of `cut` into `rows`, padded with zeros to their size.

        The super-packet lies at `start` of `buffer`, which has room for one more segment
        behind it; that part may be overwritten.
        """

    def gather(
        self, rows: Rows, buffer: bytearray, start: int, stride: int, count: int, size: int,
        checksum: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        """Copy `count` packets of `size` bytes, `stride` apart in `buffer`, into `rows`, padded.

        `checksum` is (start, offset) where NEEDS_CSUM asks to complete it: even offsets
        inside of the packets, see `complete_checksum`.
        """


class Merger(Protocol):
    """Merges runs of a train; owns the buffer in which super-packets are put together."""

    def merge(
        self, rows: Rows, first: int, count: int, last: int
    ) -> tuple[int, memoryview | None]:
        """Merge as many of the `count` opened messages from `first` on as belong together.

        `last` is the plaintext size of the last one; all others fill their rows.  Returns
        how many were dealt with, and the super-packet behind its virtio header (valid
        until the next call), or None: deliver these as they are.
        """


class Slab:
    """A reusable buffer for trains and a cache of geometries."""

    __slots__ = ("_make", "_rows", "buffer", "view")

    def __init__(self, make: Callable[[bytearray, memoryview, int], Rows]) -> None:
        """`make` makes the rows in (buffer, its view) for messages of so many bytes."""
        self.buffer = bytearray(SLAB_SIZE)
        self.view = memoryview(self.buffer)
        self._make = make
        self._rows: dict[int, Rows] = {}

    def rows(self, stride: int) -> Rows:
        """The geometry for messages of `stride` bytes (32 … `SLAB_SIZE`)."""
        rows = self._rows.get(stride)
        if rows is None:
            if len(self._rows) >= _REMEMBERED:
                del self._rows[next(iter(self._rows))]
            rows = self._rows[stride] = self._make(self.buffer, self.view, stride)
        return rows


class MakeMerger(Protocol):
    """`udp`: the device takes USO super-packets."""

    def __call__(self, *, udp: bool) -> Merger: ...


class Tools(NamedTuple):
    """Factories of the three; each path makes its own."""

    slab: Callable[[], Slab]
    segmenter: Callable[[], Segmenter]
    merger: MakeMerger
