"""Engines ready to be measured: peers with live sessions, and packets for them.

No kernel, no clock: time is a number that the caller moves.  A `Hub` is one engine with
many peers; each peer is an engine of its own while it shakes hands, and is then forgotten
or kept, as the measurement needs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from benchmarks.packets import udp_packet
from wgpy.protocol.constants import MS, NS
from wgpy.protocol.crypto import Crypto, backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

WALL = 1_700_000_000 * NS
HUB = Endpoint.parse("192.0.2.1:51820")
TUNNEL_ADDRESS = bytes([10, 0, 0, 1])
"""The hub's address inside."""


class Clock:
    """A time in ns that only moves when told."""

    def __init__(self) -> None:
        self.now = NS

    def tick(self, ns: int = MS) -> int:
        """Let `ns` pass; returns the new time."""
        self.now += ns
        return self.now


class Member:
    """One peer of a hub: keys, inner address, outer endpoint and an engine of its own."""

    def __init__(self, number: int, crypto: Crypto, clock: Clock) -> None:
        self.number = number
        self.private = PrivateKey.clamp(os.urandom(32))
        self.public = PublicKey(crypto.public_key(self.private))
        self.address = inner_address(number)
        self.endpoint = Endpoint(bytes([198, 18, number >> 8 & 255, number & 255]), 51820)
        self.engine = new_engine(crypto, clock)

    def configure(self, hub_key: PublicKey, clock: Clock) -> None:
        """Know the hub, which owns everything else."""
        peer = PeerChange(
            hub_key, endpoint=HUB, allowed_ips=(AllowedIp(Prefix.parse("0.0.0.0/0")),)
        )
        self.engine.apply(DeviceChange(private_key=self.private, peers=(peer,)), now=clock.now)


class Hub:
    """An engine and its peers, each with a session that both sides may use."""

    def __init__(self, peers: int, crypto: Crypto | None = None) -> None:
        """`crypto` is the openssl backend by default."""
        self.crypto = crypto or backend("openssl")
        self.clock = Clock()
        self.private = PrivateKey.clamp(os.urandom(32))
        self.public = PublicKey(self.crypto.public_key(self.private))
        self.engine = new_engine(self.crypto, self.clock)
        self.engine.apply(DeviceChange(private_key=self.private), now=self.clock.now)
        self.members = [Member(n, self.crypto, self.clock) for n in range(peers)]
        self.engine.apply(
            DeviceChange(peers=tuple(self._peer_of(m) for m in self.members)), now=self.clock.now
        )
        for member in self.members:
            member.configure(self.public, self.clock)

    def _peer_of(self, member: Member) -> PeerChange:
        return PeerChange(
            member.public,
            endpoint=member.endpoint,
            allowed_ips=(AllowedIp(Prefix(member.address, 32)),),
        )

    def add_prefixes(self, member: Member, prefixes: Iterable[Prefix]) -> None:
        """Give the member more allowed IPs."""
        allowed = tuple(AllowedIp(prefix) for prefix in prefixes)
        change = PeerChange(member.public, update_only=True, allowed_ips=allowed)
        self.engine.apply(DeviceChange(peers=(change,)), now=self.clock.now)

    def initiations(self, members: Iterable[Member] | None = None) -> list[Datagram]:
        """A fresh initiation of each member (all of them by default), as the hub receives it."""
        found = []
        for member in self.members if members is None else members:
            now = self.clock.tick()
            member.engine.send([udp_packet(member.address, TUNNEL_ADDRESS, 28)], now=now)
            (datagram,) = member.engine.pull_datagrams()
            found.append(Datagram(bytes(datagram.data), member.endpoint))
        return found

    def establish(self) -> None:
        """Shake hands with every member."""
        for member, initiation in zip(self.members, self.initiations(), strict=True):
            now = self.clock.tick()
            self.engine.receive([initiation], now=now)
            answers = [Datagram(d.data, HUB) for d in self.engine.pull_datagrams()]
            member.engine.receive(answers, now=now)
            data = [Datagram(d.data, member.endpoint) for d in member.engine.pull_datagrams()]
            self.engine.receive(data, now=now)
        delivered = len(self.engine.pull_packets())
        if delivered != len(self.members):
            raise RuntimeError(f"{delivered} of {len(self.members)} handshakes came to an end")


def new_engine(crypto: Crypto, clock: Clock) -> Engine:
    """An engine with real entropy."""
    return Engine(crypto=crypto, entropy=os.urandom, now=clock.now, wall=WALL)


def inner_address(number: int) -> bytes:
    """The inner address of member `number`: 10.64.0.0 and up."""
    return struct.pack(">I", (10 << 24 | 64 << 16) + number)
