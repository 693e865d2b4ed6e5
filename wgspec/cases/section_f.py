"""F. Timers (§6).  Real seconds on sockets, none at all in virtual time."""

from __future__ import annotations

from wgspec.case import case
from wgspec.cases.common import gaps, in_time
from wgspec.check import Mismatch, check
from wgspec.inner import Inner
from wgspec.lab import Lab
from wgspec.peer import Peer, Session
from wgspec.target import Capability, PeerConfig
from wgspec.wire import (
    INITIATION,
    JITTER,
    KEEPALIVE_TIMEOUT,
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
    TRANSPORT,
    Initiation,
    Transport,
    describe,
    parse,
)

IN, OUT = Capability.INNER_IN, Capability.INNER_OUT
DEAD = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT


async def _data_then_keepalive(peer: Peer, session: Session) -> None:
    """Our data is followed by a keepalive of the target, 10 s later and not before."""
    at = peer.send(peer.seal_packet(session, peer.inbound().packet))
    got, message = await peer.expect(TRANSPORT, KEEPALIVE_TIMEOUT + 1 + peer.lab.slack)
    check(peer.open(session, message) == b"", "a keepalive", describe(got.data))
    in_time(peer.lab, "a keepalive", got.at - at, KEEPALIVE_TIMEOUT, KEEPALIVE_TIMEOUT + 1)


