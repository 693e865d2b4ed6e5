"""Signals as ordinary callbacks of the loop, and a watch for files removed from a folder.

Signals reach the loop through the interpreter's wake-up descriptor, so that none is
lost between two waits.  The folder is watched with dnotify (F_NOTIFY), which needs no
library and no inotify instance: of those a host with hundreds of interfaces has too few.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from wgpy.dataplane.loop import Callback, Loop
from wgpy.dataplane.ports import Clock
from wgpy.protocol.constants import NS

LOOK_INTERVAL: Final = 1 * NS
"""How often a folder is looked at where dnotify does not work."""


class Signals:
    """Calls `on`'s callbacks in the loop; main thread only.  `close` restores all."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callback] = {}
        self._old_handlers: dict[int, Any] = {}
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._old_wake = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        loop.watch(self._reader.fileno(), self._ready)

    def on(self, number: signal.Signals, callback: Callable[[signal.Signals], None]) -> None:
        """Call `callback` with the signal whenever it arrives."""
        self._callbacks[number] = lambda: callback(number)
        self._old_handlers[number] = signal.signal(number, _noted)

    def close(self) -> None:
        """As it was before."""
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wake)
        self._loop.release(self._reader)
        self._writer.close()

    def _ready(self) -> None:
        for number in set(self._reader.recv(4096)):
            if number in self._callbacks:
                self._callbacks[number]()


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up descriptor wakes the loop."""


class FolderWatch:
    """Calls `changed` when a file vanished from `folder`, or might have."""

    def __init__(
        self, folder: Path, changed: Callback, signals: Signals, loop: Loop, clock: Clock
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._next_look = 0
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        signals.on(signal.SIGIO, lambda _: changed())
        events = fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT
        try:
            fcntl.fcntl(self._fd, fcntl.F_NOTIFY, events)
        except OSError:
            loop.add_timed(self)

    def next_deadline(self) -> int:
        """For the loop, where there is no dnotify."""
        return self._next_look

    def handle_deadline(self) -> None:
        """Look."""
        self._next_look = self._clock.monotonic() + LOOK_INTERVAL
        self._changed()

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
