"""Working in another network namespace for a moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

CLONE_NEWNET: Final = 0x40000000


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread in the network namespace `namespace` (a descriptor); raises OSError."""
    import ctypes  # Only here: it costs start-up time.

    libc = ctypes.CDLL(None, use_errno=True)

    def enter(fd: int) -> None:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)
