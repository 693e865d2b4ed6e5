"""The life cycle of one data plane process, from its devices to the last removed file.

`Service(...)` makes all that can fail (TUN device, UAPI socket, control socket); `run`
works until there is a reason to end, then leaves nothing behind.  The reasons: a signal,
the TUN device deleted, the UAPI socket removed or replaced.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from wgpy.control.policy import ControlledPolicy
from wgpy.control.server import ControlServer, Record
from wgpy.dataplane.interface import Interface
from wgpy.dataplane.loop import Loop, Timer
from wgpy.dataplane.ports import DeviceGone
from wgpy.dataplane.trace import in_words
from wgpy.linux.clock import LinuxClock, entropy
from wgpy.linux.edges import open_edges
from wgpy.linux.link import LinkWatch
from wgpy.linux.signals import FolderWatch, Signals
from wgpy.linux.uapi_server import UapiServer
from wgpy.linux.unix_socket import UnixListener
from wgpy.protocol.crypto import BackendName, backend
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import Event
from wgpy.sockets import CONTROL, socket_path
from wgpy.uapi import UapiError

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ServiceLog(Protocol):
    """Where the service tells what happens; `level` 2 wants every event."""

    level: int

    def error(self, text: str) -> None: ...
    def verbose(self, text: str) -> None: ...


class Service:
    """A WireGuard interface and its UAPI socket, ready when constructed."""

    def __init__(
        self,
        name: str,
        *,
        crypto: str,
        log: ServiceLog,
        policy: ControlledPolicy | None = None,
        offload: bool = True,
        turbo: bool = False,
        record: Record | None = None,
        attach: Sequence[Callable[[Interface], Callable[[], None]]] = (),
    ) -> None:
        """Raises `TunError`, `SocketInUse` or OSError, and leaves nothing then.

        `offload` asks for the batch path, which seals with the openssl backend only.
        `turbo` takes the compiled tools (`wgpy.turbo`).
        `record` starts captures for clients of the control socket; each of `attach` is given
        the running interface and returns what to call at the end.
        """
        self._policy = policy
        self._log = log
        self._record = record
        self._attach = attach
        # Held back until `run` listens: one that comes now must not leave the socket behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        self._clock = LinuxClock()
        offload = offload and crypto == "openssl"
        self._tun, self._udp, self._make_path = open_edges(
            name, offload=offload, report=log.error, turbo=turbo
        )
        try:
            self._listener = UnixListener(socket_path(self._tun.name))
            self._control = UnixListener(socket_path(self._tun.name, CONTROL))
        except BaseException:
            if hasattr(self, "_listener"):
                self._listener.close()
            self._tun.close()
            raise
        provider = backend(cast(BackendName, crypto))
        if turbo:
            from wgpy.turbo import TurboCrypto

            provider = TurboCrypto()
        self._engine = Engine(
            crypto=provider,
            entropy=entropy,
            now=self._clock.monotonic(),
            wall=self._clock.wall(),
            mtu=self._tun.mtu,
            policy=policy,
        )
        self._reason = ""

    def run(self) -> str:
        """Work; returns why it ended.  To be called once, in the main thread, after any fork."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._tun.close)
            stack.callback(self._listener.close)
            stack.callback(self._control.close)
            self._loop = Loop(self._clock)
            stack.callback(self._loop.close)
            self._interface = Interface(
                self._engine,
                self._tun,
                self._udp,
                self._clock,
                self._loop,
                path=self._make_path,
                warn=self._log.error,
            )
            stack.callback(self._interface.close)
            server = UapiServer(
                self._listener,
                self._interface,
                self._loop,
                report=self._report,
                say=self._log.error,
            )
            stack.callback(server.close)
            control = ControlServer(
                self._control, self._interface, self._policy, record=self._record
            )
            stack.callback(control.close)
            for attach in self._attach:
                stack.callback(attach(self._interface))
            if self._log.level >= 2:
                self._interface.listen(self._trace)
            self._watch_endings(stack)
            try:
                self._follow_link(stack)
                self._loop.run()
            except DeviceGone:
                self._reason = "the TUN device was deleted"
        return self._reason

    def _watch_endings(self, stack: contextlib.ExitStack) -> None:
        """Signals, and the removal of the socket (which may have happened already)."""
        signals = Signals(self._loop)
        stack.callback(signals.close)
        for number in ENDING_SIGNALS:
            signals.on(number, lambda number: self._end(number.name))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        folder = self._listener.path.parent
        watch = FolderWatch(folder, self._check_socket, signals, self._loop, self._clock)
        stack.callback(watch.close)
        self._loop.call(self._check_socket)

    def _check_socket(self) -> None:
        if not self._listener.in_place:
            self._end(f"{self._listener.path} was removed")

    def _end(self, reason: str) -> None:
        self._reason = reason
        self._loop.stop()

    def _follow_link(self, stack: contextlib.ExitStack) -> None:
        """Take the link's state now and whenever the bell rings."""
        link = LinkWatch(self._tun, self._clock)
        stack.callback(link.close)

        def ring() -> None:
            state = link.state()
            self._udp.routes_changed()
            self._interface.set_link(up=state.up, mtu=state.mtu)

        self._loop.watch(link.fileno(), ring)
        self._loop.add_timed(Timer(link.next_deadline, ring))
        ring()

    def _report(self, error: UapiError) -> None:
        self._log.error(f"configuration refused: {error}")

    def _trace(self, event: Event) -> None:
        self._log.verbose(in_words(event))
