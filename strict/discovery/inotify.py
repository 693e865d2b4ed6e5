"""A descriptor that is readable when something in a folder changes: inotify(7).

The standard library has no inotify, and three C functions are less than a dependency.
Where inotify is refused (too many watches, no such folder) the descriptor is -1, and
the caller polls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

_IN_CLOSE_WRITE: Final = 0x8
_IN_MOVED: Final = 0xC0
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200

_libc: Final = ctypes.CDLL(None, use_errno=True)


class FolderBell:
    """Readable when a file in `folder` was written, moved, created or removed."""

    def __init__(self, folder: Path) -> None:
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            mask = _IN_CLOSE_WRITE | _IN_MOVED | _IN_CREATE | _IN_DELETE
            if _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask) < 0:
                self.close()

    def fileno(self) -> int:
        """-1 if inotify is not available."""
        return self._descriptor

    def silence(self) -> None:
        """Discard the pending events."""
        with contextlib.suppress(OSError):
            while self._descriptor >= 0 and os.read(self._descriptor, 1 << 16):
                pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
