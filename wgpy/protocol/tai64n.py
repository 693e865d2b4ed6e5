"""TAI64N timestamps (§5.1, §5.4): 8 bytes of seconds, 4 of nanoseconds, big-endian.

Receivers only compare them as 96-bit numbers.  The low 24 bits of the nanoseconds are
zeroed (§5.1 allows it), as in the kernel, so that the clock is revealed to 16 ms only.
"""

from __future__ import annotations

import struct

from wgpy.protocol.constants import NS

_LAYOUT = struct.Struct(">QI")
TAI64_BASE = (1 << 62) + 10
"""TAI64 label of 1970-01-01 00:00:00 TAI, plus the ten leap seconds before 1972."""
GRAIN = 1 << 24
"""Granularity in nanoseconds, 16.8 ms."""


def encode(wall: int) -> bytes:
    """12 bytes for `wall` ns since 1970."""
    seconds, nanoseconds = divmod(wall, NS)
    return _LAYOUT.pack(TAI64_BASE + seconds, nanoseconds // GRAIN * GRAIN)


def decode(timestamp: bytes) -> int:
    """Wall-clock ns of a 12-byte timestamp made by `encode` (any other base gives nonsense)."""
    seconds, nanoseconds = _LAYOUT.unpack(timestamp)
    result: int = (seconds - TAI64_BASE) * NS + nanoseconds
    return result


class TimestampSource:
    """Wall-clock time from a monotonic clock and one anchor; what it issues strictly grows.

    A peer keeps the greatest timestamp it saw (§5.1): were the wall clock stepped back, or
    two initiations made within one grain, it would refuse ours until the clock caught up.
    """

    __slots__ = ("_last", "_last_stamp", "_offset")

    def __init__(self, *, now: int, wall: int) -> None:
        self._offset = wall - now
        self._last = 0
        self._last_stamp = b""

    def anchor(self, *, now: int, wall: int) -> None:
        """The wall clock says `wall` at monotonic `now` (both ns)."""
        self._offset = wall - now

    def wall(self, now: int) -> int:
        """Wall-clock ns at monotonic `now`, never negative."""
        return max(0, now + self._offset)

    def issue(self, now: int) -> bytes:
        """A timestamp greater than every one issued before."""
        wall = self.wall(now)
        stamp = encode(wall)
        if stamp <= self._last_stamp:
            # One grain later is greater even where it crosses into the next second.
            wall = self._last + GRAIN
            stamp = encode(wall)
        self._last, self._last_stamp = wall, stamp
        return stamp
