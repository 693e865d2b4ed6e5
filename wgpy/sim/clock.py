"""A clock that jumps from one event to the next, and the heap of planned events.

Two events at the same nanosecond happen in the order in which they were planned, so a
run depends on nothing but its seed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

WALL_START: Final = 1_700_000_000 * 10**9
"""Wall-clock ns at which a simulation begins unless told otherwise (November 2023)."""


class VirtualClock:
    """`wgpy.dataplane.ports.Clock` without a clock: time is what `advance_to` was told."""

    __slots__ = ("_now", "_offset")

    def __init__(self, *, now: int = 0, wall: int = WALL_START) -> None:
        self._now = now
        self._offset = wall - now

    def monotonic(self) -> int:
        """Simulated ns, never going back."""
        return self._now

    def wall(self) -> int:
        """Simulated ns since 1970; `step_wall` may make it jump either way."""
        return self._now + self._offset

    def advance_to(self, when: int) -> None:
        """Move on to `when`; raises ValueError when that is in the past."""
        if when < self._now:
            raise ValueError(f"time cannot go back from {self._now} to {when}")
        self._now = when

    def step_wall(self, delta: int) -> None:
        """Step the wall clock, as an administrator or NTP does; monotonic time continues."""
        self._offset += delta


class Scheduler:
    """Actions to run at their times, on a heap."""

    __slots__ = ("_heap", "_planned", "clock", "executed")

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.executed = 0
        self._planned = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []

    def at(self, when: int, action: Callable[[], None]) -> None:
        """Run `action` at `when` (ns), or at once if that has passed."""
        self._planned += 1
        heapq.heappush(self._heap, (max(when, self.clock.monotonic()), self._planned, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        """Run `action` `delay` ns from now."""
        self.at(self.clock.monotonic() + delay, action)

    def next_at(self) -> int | None:
        """When the next action is due."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> bool:
        """Advance to the next action and run it; False when there is none."""
        if not self._heap:
            return False
        when, _, action = heapq.heappop(self._heap)
        self.clock.advance_to(when)
        self.executed += 1
        action()
        return True

    def run_until(self, when: int) -> None:
        """Run everything due up to and at `when`, and leave the clock there."""
        while self._heap and self._heap[0][0] <= when:
            self.step()
        self.clock.advance_to(when)

    def __len__(self) -> int:
        return len(self._heap)
