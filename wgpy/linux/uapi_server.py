"""The UAPI socket, /var/run/wireguard/IFACE.sock, served: through it `wg` configures.

`UapiServer` answers connections inside the data plane's loop without holding it up:
reading and writing never block, and text is read and written by one worker thread, so
that a message with 100,000 allowed IPs does not stop the packets.  Only taking a snapshot
and applying a change happen in the loop's thread.

What the text means is `wgpy.uapi`'s.  The text holds keys: it is never logged.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol, TypeVar

from wgpy.control.accept import Acceptor
from wgpy.dataplane.loop import READ, WRITE, Loop
from wgpy.linux.clock import LinuxClock
from wgpy.linux.unix_socket import BACKLOG, UnixListener
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot
from wgpy.uapi import Reply, RequestReader, UapiError, format_set_reply, respond

CHUNK: Final = 1 << 16
MAX_CONNECTIONS: Final = BACKLOG
"""For one more, the client that has been silent for longest goes."""

T = TypeVar("T")


class Configurable(Protocol):
    """What the server configures: `wgpy.dataplane.interface.Interface`."""

    def configure(self, change: DeviceChange) -> None: ...
    def snapshot(self) -> DeviceSnapshot: ...
    def now(self) -> int: ...


class UapiServer:
    """Serves UAPI connections in `loop`; `close` ends them all and removes the socket."""

    def __init__(
        self,
        listener: UnixListener,
        interface: Configurable,
        loop: Loop,
        *,
        report: Callable[[UapiError], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`report` is told why a request was refused, `say` why nobody can be accepted.

        No secret is in an explanation.
        """
        self._interface = interface
        self._loop = loop
        self._report = report
        self._clients: dict[int, _Connection] = {}
        self._work: SimpleQueue[tuple[_Connection, str]] | None = None
        self._acceptor = Acceptor(listener, loop, LinuxClock(), self._take, say)

    def close(self) -> None:
        """Drop all clients and remove the socket."""
        for connection in list(self._clients.values()):
            connection.close()
        self._acceptor.close()

    def _take(self, client: socket.socket) -> None:
        if len(self._clients) >= MAX_CONNECTIONS:
            silent = (c for c in self._clients.values() if c.is_silent)
            # If nobody is, the one that has waited for longest is no loss to others.
            next(silent, next(iter(self._clients.values()))).close()
        connection = _Connection(client, self._loop, self._ask, self._forget)
        self._clients[client.fileno()] = connection

    def _forget(self, fd: int) -> None:
        del self._clients[fd]

    def _ask(self, connection: _Connection, request: str) -> None:
        """Let the worker answer; it starts with the first request (never before a fork)."""
        # Whoever asks now has been silent for the shortest time.
        self._clients[connection.fd] = self._clients.pop(connection.fd)
        if self._work is None:
            self._work = SimpleQueue()
            threading.Thread(
                target=self._answer_all, args=(self._work,), name="uapi", daemon=True
            ).start()
        self._work.put((connection, request))

    def _answer_all(self, work: SimpleQueue[tuple[_Connection, str]]) -> None:
        """The worker thread: one request after the other, so that all see one order."""
        while True:
            connection, request = work.get()
            try:
                reply = respond(
                    request,
                    snapshot=lambda: self._in_loop(self._interface.snapshot),
                    apply=lambda change: self._in_loop(lambda: self._interface.configure(change)),
                    now=lambda: self._in_loop(self._interface.now),
                    zone=socket.if_nametoindex,
                )
            except Exception as error:  # A defect must not leave `wg` waiting for ever.
                number = errno.EIO
                reply = Reply(
                    format_set_reply(number), UapiError(number, 0, "", type(error).__name__)
                )
            self._loop.call(lambda c=connection, r=reply: self._finish(c, r))  # type: ignore[misc]

    def _in_loop(self, function: Callable[[], T]) -> T:
        """Run `function` in the loop's thread and wait for its result or exception."""
        result: SimpleQueue[T | BaseException] = SimpleQueue()

        def run() -> None:
            try:
                result.put(function())
            except Exception as error:
                result.put(error)

        self._loop.call(run)
        outcome = result.get()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _finish(self, connection: _Connection, reply: Reply) -> None:
        if reply.error is not None:
            self._report(reply.error)
        connection.reply(reply.text)


class _Connection:
    """One client: a request is read whole, answered, and only then the next one looked at."""

    def __init__(
        self,
        client: socket.socket,
        loop: Loop,
        ask: Callable[[_Connection, str], None],
        forget: Callable[[int], None],
    ) -> None:
        self._socket = client
        self._fd = client.fileno()
        self._asked = False
        self._loop = loop
        self._ask = ask
        self._forget = forget
        self._reader = RequestReader()
        self._requests: deque[str] = deque()
        self._output = memoryview(b"")
        self._closing = False
        loop.watch(self._fd, self._ready, READ)

    def reply(self, text: str) -> None:
        """Send `text`, as fast as the client takes it, then go on with the next request."""
        if self._fd < 0:
            return
        self._asked = False
        self._output = memoryview(text.encode())
        self._write()

    @property
    def fd(self) -> int:
        """Its descriptor; negative when it is closed."""
        return self._fd

    @property
    def is_silent(self) -> bool:
        """Whether it waits for nothing: no whole request, no answer on its way."""
        return not self._asked and not self._output

    def close(self) -> None:
        """Forget the client and what it still wanted."""
        if self._fd >= 0:
            self._loop.release(self._socket)
            fd, self._fd = self._fd, -1
            self._forget(fd)

    def _ready(self) -> None:
        if self._output:
            self._write()
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
            self._requests.extend(self._reader.feed(data) if data else ())
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        except UapiError as error:
            self._closing = True
            self.reply(format_set_reply(error.errno))
            return
        if not data:
            self.close()
        elif self._requests:
            self._next()

    def _next(self) -> None:
        """Ask for the next answer; until it is written, the client is not read."""
        self._loop.unwatch(self._fd)
        self._asked = True
        self._ask(self, self._requests.popleft())

    def _write(self) -> None:
        try:
            while self._output:
                self._output = self._output[self._socket.send(self._output[: 4 * CHUNK]) :]
        except BlockingIOError:
            self._loop.watch(self._fd, self._ready, WRITE)
            return
        except OSError:
            self.close()
            return
        if self._closing:
            self.close()
        elif self._requests:
            self._next()
        else:
            self._loop.watch(self._fd, self._ready, READ)
