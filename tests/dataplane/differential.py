"""Differential testing: one engine behind the batch path, its equal behind the readable path.

Same keys, same entropy, same time: what they send must be the same bytes, what they
deliver the same packets, and their state must agree.  Both are cheap enough to be made
anew for every hypothesis example.
"""

from __future__ import annotations

import hashlib
import struct

from tests.dataplane import oracle
from tests.dataplane.toolbox import current
from wgpy.dataplane.egress import Egress
from wgpy.dataplane.ingress import Ingress
from wgpy.dataplane.offload import VNET, VNET_SIZE
from wgpy.memory.batch import Arrival, BatchTun, BatchUdp, arrivals
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS, Parameters
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.policy import PacketPolicy
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

HOME = Endpoint.parse("192.0.2.1:51820")
AWAY = Endpoint.parse("[2001:db8::2]:51820")
START = 1_000 * NS
WALL = 1_700_000_000 * NS
ALLOWED = ("10.0.0.0/24", "fd00::/64")


class Entropy:
    """Reproducible bytes."""

    def __init__(self, seed: str) -> None:
        self._seed, self._count = seed, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        digest = hashlib.shake_128(f"{self._seed} {self._count}".encode())
        return digest.digest(size)


def private(name: str) -> PrivateKey:
    return PrivateKey.clamp(hashlib.sha256(name.encode()).digest())


def public(name: str) -> PublicKey:
    return PublicKey(current().crypto.public_key(private(name)))


def engine(
    name: str, other: str, endpoint: Endpoint | None, parameters: Parameters, mtu: int
) -> Engine:
    made = Engine(
        crypto=current().crypto,
        entropy=Entropy(name),
        now=START,
        wall=WALL,
        parameters=parameters,
        mtu=mtu,
    )
    allowed = tuple(AllowedIp(Prefix.parse(text)) for text in ALLOWED)
    peer = PeerChange(public(other), endpoint=endpoint, allowed_ips=allowed)
    made.apply(DeviceChange(private_key=private(name), peers=(peer,)), now=START)
    return made


