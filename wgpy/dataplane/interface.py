"""One running WireGuard interface: engine, TUN device, UDP sockets and clock in a loop.

This connects the sans-IO engine to its ports and knows nothing about WireGuard.  It
* carries packets (`Path`; `PlainPath` is the readable one, one packet at a time), and
  established traffic first (`spare`),
* applies configuration: what belongs to the sockets first, because that can fail,
* follows the link: sockets are open while the link is up, as with the kernel's device,
* gives the engine the time, its deadlines and now and then the wall clock,
* passes the engine's events to the listeners (`listeners`: the one place that drains
  them), and counts what the ports refuse under the drop's name.

Extension points: `path` takes a batch pipeline in place of `PlainPath`; `loop` takes more
descriptors with their callbacks (a control socket); `listen` takes a log, `log_keys` a key
log, `tap` a capture.  What the engine traces and which ports carry packets follows from who
is there now, so that anybody may come and go in any order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from wgpy.dataplane.loop import Loop
from wgpy.dataplane.ports import Clock, TunPort, UdpPort
from wgpy.dataplane.spare import SpareReader
from wgpy.protocol.constants import NS
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.drops import DropReason
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import Direction, Event
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot

BATCH: Final = 64
"""Packets taken in one callback, from either side: the bound of unfairness."""

UNDER_LOAD: Final = 1 / 8
"""Filled part of the queue of handshakes from which on we are under load, as in the kernel."""

WALL_CLOCK_INTERVAL: Final = 1 * NS

_T = TypeVar("_T")


class Path(Protocol):
    """Carries packets between the ports and the engine; called by the loop.

    `tun_ready` and `udp_ready` take a bounded batch and may raise `DeviceGone`; `flush`
    carries out what the engine has after a deadline or a change of configuration.
    """

    def tun_ready(self) -> None: ...
    def udp_ready(self, fd: int) -> None: ...
    def flush(self) -> None: ...


class Tap(Protocol):
    """Stands between the ports and the data path, and sees what passes, as a capture does."""

    def tun(self, tun: TunPort) -> TunPort:
        """What takes the place of the TUN port, with the same descriptor."""

    def udp(self, udp: UdpPort) -> UdpPort:
        """What takes the place of the UDP port, with the same descriptors."""

    def path(self, path: Path) -> Path:
        """What takes the place of the data path."""


class Interface:
    """The running interface.  Not thread-safe: everything happens in the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        tun: TunPort,
        udp: UdpPort,
        clock: Clock,
        loop: Loop,
        *,
        path: Callable[[Interface], Path] | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Joins the loop at once, with the link down until `set_link`.

        `path` makes the data path (`PlainPath` if None) when the link first comes up.
        """
        self.engine = engine
        self.tun = tun
        self.udp = udp
        self.clock = clock
        self.loop = loop
        self.listeners: list[Callable[[Event], None]] = []
        """Who is told each event; changed by `listen` only."""
        self.on_configured: list[Callable[[], None]] = []
        """Called after each change of configuration, before anything it causes is sent."""
        self._key_logs: list[Callable[[HandshakeKeys], None]] = []
        self._taps: list[Tap] = []
        self._ports = tun, udp
        self.warn = warn
        """Told, in words, of what goes wrong without a caller to tell it to."""
        self._link_up = False
        self._anchored = clock.monotonic()
        self._make_path: Callable[[Interface], Path] = path or PlainPath
        # Nothing passes before the link is up: what the real path imports can wait till then.
        self.path: Path = PlainPath(self)
        self._path_is_made = False
        engine.set_up(False, now=self._anchored)
        loop.watch(tun.fileno(), self.path.tun_ready)
        loop.add_timed(self)
        self._handshakes = SpareReader(
            loop, clock, lambda fd: self.path.udp_ready(fd), self._handshakes_wait
        )

    def now(self) -> int:
        """Monotonic ns for the engine, whose idea of the wall clock it keeps fresh."""
        now = self.clock.monotonic()
        if now - self._anchored >= WALL_CLOCK_INTERVAL:
            self._anchored = now
            self.engine.set_wall_clock(now=now, wall=self.clock.wall())
        return now

    def configure(self, change: DeviceChange) -> None:
        """Apply `change` whole, or raise OSError (port in use, no permission) and nothing."""
        old_mark = self.udp.mark
        if change.fwmark is not None and change.fwmark != old_mark:
            self.udp.set_mark(change.fwmark)
        if change.listen_port is not None:
            try:
                self._listen(change.listen_port)
            except OSError:
                self.udp.set_mark(old_mark)
                raise
        self.engine.apply(change, now=self.now())
        for callback in self.on_configured:
            callback()
        self.path.flush()

    def snapshot(self) -> DeviceSnapshot:
        """The engine's state, with the port and mark that the sockets really have."""
        return dataclasses.replace(
            self.engine.snapshot(), listen_port=self.udp.port, fwmark=self.udp.mark
        )

    def set_link(self, *, up: bool, mtu: int) -> None:
        """The link is (still) up or down, and its MTU is `mtu` bytes."""
        self.tun.mtu = self.engine.mtu = mtu
        if up == self._link_up:
            return
        self._link_up = up
        if up:
            try:
                self._listen(self.udp.port)
            except OSError as error:
                self.warn(f"cannot listen on UDP port {self.udp.port}: {error.strerror}")
            if not self._path_is_made:
                # Last, for it may take a while: what arrives meanwhile waits in the socket.
                self._carry()
        else:
            self._unwatch_udp()
            self.udp.close()
            self.engine.set_up(False, now=self.now())
        self.path.flush()

    def listen(self, listener: Callable[[Event], None], on: bool = True) -> None:
        """Tell `listener` every event from now on, or nothing any more (`on` False).

        Drops are events, too, while anybody listens.
        """
        _set_member(self.listeners, listener, on)
        self.engine.trace_drops = bool(self.listeners)

    def log_keys(self, sink: Callable[[HandshakeKeys], None], on: bool = True) -> None:
        """Tell `sink` the keys of each handshake from now on, or of none any more."""
        _set_member(self._key_logs, sink, on)
        self.engine.keylog = self._tell_keys if self._key_logs else None

    def tap(self, tap: Tap, on: bool = True) -> None:
        """Carry packets through `tap` from now on, or past it again."""
        _set_member(self._taps, tap, on)
        self._carry()

    def rekey(self) -> int:
        """Begin a new handshake with each peer that has a session; how many were begun."""
        begun = self.engine.rekey(now=self.now())
        self.path.flush()
        return begun

    def _tell_keys(self, keys: HandshakeKeys) -> None:
        for sink in list(self._key_logs):
            sink(keys)

    def _carry(self) -> None:
        """Make the data path between the ports, or what the taps put in their place."""
        self.tun, self.udp = self._ports
        for tap in self._taps:
            self.tun, self.udp = tap.tun(self.tun), tap.udp(self.udp)
        self._path_is_made = True
        self.path = self._make_path(self)
        for tap in self._taps:
            self.path = tap.path(self.path)
        self.loop.watch(self.tun.fileno(), self.path.tun_ready)
        self._watch_udp()

    def next_deadline(self) -> int | None:
        """For the loop: the engine's next deadline in ns."""
        return self.engine.next_look()

    def handle_deadline(self) -> None:
        """For the loop: the deadline has come."""
        self.engine.handle_deadline(now=self.now())
        self.path.flush()

    def close(self) -> None:
        """Leave the loop and close the ports; the TUN device vanishes."""
        self._unwatch_udp()
        self.udp.close()
        self.loop.release(self.tun)

    def _listen(self, port: int) -> None:
        """Listen on `port`, or, while the link is down, find out whether that would work."""
        if not self._link_up:
            self.udp.probe(port)
            return
        self._unwatch_udp()
        try:
            self.udp.rebind(port)
            self.engine.set_up(True, now=self.now())
        finally:
            self._watch_udp()

    def _handshakes_wait(self) -> None:
        """Their share of the time is used up; what is left tells whether this is a flood."""
        if self.udp.handshake_backlog() >= UNDER_LOAD:
            self.engine.press(now=self.now())

    def _watch_udp(self) -> None:
        handshakes = self.udp.handshake_filenos()
        self._handshakes.watch(handshakes)
        for fd in self.udp.filenos():
            if fd not in handshakes:
                self.loop.watch(fd, functools.partial(self.path.udp_ready, fd))

    def _unwatch_udp(self) -> None:
        self._handshakes.unwatch()
        for fd in self.udp.filenos():
            self.loop.unwatch(fd)


