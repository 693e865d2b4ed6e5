"""A TCP conversation between two namespaces, driven from this program.

The sockets are opened inside the namespaces and stay there; connecting never blocks, so
that the demo or a test can watch the same connection while the cluster changes.
"""

from __future__ import annotations

import select
import socket
import time
from types import TracebackType

from testbed.namespaces import Namespace
from testbed.topology import Address


class Server:
    """Listens in a namespace.  A context manager."""

    def __init__(self, space: Namespace, address: Address, port: int = 8080) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._listener = space.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((str(address), port))
        self._listener.listen(16)
        self._listener.setblocking(False)
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in (*self._accepted, self._listener):
            connection.close()

    def accept(self, seconds: float = 10) -> socket.socket:
        """The next connection; raises TimeoutError."""
        if not select.select([self._listener], [], [], seconds)[0]:
            raise TimeoutError("no connection")
        connection, _address = self._listener.accept()
        connection.settimeout(seconds)
        self._accepted.append(connection)
        return connection


class Client:
    """One connection attempt from a namespace.  A context manager."""

    def __init__(self, space: Namespace, address: Address, port: int = 8080) -> None:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.socket = space.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.started = time.monotonic()
        self.socket.connect_ex((str(address), port))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def connected(self, seconds: float) -> bool:
        """Whether the handshake completes in time; raises the connection's error."""
        if not select.select([], [self.socket], [], seconds)[1]:
            return False
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        self.socket.settimeout(10)
        return True

    def source(self) -> tuple[str, int]:
        """The local address and port: the same for the life of the connection."""
        name = self.socket.getsockname()
        return str(name[0]), int(name[1])
