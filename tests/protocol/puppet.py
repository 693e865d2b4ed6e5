"""A hand-driven peer: it speaks to an engine message by message, rightly or wrongly.

`Puppet` is to these tests what a tester's UDP socket is to a running program: it owns a
static key, crafts every message itself, and sees only what the engine sends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from wgpy.protocol import noise
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS, Parameters
from wgpy.protocol.cookie import MacMaker
from wgpy.protocol.crypto import Aead, backend
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.messages import (
    CookieReply,
    Initiation,
    Message,
    Response,
    Transport,
    parse,
)
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange
from wgpy.protocol.tai64n import encode
from wgpy.sim.ping import Echo

WALL = 1_700_000_000 * NS
HOME = Endpoint(bytes([192, 0, 2, 2]), 2222)
AWAY = Endpoint(bytes([198, 51, 100, 7]), 7777)
SUT_IP = bytes([10, 0, 0, 1])
PUPPET_IP = bytes([10, 0, 0, 2])


def echo(source: bytes, destination: bytes, payload: bytes = b"", number: int = 0) -> bytes:
    """An inner packet."""
    return Echo(source, destination, number, False, payload).encode()


@dataclass
class Keys:
    """A session as the puppet sees it."""

    send: Aead
    receive: Aead
    local: int
    remote: int
    counter: int = 0


class Sut:
    """The engine under test, and the time."""

    def __init__(self, parameters: Parameters = DEFAULT_PARAMETERS, mtu: int = 1420) -> None:
        self.crypto = backend()
        self.now = 0
        self.random = Random(7)
        self.key = PrivateKey.clamp(bytes([0xA5] * 32))
        self.public = PublicKey(self.crypto.public_key(self.key))
        self.engine = Engine(
            crypto=self.crypto, entropy=self.random.randbytes, now=0, wall=WALL,
            parameters=parameters, mtu=mtu,
        )  # fmt: skip
        self.engine.apply(DeviceChange(private_key=self.key), now=0)

    def receive(self, data: bytes, source: Endpoint = HOME) -> list[Datagram]:
        """One datagram in; what comes out at once."""
        self.engine.receive([Datagram(data, source)], now=self.now)
        return self.engine.pull_datagrams()

    def send(self, packet: bytes) -> list[Datagram]:
        """One inner packet from the host."""
        self.engine.send([packet], now=self.now)
        return self.engine.pull_datagrams()

    def wait(self, duration: int) -> list[tuple[int, Datagram]]:
        """Let time pass; (when, what) was sent."""
        end = self.now + duration
        sent = []
        while (deadline := self.engine.next_deadline()) is not None and deadline.at <= end:
            self.now = max(self.now, deadline.at)
            self.engine.handle_deadline(now=self.now)
            sent += [(self.now, datagram) for datagram in self.engine.pull_datagrams()]
        self.now = end
        return sent

    def change(self, change: PeerChange) -> list[Datagram]:
        self.engine.apply(DeviceChange(peers=(change,)), now=self.now)
        return self.engine.pull_datagrams()

    def drops(self, reason: DropReason) -> int:
        return self.engine.drops.get(reason, 0)


class Puppet:
    """One peer of the engine under test."""

    def __init__(
        self,
        sut: Sut,
        number: int = 1,
        *,
        known: bool = True,
        psk: PresharedKey = NO_PRESHARED_KEY,
        endpoint: Endpoint | None = HOME,
        allowed: tuple[str, ...] = (),
    ) -> None:
        self.sut = sut
        self.crypto = sut.crypto
        self.key = PrivateKey.clamp(bytes([number] * 32))
        self.public = PublicKey(self.crypto.public_key(self.key))
        self.psk = psk
        self.random = Random(number)
        self.macs = MacMaker(self.crypto, sut.public, 120 * NS)
        self.stamp = WALL
        self.sent: noise.SentInitiation | None = None
        if known:
            prefixes = allowed or (f"10.0.0.{number + 1}/32",)
            sut.change(
                PeerChange(
                    self.public, preshared_key=psk, endpoint=endpoint,
                    allowed_ips=tuple(AllowedIp(Prefix.parse(text)) for text in prefixes),
                )
            )  # fmt: skip

    # As initiator.

    def initiation(self, *, stamp: bytes | None = None, **changes: bytes) -> bytes:
        """A fresh initiation with a growing timestamp; `changes` replace fields, then the MACs
        are made, so that only the named field is wrong."""
        if stamp is None:
            self.stamp += NS
            stamp = encode(self.stamp)
        message, self.sent = noise.create_initiation(
            self.crypto,
            static_public=self.public,
            remote_static=self.sut.public,
            static_static=self.crypto.dh(self.key, self.sut.public),
            ephemeral_private=PrivateKey.clamp(self.random.randbytes(32)),
            sender_index=self.random.getrandbits(32),
            timestamp=stamp,
        )
        return self.sign(replace(message, **changes).encode())  # type: ignore[arg-type]

    def sign(self, data: bytes) -> bytes:
        """Both MACs, for the engine under test."""
        return self.macs.sign(data, self.sut.now)

    def finish(self, replies: list[Datagram]) -> Keys:
        """Keys from the one response in `replies`."""
        (response,) = only(replies, Response)
        assert self.sent is not None
        assert response.receiver_index == self.sent.local_index
        keys = noise.consume_response(
            self.crypto, self.sent, response, static_private=self.key, preshared_key=self.psk
        )
        assert keys is not None, "the response does not open"
        return self._keys(keys, self.sent.local_index, response.sender_index)

    def handshake(self, source: Endpoint = HOME) -> Keys:
        """A whole handshake begun here, confirmed with a keepalive."""
        keys = self.finish(self.sut.receive(self.initiation(), source))
        self.flushed = self.sut.receive(self.seal(keys, b""), source)
        return keys

    # As responder.

    def response(
        self, initiation: Initiation, *, ephemeral: bytes | None = None, **changes: bytes
    ) -> tuple[bytes, Keys]:
        """The answer to the engine's initiation."""
        opened = noise.open_static(
            self.crypto, initiation, static_private=self.key, static_public=self.public
        )
        assert opened is not None and opened.initiator_public == self.sut.public
        shared = self.crypto.dh(self.key, self.sut.public)
        self.seen_stamp = noise.open_timestamp(opened, initiation, static_static=shared)
        assert self.seen_stamp is not None
        message, keys = noise.create_response(
            opened,
            initiation,
            preshared_key=self.psk,
            ephemeral_private=PrivateKey.clamp(self.random.randbytes(32)),
            sender_index=self.random.getrandbits(32),
        )
        if ephemeral is not None:
            message = replace(message, unencrypted_ephemeral=ephemeral)
        data = self.sign(replace(message, **changes).encode())  # type: ignore[arg-type]
        return data, self._keys(keys, message.sender_index, initiation.sender_index)

    def answer(self, sent: list[Datagram]) -> tuple[Keys, list[Datagram]]:
        """Answer the one initiation in `sent`; the keys, and what the engine says then."""
        (initiation,) = only(sent, Initiation)
        data, keys = self.response(initiation)
        return keys, self.sut.receive(data)

    # Transport.

    def seal(self, keys: Keys, packet: bytes, *, counter: int | None = None) -> bytes:
        """A transport message with exactly `packet` inside (pad it yourself)."""
        if counter is None:
            counter, keys.counter = keys.counter, keys.counter + 1
        return Transport(keys.remote, counter, keys.send.seal(counter, packet)).encode()

    def say(self, keys: Keys, payload: bytes = b"", source: Endpoint = HOME) -> list[Datagram]:
        """Send one good inner packet; what the engine sends at once."""
        return self.sut.receive(self.seal(keys, echo(PUPPET_IP, SUT_IP, payload)), source)

    def open(self, keys: Keys, datagram: Datagram) -> bytes | None:
        """The plaintext of a transport message from the engine."""
        message = parse(datagram.data)
        assert isinstance(message, Transport), message
        assert message.receiver_index == keys.local
        return keys.receive.open(message.counter, message.encrypted_packet)

    def _keys(self, keys: noise.TransportKeys, local: int, remote: int) -> Keys:
        return Keys(self.crypto.aead(keys.send), self.crypto.aead(keys.receive), local, remote)

    # Reading.

    def cookie(self, reply: CookieReply) -> bool:
        """Take a cookie for the messages to come."""
        return self.macs.receive(reply, self.sut.now)


def only(sent: list[Datagram], kind: type[Message]) -> list[Message]:  # type: ignore[valid-type]
    """The messages of one kind in `sent`."""
    return [m for m in (parse(d.data) for d in sent) if isinstance(m, kind)]


def kinds(sent: list[Datagram]) -> list[str]:
    """The names of the messages in `sent`."""
    return [type(parse(d.data)).__name__ for d in sent]