def _set_member(members: list[_T], member: _T, on: bool) -> None:
    """Have `member` in the list once, or not at all."""
    if on and member not in members:
        members.append(member)
    elif not on and member in members:
        members.remove(member)


class PlainPath:
    """The readable data path: packets go through the engine one at a time."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface

    def tun_ready(self) -> None:
        """Send inner packets of the host through the tunnel."""
        interface = self._interface
        interface.engine.send(interface.tun.read(BATCH), now=interface.now())
        self.flush()

    def udp_ready(self, fd: int) -> None:  # noqa: ARG002
        """Receive datagrams of the peers from all sockets."""
        interface = self._interface
        interface.engine.receive(interface.udp.receive(BATCH), now=interface.now())
        self.flush()

    def flush(self) -> None:
        """Send and deliver what the engine queued; plaintext goes back to the host's routing."""
        interface = self._interface
        engine = interface.engine
        refused = interface.udp.send(engine.pull_datagrams())
        self._count(refused, DropReason.UDP_SEND_FAILED, Direction.EGRESS)
        refused = interface.tun.write(engine.pull_packets())
        self._count(refused, DropReason.TUN_WRITE_FAILED, Direction.INGRESS)
        refused = interface.tun.write(engine.pull_plaintext())
        self._count(refused, DropReason.TUN_WRITE_FAILED, Direction.EGRESS)
        if interface.listeners:
            while (event := engine.next_event()) is not None:
                for listener in interface.listeners:
                    listener(event)

    def _count(self, refused: int, reason: DropReason, direction: Direction) -> None:
        for _ in range(refused):
            self._interface.engine.record_drop(
                reason, now=self._interface.clock.monotonic(), direction=direction
            )
