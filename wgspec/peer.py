"""The tester's naive peer: an identity, one UDP port, and the sessions it made.

It keeps no timers and answers nothing by itself: a case drives every step, right or wrong.
A received datagram that the case did not expect is a `Mismatch`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from wgspec import noise, wire
from wgspec.check import Mismatch, check
from wgspec.inner import Inner, length
from wgspec.noise import NO_PSK, RIGHT, Handshake, Keys, Wrong
from wgspec.primitives import Forged, hash_, mac, open_, public_key, seal, xopen, xseal
from wgspec.surroundings import REPLY, Surroundings
from wgspec.target import Address, Arrival, Capability, Port
from wgspec.wire import CookieReply, Initiation, Response, Transport

GUARD = 0.03
"""Seconds between two genuine initiations: more than the 20 ms flood guard of K and G."""


@dataclass
class Session:
    """A transport session as the tester holds it."""

    keys: Keys
    local: int
    remote: int
    initiator: bool
    counter: int = 0
    received: list[int] = field(default_factory=list)
    born: float = 0.0


class Peer:
    """One identity of the tester.  Made by `Lab.peer`."""

    def __init__(self, lab: Surroundings, port: Port, private: bytes, psk: bytes) -> None:
        self.lab = lab
        self.port = port
        self.private = private
        self.public = public_key(private)
        self.psk = psk
        self.inner4 = ""
        self.inner6 = ""
        self.cookie: bytes | None = None
        self.last_sent_at = 0.0
        self.last_initiation: Handshake | None = None
        self._initiated_at = -1.0
        self._stamp = 0

    # Identity.

    @property
    def remote(self) -> bytes:
        """The target's public key."""
        return self.lab.target_public

    @property
    def address(self) -> Address:
        return self.port.address

    def index(self) -> int:
        """A fresh random session index."""
        return self.lab.rng.getrandbits(32)

    def stamp(self, ahead: float = 0.0) -> bytes:
        """A TAI64N label greater than all before (`ahead` seconds in the future)."""
        ns = max(self.lab.wall_ns() + int(ahead * 1e9), self._stamp + 1)
        self._stamp = ns
        whole, rest = divmod(ns, 1_000_000_000)
        return (2**62 + 10 + whole).to_bytes(8, "big") + rest.to_bytes(4, "big")

    # Plain datagrams.

    def send(self, data: bytes, to: Address | None = None) -> float:
        """Send bytes as they are."""
        self.last_sent_at = self.port.send(data, to)
        return self.last_sent_at

    async def arrival(self, timeout: float = REPLY) -> Arrival | None:
        """The next datagram from the target, whatever it is."""
        got = await self.port.receive(timeout)
        if got is not None and wire.kind(got.data) == wire.RESPONSE:
            self._initiated_at = self.lab.now()  # the flood guard counts from the taking
        return got

    async def expect(
        self, kind: int, timeout: float = REPLY, *, allow: Collection[int] = (), why: str = ""
    ) -> tuple[Arrival, wire.Message]:
        """The next datagram, which must be of this type; types in `allow` are passed over."""
        name = f"{'an' if kind == wire.INITIATION else 'a'} {wire.NAMES[kind]}"
        name += f" ({why})" if why else ""
        deadline = self.lab.now() + timeout
        while True:
            got = await self.arrival(max(0.0, deadline - self.lab.now()))
            if got is None:
                raise Mismatch(name, f"nothing for {timeout:.1f} s")
            try:
                message = wire.parse(got.data)
            except wire.Malformed as error:
                raise Mismatch(name, str(error)) from error
            if wire.kind(got.data) == kind:
                return got, message
            if wire.kind(got.data) not in allow:
                raise Mismatch(name, wire.describe(got.data))

    async def expect_initiation(
        self, timeout: float = REPLY, *, allow: Collection[int] = ()
    ) -> tuple[Arrival, Handshake]:
        """The target's initiation, opened and checked to be genuine."""
        got, message = await self.expect(wire.INITIATION, timeout, allow=allow)
        assert isinstance(message, Initiation)
        return got, self.read_initiation(message)

    def read_initiation(self, message: Initiation) -> Handshake:
        """Check mac1, open, check that it is the target's."""
        mac1 = mac(noise.mac1_key(self.public), message.raw[:116])
        check(mac1 == message.mac1, "mac1 keyed with our public key", message.mac1.hex())
        try:
            received = noise.read_initiation(self.private, message)
        except Forged:
            raise Mismatch("an initiation that opens with our key", "a wrong tag") from None
        check(
            received.static_remote == self.remote,
            "the target's static public key",
            received.static_remote.hex(),
        )
        return received

    async def silence(
        self, why: str, seconds: float | None = None, *, allow: Collection[int] = ()
    ) -> list[Arrival]:
        """Nothing may arrive (but types in `allow`, which are returned)."""
        wait = self.lab.quiet() if seconds is None else seconds
        deadline = self.lab.now() + wait
        passed: list[Arrival] = []
        while True:
            got = await self.arrival(max(0.0, deadline - self.lab.now()))
            if got is None:
                return passed
            if wire.kind(got.data) not in allow:
                raise Mismatch(f"silence ({why})", wire.describe(got.data))
            passed.append(got)

    def drain(self) -> list[Arrival]:
        """Take what has arrived."""
        out = list(self.port.inbox)
        self.port.inbox.clear()
        return out

    # We initiate.

    def initiation(
        self,
        *,
        timestamp: bytes | None = None,
        sender: int | None = None,
        remote: bytes | None = None,
        wrong: Wrong = RIGHT,
    ) -> Handshake:
        """Build (not send) an initiation; valid except for what `wrong` says."""
        ephemeral = self.lab.rng.randbytes(32)
        sent = noise.build_initiation(
            self.private,
            remote or self.remote,
            sender=self.index() if sender is None else sender,
            ephemeral=ephemeral,
            timestamp=timestamp or self.stamp(),
            cookie=self.cookie,
            wrong=wrong,
        )
        self.lab.transcript.secret(self.private, self.remote, ephemeral, self.psk)
        return sent

    async def guard(self) -> None:
        """Keep two initiations further apart than the flood guard."""
        rest = self._initiated_at + GUARD - self.lab.now()
        if rest > 0:
            await self.lab.advance(rest)

    async def send_initiation(self, sent: Handshake | None = None) -> Handshake:
        """Send an initiation (a valid one by default), not too soon after the last."""
        await self.guard()
        sent = sent or self.initiation()
        self.send(sent.raw)
        self.last_initiation = sent
        self._initiated_at = self.lab.now()
        return sent

    async def send_initiation_to(self, to: Address) -> Handshake:
        """Send a valid initiation to another address of the target."""
        await self.guard()
        sent = self.initiation()
        self.send(sent.raw, to)
        self.last_initiation = sent
        self._initiated_at = self.lab.now()
        return sent

    async def expect_response(
        self, sent: Handshake, timeout: float = REPLY, *, allow: Collection[int] = ()
    ) -> Session:
        """The genuine response to `sent`; makes the session (not yet confirmed)."""
        got, message = await self.expect(wire.RESPONSE, timeout, allow=allow)
        assert isinstance(message, Response)
        self._initiated_at = self.lab.now()
        self.lab.measured(got.at - self.last_sent_at)
        return self.read_response(sent, message)

    def read_response(self, sent: Handshake, message: Response) -> Session:
        """Check and open a response, make the session."""
        check(
            message.receiver == sent.sender,
            f"receiver {sent.sender:08x} (the sender of our initiation)",
            f"{message.receiver:08x}",
        )
        mac1 = mac(noise.mac1_key(self.public), message.raw[:60])
        check(mac1 == message.mac1, "mac1 keyed with the initiator's key", message.mac1.hex())
        try:
            keys = noise.read_response(sent, self.private, message, self.psk)
        except Forged:
            raise Mismatch("a response whose `empty` opens", "a wrong tag") from None
        return Session(keys, sent.sender, message.sender, True, born=self.lab.now())

    async def handshake(self, *, confirm: bool = True, allow: Collection[int] = ()) -> Session:
        """A valid handshake with us as the initiator; `confirm` sends a keepalive."""
        sent = await self.send_initiation()
        session = await self.expect_response(sent, allow=allow)
        if confirm:
            self.send(self.seal(session, b""))
        return session

    # The target initiates.

    def answer(self, received: Handshake, *, wrong: Wrong = RIGHT) -> tuple[bytes, Session]:
        """Build (not send) the response to an initiation, and the session it makes."""
        ephemeral = self.lab.rng.randbytes(32)
        sender = self.index()
        sent, keys = noise.build_response(
            received,
            sender=sender,
            ephemeral=ephemeral,
            psk=self.psk,
            cookie=self.cookie,
            wrong=wrong,
        )
        self.lab.transcript.secret(self.private, self.remote, ephemeral, self.psk)
        return sent.raw, Session(keys, sender, received.sender, False, born=self.lab.now())

    async def respond(
        self, timeout: float = REPLY, *, allow: Collection[int] = ()
    ) -> tuple[Session, bytes]:
        """Answer the target's initiation; the session and its first transport plaintext."""
        _, received = await self.expect_initiation(timeout, allow=allow)
        return await self.accept(received)

    async def accept(self, received: Handshake) -> tuple[Session, bytes]:
        """Answer an initiation already read; await the confirmation."""
        raw, session = self.answer(received)
        at = self.send(raw)
        got, message = await self.expect(wire.TRANSPORT, why="the confirmation")
        self.lab.measured(got.at - at)
        return session, self.open(session, message)

    async def provoke(self, *, size: int = 0, family: int = 4) -> Inner:
        """Give the target an inner packet for us."""
        packet = self.outbound(size=size, family=family)
        await self.lab.inner_send(packet)
        return packet

    async def session_by_target(self) -> Session:
        """Make the target initiate (by a packet for us) and answer it, its data too: otherwise
        it would think us dead after 15 s (§6.2)."""
        packet = await self.provoke()
        session, plaintext = await self.respond()
        if not plaintext:
            _, message = await self.expect(wire.TRANSPORT, why="the queued packet")
            plaintext = self.open(session, message)
        self.is_packet(plaintext, packet)
        self.send(self.seal(session, b""))
        return session

    # Transport data.

    def seal(self, session: Session, plaintext: bytes, counter: int | None = None) -> bytes:
        """A transport message as it is: no padding is added."""
        if counter is None:
            counter = session.counter
            session.counter += 1
        head = b"\x04\0\0\0" + session.remote.to_bytes(4, "little") + counter.to_bytes(8, "little")
        return head + seal(session.keys.send, counter, plaintext)

    def seal_packet(self, session: Session, packet: bytes, counter: int | None = None) -> bytes:
        """A transport message with the padding of §5.4.6."""
        return self.seal(session, packet + bytes(-len(packet) % 16), counter)

    def open(self, session: Session, message: wire.Message) -> bytes:
        """The padded plaintext of the target's data; checks receiver and tag."""
        assert isinstance(message, Transport)
        check(
            message.receiver == session.local,
            f"receiver {session.local:08x} (our index)",
            f"{message.receiver:08x}",
        )
        try:
            plaintext = open_(session.keys.receive, message.counter, message.packet)
        except Forged:
            raise Mismatch("data that opens under the session's key", "a wrong tag") from None
        session.received.append(message.counter)
        return plaintext

    def is_packet(self, plaintext: bytes, packet: Inner) -> None:
        """Check that a plaintext carries this packet."""
        check(packet.token in plaintext, "the packet that was sent inside", plaintext[:64].hex())

    async def expect_data(
        self, session: Session, timeout: float = REPLY, *, allow: Collection[int] = ()
    ) -> tuple[Arrival, bytes]:
        """The target's next transport message on this session: arrival, padded plaintext."""
        got, message = await self.expect(wire.TRANSPORT, timeout, allow=allow)
        return got, self.open(session, message)

    async def receives(self, session: Session, *, family: int = 4, size: int = 0) -> bytes:
        """A packet given to the target comes out here; its padded plaintext."""
        packet = await self.provoke(size=size, family=family)
        at = self.lab.now()
        got, plaintext = await self.expect_data(session)
        if not plaintext:  # a keepalive that was on its way
            got, plaintext = await self.expect_data(session)
        self.lab.measured(got.at - at)
        self.is_packet(plaintext, packet)
        return plaintext

    def inbound(self, *, size: int = 0, family: int = 4, source: str = "", tos: int = 0) -> Inner:
        """An inner packet from us to the target's host."""
        own = self.inner4 if family == 4 else self.inner6
        return self.lab.packet(source or own, self.lab.inner_host(family), size=size, tos=tos)

    def outbound(self, *, size: int = 0, family: int = 4, to: str = "", tos: int = 0) -> Inner:
        """An inner packet from the target's host to us."""
        own = self.inner4 if family == 4 else self.inner6
        return self.lab.packet(self.lab.inner_host(family), to or own, size=size, tos=tos)

    async def delivers(self, session: Session, packet: Inner | None = None) -> Inner:
        """A packet sent on the session comes out of the target's inner side, once."""
        packet = packet or self.inbound()
        at = self.send(self.seal_packet(session, packet.packet))
        await self.lab.delivered(packet, at)
        return packet

    async def alive(self, session: Session) -> None:
        """The liveness probe: the session still carries traffic.

        A target that shows nothing inside must answer a fresh handshake instead.
        """
        self.lab.note("liveness probe")
        if Capability.INNER_IN in self.lab.instance.capabilities:
            await self.delivers(session)
        else:
            await self.handshake()

    async def settle(self, session: Session) -> None:
        """Wait until the target has taken our confirmation: what it sends next is on this
        session.  A packet that comes out inside proves it; else only time can."""
        if Capability.INNER_IN in self.lab.instance.capabilities:
            await self.delivers(session)
        else:
            await self.lab.advance(self.lab.quiet())

    # Cookies.

    def open_cookie(self, message: CookieReply, mac1: bytes) -> bytes:
        """The cookie inside a reply to the message with this mac1."""
        key = hash_(wire.LABEL_COOKIE, self.remote)
        try:
            return xopen(key, message.nonce, message.cookie, mac1)
        except Forged:
            raise Mismatch("a cookie reply that opens", "a wrong tag") from None

    def cookie_reply(
        self,
        to: int,
        mac1: bytes,
        cookie: bytes,
        *,
        key_of: bytes | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        """A cookie reply of ours for the target's message with this sender and mac1."""
        nonce = nonce or self.lab.rng.randbytes(24)
        key = hash_(wire.LABEL_COOKIE, key_of or self.public)
        return b"\x03\0\0\0" + to.to_bytes(4, "little") + nonce + xseal(key, nonce, cookie, mac1)


def padding_of(plaintext: bytes) -> bytes:
    """What follows the IP packet inside a transport plaintext."""
    return plaintext[length(plaintext) :]


__all__ = ["GUARD", "NO_PSK", "REPLY", "Keys", "Peer", "Session", "padding_of"]
