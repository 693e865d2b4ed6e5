"""The event loop: epoll, one deadline, and a queue of calls from other threads.

The owner of a descriptor registers it with a callback (`watch`).  A callback handles a
bounded batch and returns: the rest is ready again at once, behind all other ready
descriptors, so that neither direction, nor the configuration socket, nor a timer starves.
Nothing is called twice in one round, and deadlines are checked in every round.

An exchange of single packets is mostly waiting, and putting a core to sleep and waking it
takes longer than the wait.  So if recent waits were short, the loop polls for a while
before it sleeps (`_wait`) and yields the CPU between polls.  An idle loop sleeps, and so
does a busy one: there, sleeping makes larger batches.

Not asyncio: one turn of this loop costs less than a tenth of one of asyncio's datagram
callbacks, and the per-packet cost is what counts here.

The loop knows nothing of WireGuard; `wgpy.dataplane.interface` does the work.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from wgpy.dataplane.ports import Clock
from wgpy.protocol.constants import NS

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
MAX_READY: Final = 32
"""Descriptors looked at in one round; others keep their turn for the next."""

LOOK_AGAIN: Final = 100_000
"""ns to poll before sleeping, if the usual wait and the last work phase were shorter."""
MAX_LOOKS: Final = 1000
"""Upper bound of polls in one wait, in case the clock does not advance."""
LONG_WAIT: Final = 4 * LOOK_AGAIN
"""Longer waits count as this much: one pause does not end an exchange."""
MEMORY: Final = 8
"""Number of waits over which the usual wait is averaged."""

Callback = Callable[[], None]


class Timed(Protocol):
    """An owner of deadlines: `next_deadline` in the clock's monotonic ns, None for none."""

    def next_deadline(self) -> int | None: ...
    def handle_deadline(self) -> None: ...


class Timer(NamedTuple):
    """What has deadlines, of two functions."""

    next_deadline: Callable[[], int | None]
    handle_deadline: Callback


class Closable(Protocol):
    """A descriptor and its end."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


class Loop:
    """Runs callbacks until `stop`; one per thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timed: list[Timed] = []
        self._calls: deque[Callback] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopped = False
        self._usual_wait = LONG_WAIT
        self._woke = clock.monotonic()
        self.watch(self._wake, self._run_calls)

    def watch(self, fd: int, callback: Callback, events: int = READ) -> None:
        """Call `callback` whenever `fd` has one of `events`, or an error or hang-up.

        Level-triggered.  A second `watch` of the same descriptor replaces the first.
        """
        try:
            if fd in self._callbacks:
                self._epoll.modify(fd, events)
            else:
                self._epoll.register(fd, events)
        except FileNotFoundError:
            # Closed without `unwatch`, and the number is another descriptor's by now.
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed.  Unknown descriptors are ignored."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def release(self, watched: Closable) -> None:
        """Unwatch and close, in this order: the number may be used again at once."""
        self.unwatch(watched.fileno())
        watched.close()

    def add_timed(self, timed: Timed) -> None:
        """Ask `timed` for its next deadline in every round."""
        self._timed.append(timed)

    def call(self, callback: Callback) -> None:
        """Run `callback` in the loop's thread soon; may be called from any thread."""
        self._calls.append(callback)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """`run` returns after the callback that is running."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            self.turn()

    def turn(self, patience: float | None = None) -> None:
        """One round: deadlines, wait (at most `patience` seconds), call what is ready.

        A round that only waited looks at the deadlines again, for one has likely come.
        """
        ready = self._wait(self._until_due(patience))
        for fd, _ in ready:
            # An earlier callback of this round may have unwatched it.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()
                if self._stopped:
                    return
        if not ready:
            self._until_due(None)

    def close(self) -> None:
        """Release the loop's own descriptors."""
        self._epoll.close()
        os.close(self._wake)

    def _wait(self, limit: float | None) -> list[tuple[int, int]]:
        """What is ready, after at most `limit` seconds (and `LOOK_AGAIN`); None: for ever."""
        poll = self._epoll.poll
        ready = poll(0, MAX_READY)
        if ready or limit == 0:
            self._usual_wait -= self._usual_wait // MEMORY
            return ready
        begin = self._clock.monotonic()
        if self._usual_wait < LOOK_AGAIN and begin - self._woke < LOOK_AGAIN:
            ready = self._look_again(begin + LOOK_AGAIN)
        if not ready:
            ready = poll(limit, MAX_READY)
        self._woke = self._clock.monotonic()
        waited = min(self._woke - begin, LONG_WAIT)
        self._usual_wait += (waited - self._usual_wait) // MEMORY
        return ready

    def _look_again(self, until: int) -> list[tuple[int, int]]:
        """Poll for ready descriptors `until` then, without sleeping."""
        poll, clock = self._epoll.poll, self._clock.monotonic
        for _ in range(MAX_LOOKS):
            os.sched_yield()
            ready = poll(0, MAX_READY)
            if ready or clock() >= until:
                break
        return ready

    def _until_due(self, patience: float | None) -> float | None:
        """Handle what is due; then the seconds to wait for the next deadline, None for ever.

        epoll rounds up to whole milliseconds.
        """
        wait = patience
        for timed in self._timed:
            due = timed.next_deadline()
            if due is None:
                continue
            left = due - self._clock.monotonic()
            if left <= 0:
                timed.handle_deadline()
                left = 0  # What is due next, the next round will know.
            if wait is None or left < wait * NS:
                wait = left / NS
        return wait

    def _run_calls(self) -> None:
        """What is there now; what these calls add waits for the next round."""
        os.eventfd_read(self._wake)
        for _ in range(len(self._calls)):
            self._calls.popleft()()
