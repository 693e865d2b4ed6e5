"""The replay window (§5.4.6): which counters were received, as one Python integer.

Bit i of the bitmap is counter ``greatest - i``.  The window is checked only *after* the
tag was verified, so a forged packet can neither consume a counter nor move it.  The
paper leaves the size open; `size` counters behind the greatest are remembered exactly.
"""

from __future__ import annotations

from wgpy.protocol.drops import DropReason


class ReplayWindow:
    """Accepts each counter at most once, and none that is `size` or more behind."""

    __slots__ = ("_bitmap", "_mask", "greatest", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.greatest = -1
        self._mask = (1 << size) - 1
        self._bitmap = 0

    def accept(self, counter: int) -> DropReason | None:
        """Mark an authenticated `counter`; the reason when it must not be delivered."""
        ahead = counter - self.greatest
        if ahead > 0:
            self._advance(ahead, 1)
            return None
        if -ahead >= self.size:
            return DropReason.COUNTER_TOO_OLD
        bit = 1 << -ahead
        if self._bitmap & bit:
            return DropReason.REPLAYED
        self._bitmap |= bit
        return None

    def accept_run(self, first: int, count: int) -> bool:
        """Mark `count` consecutive counters above the greatest in one step.

        False, with nothing changed, when the run does not lie wholly above: then each
        counter is to be asked for by itself.
        """
        ahead = first + count - 1 - self.greatest
        if first <= self.greatest or count <= 0:
            return False
        self._advance(ahead, (1 << count) - 1)
        return True

    def _advance(self, ahead: int, bits: int) -> None:
        """Move the front by `ahead` and set `bits`, counted from the new front."""
        if ahead < self.size:
            self._bitmap = (self._bitmap << ahead | bits) & self._mask
        else:
            self._bitmap = bits & self._mask
        self.greatest += ahead
