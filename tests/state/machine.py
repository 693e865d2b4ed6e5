"""Two engines and everything that a network, an administrator and an attacker do to them.

`Pair` is the world under test, without hypothesis: sides, datagrams on the way, time, and
the checks that hold after every step.  The rules that drive it are in `test_two_engines`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from tests.state.batched import BatchedEngine
from tests.support.recording import RecordingCrypto, fingerprint
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS, TYPE_INITIATION
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.peer import Peer
from wgpy.protocol.session import Session
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange
from wgpy.protocol.states import keys_of, may_be_pending, must_be_pending
from wgpy.protocol.timers import Timer
from wgpy.sim.ping import Echo, parse

# Small numbers, so that a short run reaches every limit.
PARAMETERS = replace(
    DEFAULT_PARAMETERS,
    rekey_after_messages=12,
    reject_after_messages=20,
    replay_window=8,
    staged_packets=6,
    under_load_backlog=2,
    handshake_drain=1,
    cookie_rate=1,
    cookie_burst=1,
)

# The batch path wants room for a whole super-packet of counters, or it leaves a session
# near its end to the readable path.  Rarely under load, so that it has much to carry.
BATCHED = replace(PARAMETERS, reject_after_messages=2**20, under_load_backlog=30)

# The message itself was wrong: nothing at all may follow from it.
REFUSED = frozenset(
    {
        DropReason.LENGTH_INVALID, DropReason.TYPE_UNKNOWN, DropReason.MAC1_INVALID,
        DropReason.NO_PRIVATE_KEY, DropReason.RATE_LIMITED, DropReason.COOKIE_LIMITED,
        DropReason.STATIC_INVALID,
        DropReason.UNKNOWN_INITIATOR, DropReason.LOW_ORDER_KEY, DropReason.TIMESTAMP_INVALID,
        DropReason.TIMESTAMP_REPLAYED, DropReason.INITIATION_FLOOD, DropReason.UNKNOWN_INDEX,
        DropReason.RESPONSE_INVALID, DropReason.COOKIE_UNEXPECTED, DropReason.COOKIE_INVALID,
        DropReason.SESSION_EXPIRED, DropReason.COUNTER_EXHAUSTED, DropReason.TAG_INVALID,
        DropReason.REPLAYED, DropReason.COUNTER_TOO_OLD, DropReason.DEVICE_DOWN,
    }
)  # fmt: skip

ADMINISTRATION = (
    "new private key", "remove peer", "configure peer", "other preshared key", "same preshared key",
    "down", "up", "disallow its address", "keepalive 25", "keepalive off", "wake for nothing",
)  # fmt: skip

STRANGER = bytes([10, 9, 9, 9])


@dataclass
class Side:
    """One engine and what the test knows about it."""

    name: str
    inner: bytes
    address: Endpoint
    engine: Engine | BatchedEngine
    key: PrivateKey
    psk: PresharedKey = NO_PRESHARED_KEY
    up: bool = True
    knows_peer: bool = False
    allows: bool = False
    delivered: Counter[int] = field(default_factory=Counter)
    last_initiation: int | None = None
    initiations: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Flight:
    """A datagram on its way."""

    data: bytes
    source: Endpoint
    destination: Endpoint
    at: int = 0


class Pair:
    """Two sides, the datagrams between them, and the time."""

    def __init__(self, seed: int = 0, batched: tuple[bool, bool] = (False, False)) -> None:
        """`batched` says which sides use the batch path of the data plane."""
        self.random = Random(seed)
        self.crypto = RecordingCrypto()
        self.now = 1_000 * NS
        self.wall = 1_700_000_000 * NS
        self.flying: list[Flight] = []
        self.history: list[Flight] = []
        self.sent: dict[int, bytes] = {}
        self.spoofed: set[int] = set()
        self.sides = [self._side("a", 1, batched[0]), self._side("b", 2, batched[1])]
        for side in self.sides:
            self.configure(side)

    def _side(self, name: str, number: int, batched: bool) -> Side:
        engine: Engine | BatchedEngine = Engine(
            crypto=self.crypto,
            entropy=Random(f"{name}/{self.random.random()}").randbytes,
            now=self.now,
            wall=self.wall,
            parameters=BATCHED if batched else PARAMETERS,
        )
        if batched:
            engine = BatchedEngine(engine)
        key = PrivateKey.clamp(self.random.randbytes(32))
        engine.apply(DeviceChange(private_key=key), now=self.now)
        address = Endpoint(bytes([192, 0, 2, number]), 1000 * number)
        return Side(name, bytes([10, 0, 0, number]), address, engine, key)

    def other(self, side: Side) -> Side:
        return self.sides[side is self.sides[0]]

    # What a person does.

    def configure(self, side: Side) -> None:
        """Make the other side a peer, with this side's idea of the preshared key."""
        other = self.other(side)
        change = PeerChange(
            PublicKey(self.crypto.public_key(other.key)),
            preshared_key=side.psk,
            endpoint=other.address,
            replace_allowed_ips=True,
            allowed_ips=(AllowedIp(Prefix(other.inner, 32)),),
        )
        side.engine.apply(DeviceChange(replace_peers=not side.knows_peer, peers=(change,)),
                          now=self.now)  # fmt: skip
        side.knows_peer = side.allows = True
        self.collect(side)

    def disallow(self, side: Side) -> None:
        """Take the other side's inner address from it; its session goes on."""
        public = PublicKey(self.crypto.public_key(self.other(side).key))
        prefix = AllowedIp(Prefix(self.other(side).inner, 32), remove=True)
        change = PeerChange(public, allowed_ips=(prefix,))
        side.engine.apply(DeviceChange(peers=(change,)), now=self.now)
        side.allows = False
        self.collect(side)

    def forget_peer(self, side: Side) -> None:
        change = PeerChange(PublicKey(self.crypto.public_key(self.other(side).key)), remove=True)
        side.engine.apply(DeviceChange(peers=(change,)), now=self.now)
        side.knows_peer = False
        side.last_initiation = None
        self.collect(side)

    def new_key(self, side: Side) -> None:
        """A new identity here; the other side only learns it when it is configured again."""
        other = self.other(side)
        if other.knows_peer:
            self.forget_peer(other)
        side.key = PrivateKey.clamp(self.random.randbytes(32))
        side.last_initiation = None
        side.engine.apply(DeviceChange(private_key=side.key), now=self.now)
        self.collect(side)

    def set_up(self, side: Side, up: bool) -> None:
        side.engine.set_up(up, now=self.now)
        if up != side.up:
            side.last_initiation = None
        side.up = up
        self.collect(side)

    def keepalive(self, side: Side, seconds: int) -> None:
        if side.knows_peer:
            key = PublicKey(self.crypto.public_key(self.other(side).key))
            change = PeerChange(key, persistent_keepalive=seconds)
            side.engine.apply(DeviceChange(peers=(change,)), now=self.now)
            self.collect(side)

    def administer(self, side: Side, action: str) -> None:
        """One of `ADMINISTRATION`."""
        match action:
            case "new private key":
                self.new_key(side)
            case "remove peer" if side.knows_peer:
                self.forget_peer(side)
            case "disallow its address" if side.knows_peer:
                self.disallow(side)
            case "configure peer":
                self.configure(side)
            case "other preshared key" | "same preshared key":
                side.psk = PresharedKey(bytes([action == "other preshared key"]) * 32)
                if side.knows_peer:
                    self.configure(side)
            case "down" | "up":
                self.set_up(side, action == "up")
            case "keepalive 25" | "keepalive off":
                self.keepalive(side, 25 if action == "keepalive 25" else 0)
            case "wake for nothing":
                self.handle(side)

    def send(self, side: Side, *, spoof: bool = False, size: int = 0, count: int = 1) -> int:
        """`count` inner packets at once, each with a number of its own; the last number."""
        packets = []
        for _ in range(count):
            number = len(self.sent) + 1
            source = STRANGER if spoof else side.inner
            payload = number.to_bytes(4) + bytes(size)
            packet = Echo(source, self.other(side).inner, 0, False, payload).encode()
            self.sent[number] = packet
            if spoof:
                self.spoofed.add(number)
            packets.append(packet)
        side.engine.send(packets, now=self.now)
        self.collect(side)
        self._check_renewal(side)
        return number

    def _check_renewal(self, side: Side) -> None:
        """Who has just sent on keys that are due for renewal has asked for new ones (§6.2)."""
        device = side.engine.device
        for peer in device.peers.values():
            session, last = peer.current, side.last_initiation
            if (
                side.up
                and side.allows
                and session is not None
                and session.wants_rekey_to_send(self.now, device.parameters)
            ):
                assert last is not None and self.now - last < PARAMETERS.rekey_timeout

    # What the network does.

    def arrive(self, *flights: Flight) -> None:
        """Datagrams reach whoever has their address now: all that one side gets, at once."""
        for side in self.sides:
            mine = [flight for flight in flights if flight.destination == side.address]
            if mine:
                self.history += mine
                self._receive(side, mine)

    def _receive(self, side: Side, flights: list[Flight]) -> None:
        before, drops = fingerprint(side.engine), Counter(side.engine.drops)
        datagrams = [Datagram(flight.data, flight.source) for flight in flights]
        delivered = side.delivered.total()
        side.engine.receive(datagrams, now=self.now)
        new = Counter(side.engine.drops) - drops
        if new.keys() <= REFUSED and new.total() == len(flights):
            assert fingerprint(side.engine) == before, f"{new} changed the state"
        self.collect(side)
        young = sum(self.now - flight.at < PARAMETERS.reject_after_time for flight in flights)
        assert side.delivered.total() - delivered <= young, "delivered under expired keys (§6.2)"

    # Time.

    def advance(self, duration: int) -> None:
        """Let time pass, every deadline handled when it comes."""
        end = self.now + duration
        while True:
            waiting = [
                (deadline.at, number)
                for number, side in enumerate(self.sides)
                if (deadline := side.engine.next_deadline()) is not None
            ]
            if not waiting or min(waiting)[0] > end:
                break
            at, number = min(waiting)
            self._set_time(max(at, self.now))
            self.handle(self.sides[number])
        self._set_time(end)

    def jump(self, duration: int) -> None:
        """The host slept: all deadlines are handled late, at once."""
        self._set_time(self.now + duration)
        for side in self.sides:
            self.handle(side)

    def handle(self, side: Side) -> None:
        side.engine.handle_deadline(now=self.now)
        # Before `next_deadline`, which tidies up.
        look = side.engine.device.earliest_entry()
        assert look is None or look > self.now, "a loop would spin"
        deadline = side.engine.next_deadline()
        assert deadline is None or deadline.at > self.now, f"still due: {deadline.reason}"
        self.collect(side)

    def _set_time(self, now: int) -> None:
        self.wall += now - self.now
        self.now = now

    # What comes out, and what must always be true.

    def collect(self, side: Side) -> None:
        for data, endpoint in side.engine.pull_datagrams():
            assert side.up, "a device that is down said something"
            self._check_initiation(side, bytes(data))
            self.flying.append(
                Flight(bytes(data), side.address, endpoint.without_source(), self.now)
            )
        other = self.other(side)
        for packet in side.engine.pull_packets():
            echo = parse(packet)
            assert echo is not None
            number = int.from_bytes(echo.payload[:4])
            assert packet == self.sent[number], "delivered what nobody sent"
            assert number not in self.spoofed and echo.source == other.inner
            assert side.knows_peer, "delivered from a peer that was removed"
            assert side.allows, "delivered from a source that is not allowed any more"
            side.delivered[number] += 1
            assert side.delivered[number] == 1, "delivered twice"
        assert side.engine.pull_plaintext() == []
        self._check_memory(side)
        self._check_schedule(side)

    def _check_initiation(self, side: Side, data: bytes) -> None:
        if data[0] != TYPE_INITIATION:
            return
        last = side.last_initiation
        assert last is None or self.now - last >= PARAMETERS.rekey_timeout, "too soon (§6.1)"
        side.last_initiation = self.now
        fresh = data[4:40]
        assert fresh not in side.initiations, "sender index and ephemeral used again"
        side.initiations.append(fresh)

    def _check_schedule(self, side: Side) -> None:
        timers = [peer.timers.earliest_at() for peer in side.engine.device.peers.values()]
        earliest = min((at for at in timers if at is not None), default=None)
        look = side.engine.device.earliest_entry()
        deadline = side.engine.next_deadline()
        assert earliest is None or (look is not None and look <= earliest), "nobody would look"
        assert (deadline.at if deadline else None) == earliest, "a deadline would be missed"

    def _check_memory(self, side: Side) -> None:
        device = side.engine.device
        peers = list(device.peers.values())
        assert len(peers) == int(side.knows_peer)
        named = {s.local_index for p in peers for s in p.sessions()}
        named |= {p.initiation.local_index for p in peers if p.initiation is not None}
        assert set(device.indices) == named, "an index outlived its owner"
        for owner in device.indices.values():
            assert (owner.peer if isinstance(owner, Session) else owner) in peers
        for peer in peers:
            self._check_timers(peer)
            assert len(peer.staged) <= PARAMETERS.staged_packets
            for session in peer.sessions():
                assert session.next_counter <= device.parameters.reject_after_messages
        assert len(device._schedule) <= 2 * len(peers) + 66
        assert len(device.limiter) <= 16
        assert len(device.events) <= 4096

    def _check_timers(self, peer: Peer) -> None:
        """The timers that are pending are those of the table (`wgpy.protocol.states`)."""
        keys, initiated = keys_of(peer), peer.initiation is not None
        for timer in Timer:
            if peer.timers.is_set(timer):
                assert may_be_pending(timer, keys, initiated=initiated), (timer, keys, initiated)
            else:
                assert not must_be_pending(timer, keys), (timer, keys)

    # How it must end.

    def heal(self) -> None:
        """Make the configuration right and the network perfect: traffic must flow again."""
        psk = self.sides[0].psk
        for side in self.sides:
            self.set_up(side, True)
            side.psk = psk
            self.configure(side)
        self.flying.clear()
        for side in self.sides:
            # Five attempts a second apart and more: Rekey-Timeout, cookies and the rate
            # limit may each cost one.
            for _ in range(60):
                number = self.send(side)
                self.settle()
                if self.other(side).delivered[number]:
                    break
                self.advance(5 * NS)
                self.settle()
            assert self.other(side).delivered[number], f"{side.name} is not heard any more"

    def settle(self) -> None:
        """Deliver everything that is on its way, and what it causes."""
        for _ in range(4 * len(self.flying) + 100):
            if not self.flying:
                return
            number = self.random.choice([1, 1, 2, 8])
            self.arrive(*[self.flying.pop(0) for _ in self.flying[:number]])
        raise AssertionError("the two sides never stop answering each other")
