"""Two engines in the same state, one behind the batch path, one behind the readable path.

Same keys, same entropy, same time: what they send must be the same bytes, what they
deliver the same packets, and their books must agree.  Twins made anew are cheap enough
to be made for every hypothesis example.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.dataplane import oracle
from tests.dataplane.toolbox import current
from wgpy.dataplane.egress import Egress
from wgpy.dataplane.ingress import Ingress
from wgpy.dataplane.offload import VNET, VNET_SIZE
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


@dataclass
class Arrival:
    data: bytes
    stride: int
    endpoint: Endpoint

    @property
    def size(self) -> int:
        return len(self.data)


class MemoryTun:
    """Packets with their virtio headers."""

    udp_offload = True

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.waiting: list[bytes] = []
        self.given_up: set[int] = set()
        self.written: list[bytes] = []

    def read_into(self, views: Sequence[memoryview], large: int) -> list[int]:
        sizes: list[int] = []
        for view in views:
            if not self.waiting or (sizes and sizes[-1] > large):
                break
            packet = self.waiting.pop(0)
            view[: len(packet)] = packet
            sizes.append(len(packet))
        return sizes

    def write_from(self, view: memoryview) -> bool:
        self.written.append(bytes(view))
        return True

    def delivered(self) -> list[bytes]:
        """Packets written, super-packets cut by the oracle."""
        written, self.written = self.written, []
        return [
            packet
            for data in written
            for packet in oracle.cut(VNET.unpack(data[:VNET_SIZE]), data[VNET_SIZE:])
        ]


class MemoryUdp:
    """Trains."""

    def __init__(self) -> None:
        self.waiting: list[Arrival] = []
        self.sent: list[Datagram] = []
        self.trains: list[int] = []
        self.refuse = False

    def receive_train(self, _fd: int, buffer: bytearray) -> Arrival | None:
        if not self.waiting:
            return None
        train = self.waiting.pop(0)
        buffer[: len(train.data)] = train.data
        return train

    def send_train(self, train: memoryview, stride: int, endpoint: Endpoint) -> int:
        pieces = [bytes(train[i : i + stride]) for i in range(0, len(train), stride)]
        assert len(pieces) <= 64 and (len(pieces) == 1 or len(train) <= 65_507)
        if self.refuse:
            return len(pieces)
        self.trains.append(len(pieces))
        self.sent += [Datagram(piece, endpoint) for piece in pieces]
        return 0


class Twins:
    """`fast` and `plain` are in the same state; `remote` is their one peer."""

    def __init__(
        self,
        *,
        initiator: bool = True,
        parameters: Parameters = DEFAULT_PARAMETERS,
        mtu: int = 1420,
        policy: PacketPolicy | None = None,
    ) -> None:
        self.now = START
        self.fast = engine("home", "away", AWAY, parameters, mtu)
        self.plain = engine("home", "away", AWAY, parameters, mtu)
        self.remote = engine("away", "home", HOME, DEFAULT_PARAMETERS, mtu)
        for twin in (self.fast, self.plain):
            if policy is not None:
                twin.policy = policy
            twin.trace_drops = True
        self.tun, self.udp = MemoryTun(mtu), MemoryUdp()
        tools = current().tools
        self.out = Egress(self.fast, self.tun, self.udp, self._carry_out, tools)
        self.into = Ingress(self.fast, self.tun, self.udp, self._carry_out, tools)
        self._handshake(initiator)

    def _carry_out(self) -> None:
        self.udp.sent += self.fast.pull_datagrams()
        self.tun.written += [bytes(VNET_SIZE) + p for p in self.fast.pull_packets()]

    def _handshake(self, initiator: bool) -> None:
        """Both twins agree with the remote, which cannot tell them apart."""
        ping = oracle.Packet(protocol=17, payload=b"ping").build()
        first = self.plain if initiator else self.remote
        first.send([ping], now=self.now)
        if initiator:
            self.fast.send([ping], now=self.now)
            opening = self.plain.pull_datagrams()
            assert self.fast.pull_datagrams() == opening
            self.remote.receive([Datagram(d.data, HOME) for d in opening], now=self.now)
        for _ in range(2):
            replies = [Datagram(d.data, AWAY) for d in self.remote.pull_datagrams()]
            self.fast.receive(replies, now=self.now)
            self.plain.receive(replies, now=self.now)
            answers = self.plain.pull_datagrams()
            assert self.fast.pull_datagrams() == answers
            self.remote.receive([Datagram(d.data, HOME) for d in answers], now=self.now)
        for each in (self.fast, self.plain, self.remote):
            each.pull_packets()
            while each.next_event():
                pass
        assert self.fast.device.peers[public("away")].current is not None

    def read_from_tun(self, reads: list[tuple[tuple[int, ...], bytes]]) -> list[Datagram]:
        """The host sends; what both twins send must agree, and is returned."""
        self.tun.waiting += [VNET.pack(*vnet) + data for vnet, data in reads]
        while self.tun.waiting:
            self.out.turn(self.now)
        self._carry_out()
        for vnet, data in reads:
            self.plain.send(oracle.cut(vnet, data), now=self.now)
        sent, self.udp.sent = self.udp.sent, []
        expected = self.plain.pull_datagrams()
        # A handshake that is due starts behind the train instead of within it.
        for kind in (True, False):
            assert [d for d in sent if (d.data[0] == 4) is kind] == [
                d for d in expected if (d.data[0] == 4) is kind
            ]
        self.compare_books()
        return sent

    def arrive(self, trains: list[list[bytes]], endpoint: Endpoint = AWAY) -> list[bytes]:
        """Datagrams come in trains; what both twins deliver must agree, and is returned."""
        for train in trains:
            self.udp.waiting.append(Arrival(b"".join(train), len(train[0]), endpoint))
            self.plain.receive([Datagram(d, endpoint) for d in train], now=self.now)
        while self.udp.waiting:
            self.into.turn(0, self.now)
        self._carry_out()
        delivered = self.tun.delivered()
        expected = self.plain.pull_packets()
        assert delivered == expected
        sent, self.udp.sent = self.udp.sent, []
        assert sent == self.plain.pull_datagrams()
        self.compare_books()
        return delivered

    def compare_books(self) -> None:
        """Counters, timers, windows and events."""
        fast, plain = self.fast.device, self.plain.device
        assert fast.drops == plain.drops
        for counter in ("encrypted", "released", "delivered"):
            ours, theirs = getattr(fast, counter), getattr(plain, counter)
            assert (ours.packets, ours.bytes) == (theirs.packets, theirs.bytes), counter
        ours, theirs = (
            [(dict(p.drops), p.rx_bytes, p.tx_bytes) for p in device.peers.values()]
            for device in (fast, plain)
        )
        assert ours == theirs
        assert self.fast.snapshot() == self.plain.snapshot()
        assert [session_books(fast)] == [session_books(plain)]
        assert self.fast.next_deadline() == self.plain.next_deadline()
        assert sorted(map(str, drain(self.fast))) == sorted(map(str, drain(self.plain)))


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
    """As UDP GRO hands them over: equal sizes, the last may be shorter, an empty one alone."""
    trains: list[list[bytes]] = []
    for data in datagrams:
        last = trains[-1] if trains else []
        fits = last and data and len(last) < most and len(last[-1]) == len(last[0]) >= len(data)
        if fits and sum(map(len, last)) + len(data) <= 65_000:
            last.append(data)
        else:
            trains.append([data])
    return trains


def message(index: int, counter: int, body: bytes) -> bytes:
    """A transport message with any fields."""
    return struct.pack("<IIQ", 4, index, counter) + body
