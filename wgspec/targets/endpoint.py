"""A live device that one may only talk to over the network:
`--sut 'endpoint 192.0.2.1:51820 --public-key KEY --private-key KEY|FILE'`.

The device knows one peer, whose private key the tester holds; nothing else of it can be
configured or seen.  So cases run one after another, each as that peer from a socket of its
own, and what needs another view is UNSUPPORTED.  The device remembers the greatest
timestamp of that peer: timestamps come from the wall clock, which must not be behind that of
former users of the key, and the case that would leave a floor in the future is not run.
It is put under load only when `--load` says that this is allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import ipaddress
import socket
from pathlib import Path
from typing import NoReturn

from wgspec.target import (
    Address,
    Capability,
    DeviceConfig,
    FixedPeer,
    Instance,
    Port,
    RealTimeInstance,
    Target,
    Unavailable,
    Unsupported,
)
from wgspec.targets.udp import UdpPort

PAUSE = 0.05
"""Seconds between two cases: more than the flood guard of an initiation."""

AFTER_LOAD = 1.5
"""The same where the case before may have left the device under load, for a second."""


class EndpointInstance(RealTimeInstance):
    """The device as one case meets it.

    `FRESH` is claimed because no other case uses the device at the same time.
    """

    mtu = 1420

    def __init__(self, target: EndpointTarget) -> None:
        super().__init__(target, b"")
        self._device = target.device
        self._public = target.public_key
        self.capabilities = target.capabilities
        self.fixed_peers = (FixedPeer(target.peer_key, target.preshared_key, inner4=target.inner),)

    @property
    def public_key(self) -> bytes:
        return self._public

    async def apply(self, change: DeviceConfig) -> None:  # noqa: ARG002
        raise Unsupported("it can only be talked to")

    def address(self, family: int = 4) -> Address:  # noqa: ARG002
        """Its only address, of whichever family."""
        return self._device

    async def open_port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:  # noqa: ARG002
        own = _own_address(self._device)
        kind = socket.AF_INET6 if self._device.family == 6 else socket.AF_INET
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((own, port))
        return UdpPort(self, sock)


def _own_address(device: Address) -> str:
    """The address that this machine uses towards the device (nothing is sent)."""
    kind = socket.AF_INET6 if device.family == 6 else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(device)
        except OSError as error:
            raise Unavailable(f"no route to {device}: {error}") from error
        return str(probe.getsockname()[0])


class EndpointTarget(Target):
    """The device; cases run one after another."""

    name = "endpoint"
    one_per_case = True
    parallel = 1
    fresh_parallel = 1

    def __init__(
        self,
        device: Address,
        public_key: bytes,
        peer_key: bytes,
        preshared_key: bytes = bytes(32),
        *,
        inner: str = "",
        load: bool = False,
    ) -> None:
        """`peer_key` is the private key of the peer that the device knows us as, `inner` an
        IPv4 address among that peer's allowed IPs."""
        self.inner = inner
        self.device = device
        self.public_key = public_key
        self.peer_key = peer_key
        self.preshared_key = preshared_key
        self.version = str(device)
        self.capabilities = frozenset(
            {Capability.FRESH, *([Capability.LOAD] if load else [])}
        )  # fmt: skip

    async def create(self, private_key: bytes) -> Instance:  # noqa: ARG002
        await asyncio.sleep(AFTER_LOAD if Capability.LOAD in self.capabilities else PAUSE)
        return EndpointInstance(self)


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the program."""

    def error(self, message: str) -> NoReturn:
        raise Unavailable(f"{message}; {self.format_usage().strip()}")


def _key(text: str, what: str) -> bytes:
    """A base64 key, or the path of a file that holds one; no error shows a key."""
    path = Path(text)
    try:
        if len(text) != 44 and path.is_file():
            text = path.read_text().strip()
        key = base64.b64decode(text, validate=True)
    except (OSError, ValueError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise Unavailable(f"{what}: neither 32 bytes in base64 nor a file with them")
    return key


def _inner(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise Unavailable(f"--inner: {error}") from error


def _device(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Unavailable(f"{text!r} is not HOST:PORT (IPv6: [ADDRESS]:PORT)")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except OSError as error:
        raise Unavailable(f"{host!r} cannot be resolved: {error}") from error
    return Address(str(found[0][4][0]), int(port))


def make(arguments: list[str]) -> EndpointTarget:
    """`endpoint HOST:PORT --public-key KEY --private-key KEY|FILE …`."""
    parser = _Parser(prog="endpoint", add_help=False)
    parser.add_argument("device", metavar="HOST:PORT")
    parser.add_argument("--public-key", required=True, metavar="KEY", help="the device's")
    parser.add_argument("--private-key", required=True, metavar="KEY|FILE", help="our peer's")
    parser.add_argument("--preshared-key", metavar="KEY|FILE")
    parser.add_argument("--inner", metavar="IPv4", help="among our peer's allowed IPs")
    parser.add_argument("--load", action="store_true", help="bursts of datagrams are allowed")
    found = parser.parse_args(arguments)
    psk = _key(found.preshared_key, "--preshared-key") if found.preshared_key else bytes(32)
    return EndpointTarget(
        _device(found.device),
        _key(found.public_key, "--public-key"),
        _key(found.private_key, "--private-key"),
        psk,
        inner=_inner(found.inner) if found.inner else "",
        load=found.load,
    )
