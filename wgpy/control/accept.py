"""Taking clients of a listening socket, also when this process may open nothing more.

A client that cannot be accepted keeps the listener ready, so the loop would ask again and
again: the listener is left alone for a while instead, and the log says which limit it is.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable
from typing import Final, Protocol

from wgpy.dataplane.loop import Loop
from wgpy.dataplane.ports import Clock
from wgpy.protocol.constants import NS

BACK_OFF: Final = NS
LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What `accept` says when it is not the client's fault."""


class Listener(Protocol):
    """A listening unix socket (`wgpy.linux.unix_socket.UnixListener`)."""

    def fileno(self) -> int: ...

    def accept(self) -> socket.socket | None:
        """The next client; None if there is none.  Raises OSError of `LIMITS`."""

    def close(self) -> None: ...


class Acceptor:
    """Gives clients to `take`, until `close`."""

    def __init__(
        self,
        listener: Listener,
        loop: Loop,
        clock: Clock,
        take: Callable[[socket.socket], None],
        say: Callable[[str], None],
    ) -> None:
        """`say` is told, once until clients come again, that none can be accepted."""
        self._listener = listener
        self._loop = loop
        self._clock = clock
        self._take = take
        self._say = say
        self._said = False
        self._resume_at: int | None = None
        loop.watch(listener.fileno(), self._accept)
        loop.add_timed(self)

    def close(self) -> None:
        """Stop listening."""
        self._resume_at = None
        self._loop.release(self._listener)

    def next_deadline(self) -> int | None:
        """For the loop: when to try again."""
        return self._resume_at

    def handle_deadline(self) -> None:
        """For the loop."""
        self._resume_at = None
        self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            client = self._listener.accept()
        except OSError as error:
            self._loop.unwatch(self._listener.fileno())
            self._resume_at = self._clock.monotonic() + BACK_OFF
            if not self._said:
                self._said = True
                self._say(f"clients have to wait: {limit_in_words(error)}")
            return
        if client is not None:
            self._said = False
            self._take(client)


def limit_in_words(error: OSError) -> str:
    """Which limit was met, and what to do."""
    if error.errno != errno.EMFILE:
        return f"{error.strerror}"
    number = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"this process may have {number} files open (RLIMIT_NOFILE), and has:"
        " start it with more (`ulimit -n`, LimitNOFILE= in a unit)"
    )