@case(
    "R-74",
    level="M",
    cost="s",
    paper="6.5",
    text="Data that the target does not answer with data is followed by one keepalive, 10 s later.",
)
async def keepalive(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await _data_then_keepalive(peer, session)
    await peer.silence("one keepalive", 2.0)


@case(
    "R-75",
    level="M",
    cost="s",
    paper="6.5",
    text="Any authenticated packet that the target sends in the meantime cancels the keepalive.",
    needs=[OUT],
)
async def keepalive_cancelled(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    await lab.advance(4.0)
    await peer.receives(session)
    await peer.silence("the keepalive is not needed", KEEPALIVE_TIMEOUT)


@case(
    "R-76",
    level="M",
    cost="s",
    paper="6.5",
    text="A keepalive alone provokes nothing.",
    known={"GT": "before 0.7.2 it did"},
)
async def no_ping_pong(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    peer.send(peer.seal(session, b""))
    await peer.silence("only keepalives were sent", KEEPALIVE_TIMEOUT + 2)
    await peer.alive(session)


@case(
    "R-77",
    level="M",
    cost="s",
    paper="6.5",
    text="The keepalive is not sent at once when the tunnel was idle for long before.",
    known={"GT": "before 0.7.2 it was"},
)
async def keepalive_after_idle(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.silence("idle", KEEPALIVE_TIMEOUT + 2)
    await _data_then_keepalive(peer, session)


@case(
    "R-78",
    level="M",
    cost="l",
    paper="6.5",
    text="An idle tunnel without persistent keepalive is silent: 60 s without a datagram.",
)
async def idle(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await _data_then_keepalive(peer, session)
    await peer.silence("an idle tunnel", 60.0)
    await peer.alive(session)


@case(
    "R-79",
    level="M",
    cost="s",
    paper="6.2",
    text="When the target has sent data and nothing comes back for 15 s it initiates, and again "
    "every 5 s.",
    needs=[OUT],
)
async def dead_peer(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.settle(session)
    await peer.provoke()
    data, _ = await peer.expect_data(session)
    times = [data.at]
    for wait in (DEAD, REKEY_TIMEOUT):
        got, _ = await peer.expect(INITIATION, wait + JITTER + 1 + lab.slack)
        times.append(got.at)
    first, second = gaps(times)
    in_time(lab, "an initiation", first, DEAD, DEAD + JITTER)
    in_time(lab, "the next", second, REKEY_TIMEOUT, REKEY_TIMEOUT + JITTER)


async def _pinged(peer: Peer, session: Session) -> None:
    """The target sends data and is answered by a keepalive, so that no timer is left."""
    await peer.receives(session)
    peer.send(peer.seal(session, b""))


@case(
    "R-80",
    level="M",
    cost="l",
    paper="6.2",
    text="The initiator's first data after 120 s goes out on the old keys, and with it one "
    "initiation; before that there is none.",
    needs=[OUT],
)
async def initiator_rekeys(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    session = await peer.session_by_target()
    await lab.advance(REKEY_AFTER_TIME - 5)
    await _pinged(peer, session)
    await peer.silence("data at 115 s", 1.0)
    await lab.advance(5.0)
    packet = await peer.provoke()
    await lab.advance(2.0)
    arrived = [parse(a.data) for a in peer.drain()]
    data = [m for m in arrived if isinstance(m, Transport)]
    initiations = [m for m in arrived if isinstance(m, Initiation)]
    check(len(data) == 1, "the data on the old keys", f"{len(data)} transport messages")
    peer.is_packet(peer.open(session, data[0]), packet)
    check(len(initiations) == 1, "one initiation", str(len(initiations)))
    await peer.accept(peer.read_initiation(initiations[0]))


@case(
    "R-81",
    level="M",
    cost="l",
    paper="6.2",
    text="The responder does not initiate when it sends data after 120 s.",
    needs=[OUT],
)
async def responder_does_not(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await lab.advance(REKEY_AFTER_TIME + 2)
    for _ in range(3):
        await _pinged(peer, session)
        await peer.silence("the responder sends data after 120 s", 2.0)


@case(
    "R-82",
    level="M",
    cost="l",
    paper="6.2",
    text="An initiator that only receives starts a handshake at 165 s, once.",
    needs=[OUT],
)
async def last_minute(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    session = await peer.session_by_target()
    start = session.born
    for at in (110.0, 130.0, 150.0, 163.0):
        await lab.advance(start + at - lab.now())
        peer.send(peer.seal(session, b""))
    await peer.silence("before 165 s", start + 164 - lab.now())
    await lab.advance(start + 165.5 - lab.now())
    peer.send(peer.seal(session, b""))
    _, received = await peer.expect_initiation()
    for _ in range(3):
        peer.send(peer.seal(session, b""))
        await peer.silence("one initiation only", 1.0)
    await peer.accept(received)


@case(
    "R-83",
    level="M",
    cost="l",
    paper="6.2",
    text="From 180 s on a session is dead: inbound data is dropped, outbound data is queued and "
    "causes an initiation.",
    needs=[IN, OUT],
)
async def session_expires(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await lab.advance(REJECT_AFTER_TIME - 4)
    await peer.delivers(session)
    await lab.advance(5.0)
    late = peer.inbound()
    peer.send(peer.seal_packet(session, late.packet))
    await lab.not_delivered([late], "a session of 181 s")
    packet = await peer.provoke()
    _, received = await peer.expect_initiation()
    new, plaintext = await peer.accept(received)
    peer.is_packet(plaintext or (await peer.expect_data(new))[1], packet)
    await peer.delivers(new)


@case(
    "R-84",
    level="M",
    cost="l",
    paper="6.3",
    text="After 540 s nothing is left: no data of the old session is accepted, and the answer to "
    "an initiation given up that long ago is ignored.",
    needs=[IN, OUT],
)
async def all_erased(lab: Lab) -> None:
    old = await lab.peer()
    session = await old.handshake()
    await old.delivers(session)
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    last: Initiation | None = None
    for got in await peer.silence("initiations", 110.0, allow={INITIATION}):
        message = parse(got.data)
        assert isinstance(message, Initiation)
        last = message
    check(last is not None, "initiations", "none")
    assert last is not None
    received = peer.read_initiation(last)
    # A kernel's timer wheel rounds so long a timer up by as much as an eighth of its level.
    await lab.advance(3 * REJECT_AFTER_TIME + 1 + 10 * lab.slack)
    peer.send(peer.answer(received)[0])
    await peer.silence("an answer after 540 s")
    old.drain()
    late = old.inbound()
    old.send(old.seal_packet(session, late.packet))
    await lab.not_delivered([late], "a session of more than 650 s")
    await old.delivers(await old.handshake())


@case(
    "R-85",
    level="D",
    cost="s",
    paper="6.5",
    text="A persistent keepalive of n seconds: one at once when it is switched on, then every n s, "
    "counted anew from any traffic; 0 switches it off.",
    known={"B": "a fixed period, also under traffic"},
    needs=[OUT, Capability.CONFIGURE],
)
async def persistent(lab: Lab) -> None:
    interval = 3
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    await lab.advance(0.5)
    await lab.configure(PeerConfig(peer.public, update_only=True, keepalive=interval))
    start = lab.now()
    times = []
    for _ in range(3):
        got, plaintext = await peer.expect_data(session, interval + 1 + lab.slack)
        check(plaintext == b"", "a keepalive", f"{len(plaintext)} bytes")
        times.append(got.at)
    check(times[0] - start <= 1 + lab.slack, "one at once", f"after {times[0] - start:.2f} s")
    for gap in gaps(times):
        in_time(lab, "a persistent keepalive", gap, interval, interval + 0.5)
    await lab.advance(2.0)
    await peer.receives(session)
    busy = lab.now()
    got, _ = await peer.expect_data(session, interval + 1 + lab.slack)
    in_time(lab, "a keepalive after data", got.at - busy, interval, interval + 0.5)
    await lab.configure(PeerConfig(peer.public, update_only=True, keepalive=0))
    peer.drain()
    await peer.silence("switched off", interval + 1.5)


class _Traffic:
    """Both directions at once over whatever sessions there are."""

    def __init__(self, peer: Peer, session: Session) -> None:
        self.peer = peer
        self.sessions = [session]
        self.current = session
        self.inbound: list[Inner] = []
        self.outbound: list[Inner] = []
        self.seen: list[bytes] = []
        self.handshakes = 0

    async def tick(self) -> None:
        """One packet each way, then whatever has arrived."""
        packet = self.peer.inbound()
        self.inbound.append(packet)
        self.peer.send(self.peer.seal_packet(self.current, packet.packet))
        self.outbound.append(await self.peer.provoke())
        await self.peer.lab.advance(0.25)
        for arrival in self.peer.drain():
            self.take(arrival.data)

    def take(self, data: bytes) -> None:
        message = parse(data)
        if isinstance(message, Initiation):
            raw, session = self.peer.answer(self.peer.read_initiation(message))
            self.peer.send(raw)
            self.sessions.append(session)
            self.handshakes += 1
        elif isinstance(message, Transport):
            mine = [s for s in self.sessions if s.local == message.receiver]
            check(bool(mine), "data for one of our sessions", describe(data))
            if mine[0] is self.sessions[-1]:
                self.current = mine[0]  # confirmed: we, the responder, may use it now
            self.seen.append(self.peer.open(mine[0], message))
        else:
            raise Mismatch("data or an initiation", describe(data))


@case(
    "R-86",
    level="M",
    cost="l",
    paper="6.3",
    text="A new handshake under traffic in both directions loses no packet.",
    needs=[IN, OUT],
)
async def rekey_loses_nothing(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    session = await peer.session_by_target()
    await lab.advance(REKEY_AFTER_TIME - 5)
    traffic = _Traffic(peer, session)
    for _ in range(60):
        await traffic.tick()
    await lab.advance(1.0)
    for arrival in peer.drain():
        traffic.take(arrival.data)
    check(traffic.handshakes == 1, "one handshake at 120 s", str(traffic.handshakes))
    lost = [p for p in traffic.outbound if not any(p.token in s for s in traffic.seen)]
    check(not lost, "every packet of the target", f"{len(lost)} of {len(traffic.outbound)} lost")
    lost = [p for p in traffic.inbound if not lab.times_delivered(p)]
    check(not lost, "every packet of ours delivered", f"{len(lost)} lost")
