"""Captures made without a network: two engines, every message between them as a frame."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from wgpy.capture import keylog, pcapng
from wgpy.capture.link import RAW, Udp, udp_packet
from wgpy.protocol.constants import NS, Parameters
from wgpy.protocol.crypto import backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.device import HandshakeKeys
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

WALL = 1_700_000_000 * NS
PLACES = Endpoint.parse("192.0.2.1:51820"), Endpoint.parse("192.0.2.2:51820")


def packet(source: str, destination: str, size: int = 60, version: int = 4) -> bytes:
    """An IP packet with an unused UDP header inside."""
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, size - 40, 17, 64)
    head += parse_address(source) + parse_address(destination)
    udp = struct.pack("!HHHH", 1000, 2000, size - len(head), 0)
    return (head + udp).ljust(size, b"x")


@dataclass
class Tunnel:
    """Two engines at a known time; `frames` is what a sniffer between them sees."""

    psk: bool = False
    loaded: bool = False
    places: tuple[Endpoint, Endpoint] = PLACES
    now: int = 0
    frames: list[tuple[int, Udp]] = field(default_factory=list)
    handshakes: list[tuple[int, HandshakeKeys]] = field(default_factory=list)

    def __post_init__(self) -> None:
        dice = random.Random(7)
        crypto = backend("openssl")
        self.privates = [PrivateKey.clamp(dice.randbytes(32)) for _ in range(2)]
        publics = [PublicKey(crypto.public_key(key)) for key in self.privates]
        psk = PresharedKey(dice.randbytes(32)) if self.psk else None
        self.engines = []
        for side in range(2):
            loaded = side == 1 and self.loaded
            engine = Engine(
                crypto=crypto,
                entropy=dice.randbytes,
                now=0,
                wall=WALL,
                parameters=Parameters(under_load_backlog=0 if loaded else 128),
            )
            engine.keylog = lambda keys, side=side: self.handshakes.append((side, keys))
            allowed = tuple(
                AllowedIp(Prefix.parse(p))
                for p in (f"10.0.0.{2 - side}/32", f"fd00::{2 - side}/128")
            )
            change = PeerChange(
                publics[1 - side],
                preshared_key=psk,
                endpoint=self.places[1 - side],
                allowed_ips=allowed,
            )
            engine.apply(DeviceChange(private_key=self.privates[side], peers=(change,)), now=0)
            self.engines.append(engine)
        self.publics = publics

    def send(self, side: int, size: int = 60, version: int = 4) -> bytes:
        """A packet from one side, carried through; returns it."""
        names = ("10.0.0.{}", "fd00::{}")[version == 6]
        made = packet(names.format(side + 1), names.format(2 - side), size, version)
        self.engines[side].send([made], now=self.now)
        self.carry()
        return made

    def carry(self) -> None:
        """All datagrams of both sides, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for side, engine in enumerate(self.engines):
                for data, _ in engine.pull_datagrams():
                    moved = True
                    self.frames.append(
                        (self.now, Udp(self.places[side], self.places[1 - side], bytes(data)))
                    )
                    arriving = Datagram(data, self.places[side])
                    self.engines[1 - side].receive([arriving], now=self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass, deadlines included."""
        end = self.now + round(seconds * NS)
        while True:
            due = [d.at for e in self.engines if (d := e.next_deadline()) is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            for engine in self.engines:
                engine.handle_deadline(now=self.now)
            self.carry()
        self.now = end

    def key_log(self, side: int) -> str:
        """What one side would log."""
        text = keylog.format_statics(self.privates[side], [self.publics[1 - side]])
        own = [keys for owner, keys in self.handshakes if owner == side]
        return text + "".join(keylog.format_handshake(keys) for keys in own)

    def pcapng(self, side: int | None) -> bytes:
        """The frames as a file, with one side's keys inside (None: without)."""
        file = pcapng.section_header("test") + pcapng.interface(RAW, "outer", "")
        if side is not None:
            file += pcapng.secrets(self.key_log(side))
        for at, udp in self.frames:
            file += pcapng.packet(0, WALL + at, udp_packet(udp))
        return file


def busy_tunnel(**options: bool) -> tuple[Tunnel, list[bytes]]:
    """A tunnel that shook hands, talked both ways, rekeyed and roamed; and its inner packets."""
    tunnel = Tunnel(**options)
    inner = [tunnel.send(0), tunnel.send(1, 100), tunnel.send(0, 1300, version=6)]
    tunnel.wait(15)
    tunnel.now += 110 * NS
    inner.append(tunnel.send(0, 61))
    inner.append(tunnel.send(1, 62))
    tunnel.places = (Endpoint.parse("192.0.2.77:40000"), tunnel.places[1])
    inner.append(tunnel.send(0, 63))
    inner.append(tunnel.send(1, 64))
    return tunnel, inner
