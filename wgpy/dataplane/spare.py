"""Reading in a share of the time: what may be a flood must not hold up what is not.

Handshake messages come from anybody, and each costs more than a data packet.  They wait
in sockets of their own, which are bounded queues, and `SpareReader` reads these only for
a part of the loop's time: while there is some saved up.  Then it looks away and leaves
the loop to the data.  A peer's handshake now and then is answered at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Final

from wgpy.dataplane.loop import Loop
from wgpy.dataplane.ports import Clock
from wgpy.protocol.constants import MS

SAVED_AT_MOST: Final = 10 * MS
"""Time that a burst may take before it has to wait; the loop's other work goes on beside."""
PART: Final = 4
"""In the long run one `PART`-th of the time."""


class SpareReader:
    """Watches descriptors in a loop, but only while they took no more than their share."""

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        read: Callable[[int], None],
        used_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`read` takes a bounded batch from a descriptor; `used_up` is called at each pause."""
        self._loop = loop
        self._clock = clock
        self._read = read
        self._used_up = used_up
        self._fds: tuple[int, ...] = ()
        self._saved = SAVED_AT_MOST
        self._left_at = 0
        self._resume_at: int | None = None
        loop.add_timed(self)

    def watch(self, fds: Sequence[int]) -> None:
        """Read these from now on; they replace all others."""
        self.unwatch()
        self._fds = tuple(fds)
        if self._resume_at is None:
            self._look()

    def unwatch(self) -> None:
        """Read nothing more; to be called before the descriptors are closed."""
        for fd in self._fds:
            self._loop.unwatch(fd)
        self._fds = ()

    def next_deadline(self) -> int | None:
        """For the loop: when to look again."""
        return self._resume_at

    def handle_deadline(self) -> None:
        """For the loop: the others had their time."""
        self._resume_at = None
        self._look()

    def _look(self) -> None:
        for fd in self._fds:
            self._loop.watch(fd, functools.partial(self._ready, fd))

    def _ready(self, fd: int) -> None:
        begin = self._clock.monotonic()
        earned = (begin - self._left_at) // (PART - 1)
        self._saved = min(SAVED_AT_MOST, self._saved + earned)
        self._read(fd)
        self._left_at = self._clock.monotonic()
        self._saved -= self._left_at - begin
        if self._saved > 0:
            return
        self._resume_at = self._left_at + (SAVED_AT_MOST - self._saved) * (PART - 1)
        for watched in self._fds:
            self._loop.unwatch(watched)
        self._used_up()