class BothPaths:
    """Engines `batch` and `readable` in the same state; `remote` is their one peer."""

    def __init__(
        self,
        *,
        initiator: bool = True,
        parameters: Parameters = DEFAULT_PARAMETERS,
        mtu: int = 1420,
        policy: PacketPolicy | None = None,
    ) -> None:
        self.now = START
        self.batch = engine("home", "away", AWAY, parameters, mtu)
        self.readable = engine("home", "away", AWAY, parameters, mtu)
        self.remote = engine("away", "home", HOME, DEFAULT_PARAMETERS, mtu)
        for one in (self.batch, self.readable):
            if policy is not None:
                one.policy = policy
            one.trace_drops = True
        self.tun, self.udp = BatchTun(mtu), BatchUdp()
        tools = current().tools
        self.out = Egress(self.batch, self.tun, self.udp, self._carry_out, tools)
        self.into = Ingress(self.batch, self.tun, self.udp, self._carry_out, tools)
        self.trains: list[int] = []
        """How many datagrams each send of the batch path held."""
        self._handshake(initiator)

    def _carry_out(self) -> None:
        self.udp.send(self.batch.pull_datagrams())
        self.tun.write(self.batch.pull_packets())

    def _handshake(self, initiator: bool) -> None:
        """Both engines agree on keys with the remote, which cannot tell them apart."""
        ping = oracle.Packet(protocol=17, payload=b"ping").build()
        first = self.readable if initiator else self.remote
        first.send([ping], now=self.now)
        if initiator:
            self.batch.send([ping], now=self.now)
            opening = self.readable.pull_datagrams()
            assert self.batch.pull_datagrams() == opening
            self.remote.receive([Datagram(d.data, HOME) for d in opening], now=self.now)
        for _ in range(2):
            replies = [Datagram(d.data, AWAY) for d in self.remote.pull_datagrams()]
            self.batch.receive(replies, now=self.now)
            self.readable.receive(replies, now=self.now)
            answers = self.readable.pull_datagrams()
            assert self.batch.pull_datagrams() == answers
            self.remote.receive([Datagram(d.data, HOME) for d in answers], now=self.now)
        for each in (self.batch, self.readable, self.remote):
            each.pull_packets()
            while each.next_event():
                pass
        assert self.batch.device.peers[public("away")].current is not None

    def read_from_tun(self, reads: list[tuple[tuple[int, ...], bytes]]) -> list[Datagram]:
        """The host sends; what both paths send must agree, and is returned."""
        self.tun.waiting += [VNET.pack(*vnet) + data for vnet, data in reads]
        while self.tun.waiting:
            self.out.turn(self.now)
        self._carry_out()
        for vnet, data in reads:
            self.readable.send(oracle.cut(vnet, data), now=self.now)
        self.trains += [len(one.messages()) for one in self.udp.sent]
        sent = self.udp.take_sent()
        expected = self.readable.pull_datagrams()
        # A handshake that is due starts behind the train instead of within it.
        for kind in (True, False):
            assert [d for d in sent if (d.data[0] == 4) is kind] == [
                d for d in expected if (d.data[0] == 4) is kind
            ]
        self.compare_books()
        return sent

    def arrive(self, trains: list[list[bytes]], endpoint: Endpoint = AWAY) -> list[bytes]:
        """Datagrams come in trains; what both paths deliver must agree, and is returned."""
        return self.arrive_from([(train, endpoint) for train in trains])

    def arrive_from(self, trains: list[tuple[list[bytes], Endpoint]]) -> list[bytes]:
        """As `arrive`, each train from its own source."""
        for train, endpoint in trains:
            self.udp.waiting.append(Arrival(b"".join(train), len(train[0]), endpoint))
            self.readable.receive([Datagram(d, endpoint) for d in train], now=self.now)
        while self.udp.waiting:
            self.into.turn(0, self.now)
        self._carry_out()
        delivered = self.delivered()
        expected = self.readable.pull_packets()
        assert delivered == expected
        assert self.udp.take_sent() == self.readable.pull_datagrams()
        self.compare_books()
        return delivered

    def delivered(self) -> list[bytes]:
        """Packets that the batch path wrote, super-packets cut by the oracle."""
        return [
            packet
            for data in self.tun.take_written()
            for packet in oracle.cut(VNET.unpack(data[:VNET_SIZE]), data[VNET_SIZE:])
        ]

    def compare_books(self) -> None:
        """Counters, timers, windows and events."""
        batch, readable = self.batch.device, self.readable.device
        assert batch.drops == readable.drops
        for counter in ("encrypted", "released", "delivered"):
            ours, theirs = getattr(batch, counter), getattr(readable, counter)
            assert (ours.packets, ours.bytes) == (theirs.packets, theirs.bytes), counter
        ours, theirs = (
            [(dict(p.drops), p.rx_bytes, p.tx_bytes) for p in device.peers.values()]
            for device in (batch, readable)
        )
        assert ours == theirs
        assert self.batch.snapshot() == self.readable.snapshot()
        assert [session_books(batch)] == [session_books(readable)]
        assert self.batch.next_deadline() == self.readable.next_deadline()
        assert sorted(map(str, drain(self.batch))) == sorted(map(str, drain(self.readable)))


def session_books(device) -> list[tuple[object, ...]]:
    """What a peer's sessions remember."""
    return [
        (
            session.local_index,
            session.next_counter,
            session.window.greatest,
            session.window._bitmap,
        )
        for peer in device.peers.values()
        for session in peer.sessions()
    ]


def drain(one: Engine) -> list[object]:
    """All events."""
    events = []
    while (event := one.next_event()) is not None:
        events.append(event)
    return events


def trains_of(datagrams: list[bytes], most: int = 64) -> list[list[bytes]]:
    """As UDP GRO hands them over: equal sizes, the last may be shorter."""
    found = arrivals((Datagram(data, AWAY) for data in datagrams), most)
    return [arrival.messages() for arrival in found]


def message(index: int, counter: int, body: bytes) -> bytes:
    """A transport message with any fields."""
    return struct.pack("<IIQ", 4, index, counter) + body
