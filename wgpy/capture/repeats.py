"""The same datagram seen twice: a capture on all interfaces, a mirror port, both sides of a NAT.

No sender repeats a datagram: every message of WireGuard has a fresh counter or key.  So
equal bytes within a moment are one datagram that was captured twice (or doubled by the
network, which one capture cannot tell apart), and equal bytes later are a replay.
"""

from __future__ import annotations

from typing import Final

from wgpy.protocol.constants import MS

WINDOW: Final = 100 * MS
"""How long the same datagram may pass capture points on one path."""
MIN_SIZE: Final = 16
"""Fewer bytes, where a capture cut them, do not tell two messages apart."""
_LIMIT: Final = 1 << 16


class Repeats:
    """Remembers datagrams for `WINDOW`."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}
        self.count = 0

    def first(self, frame: int, at: int, payload: bytes) -> int | None:
        """The frame in which the same datagram was first seen a moment ago, or None."""
        if len(payload) < MIN_SIZE:
            return None
        seen, key = self._seen, hash(payload)
        before = seen.get(key)
        if before is not None and abs(at - before[0]) <= WINDOW:
            self.count += 1
            return before[1]
        seen.pop(key, None)
        seen[key] = (at, frame)
        oldest = next(iter(seen))
        if len(seen) > _LIMIT or at - seen[oldest][0] > WINDOW:
            del seen[oldest]
        return None
