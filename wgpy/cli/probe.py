"""A WireGuard end in this process, for testing a peer: an engine on one UDP socket.

It needs neither root nor a device.  The peer takes it for the owner of the private key: its
handshake replaces any session that the owner has elsewhere.
"""

from __future__ import annotations

import os
import select
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Self

from wgpy.linux.clock import LinuxClock
from wgpy.protocol.constants import MAC_SIZE, NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import AddressBytes, Endpoint, format_address
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import (
    CookieReceived,
    InitiationSent,
    KeepaliveReceived,
    SessionEstablished,
)
from wgpy.protocol.keys import PrivateKey
from wgpy.protocol.settings import DeviceChange, PeerChange
from wgpy.sim.ping import Echo, parse

_WAKE_UP: Final = 1
"""Seconds of persistent keepalive that make the engine start a handshake at once."""


class UdpAnswer(NamedTuple):
    """The network's answer to a datagram: an errno of an ICMP error, or 0 for silence."""

    errno: int

    @property
    def text(self) -> str:
        """Description."""
        return os.strerror(self.errno) if self.errno else "silent, as WireGuard is"


def connect(endpoint: Endpoint, mark: int = 0) -> socket.socket:
    """A UDP socket that talks to `endpoint` only, so that ICMP errors come back to it."""
    family = socket.AF_INET if len(endpoint.ip) == 4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if mark:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        zone = (0, endpoint.scope_id) if family == socket.AF_INET6 else ()
        opened.connect((format_address(endpoint.ip), endpoint.port, *zone))
    except BaseException:
        opened.close()
        raise
    return opened


def ask_port(endpoint: Endpoint, timeout: float, mark: int = 0) -> UdpAnswer:
    """Send a datagram that WireGuard ignores and wait for an ICMP error.

    `timeout` is in seconds.
    """
    try:
        with connect(endpoint, mark) as opened:
            opened.send(bytes(MAC_SIZE))
            opened.settimeout(timeout)
            with suppress(TimeoutError):
                opened.recv(1)
    except OSError as error:
        return UdpAnswer(error.errno or 0)
    return UdpAnswer(0)


class Probe:
    """An engine with one peer; `endpoint` is where it is thought to be."""

    def __init__(self, private_key: PrivateKey, peer: PeerChange, endpoint: Endpoint) -> None:
        self.peer = peer
        self._endpoint = endpoint
        self._socket = connect(endpoint)
        self._clock = LinuxClock()
        now = self._clock.monotonic()
        self._engine = Engine(
            crypto=backend(), entropy=os.urandom, now=now, wall=self._clock.wall()
        )
        self._engine.apply(DeviceChange(private_key=private_key), now=now)
        self.refused = UdpAnswer(0)
        self.cookies = 0
        self.keepalives = 0
        self._initiation_at = 0
        self._established_at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def drops(self) -> Counter[DropReason]:
        """What the engine discarded, by reason."""
        return Counter(dict(self._engine.drops))

    def handshake(self, timeout: float) -> int | None:
        """Do a handshake; its round trip in ns, None if there was none.

        Stops after `timeout` seconds, or when the network rejects the datagrams.
        """
        change = PeerChange(
            public_key=self.peer.public_key,
            preshared_key=self.peer.preshared_key,
            endpoint=self._endpoint,
            allowed_ips=self.peer.allowed_ips,
            persistent_keepalive=_WAKE_UP,
        )
        self._engine.apply(DeviceChange(peers=(change,)), now=self._clock.monotonic())
        off = PeerChange(public_key=self.peer.public_key, persistent_keepalive=0)
        self._engine.apply(DeviceChange(peers=(off,)), now=self._clock.monotonic())
        self._run(timeout, lambda _: bool(self._established_at or self.refused.errno))
        self._flush()  # The confirmation, without which the peer cannot send.
        return self._established_at - self._initiation_at if self._established_at else None

    def echo(
        self, source: AddressBytes, target: AddressBytes, sequence: int, timeout: float
    ) -> int | None:
        """One ICMP echo through the tunnel; round trip in ns, or None for silence."""
        started = self._clock.monotonic()
        request = Echo(source, target, sequence, False, b"wgpy ping".ljust(56, b"."))
        self._engine.send([request.encode()], now=started)

        def answered(packets: list[bytes]) -> bool:
            replies = (parse(packet) for packet in packets)
            return any(r and r.reply and r.sequence == sequence for r in replies)

        if self._run(timeout, answered):
            return self._clock.monotonic() - started
        return None

    def _run(self, timeout: float, done: Callable[[list[bytes]], bool]) -> bool:
        """Handle datagrams and deadlines until `done(inner packets)` or the timeout."""
        end = self._clock.monotonic() + int(timeout * NS)
        while True:
            self._flush()
            self._read_events()
            if done(self._engine.pull_packets()):
                return True
            now = self._clock.monotonic()
            if now >= end:
                return False
            deadline = self._engine.next_deadline()
            wait = min(end, deadline.at if deadline else end) - now
            if select.select([self._socket], [], [], max(0, wait) / NS)[0]:
                self._receive()
            self._engine.handle_deadline(now=self._clock.monotonic())

    def _flush(self) -> None:
        for datagram in self._engine.pull_datagrams():
            try:
                self._socket.send(datagram.data)
            except OSError as error:
                self.refused = UdpAnswer(error.errno or 0)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self.refused = UdpAnswer(error.errno or 0)
            return
        self._engine.receive([Datagram(data, self._endpoint)], now=self._clock.monotonic())

    def _read_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            match event:
                case InitiationSent():
                    self._initiation_at = event.at
                case SessionEstablished():
                    self._established_at = self._established_at or event.at
                case CookieReceived():
                    self.cookies += 1
                case KeepaliveReceived():
                    self.keepalives += 1
