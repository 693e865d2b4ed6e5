"""H. Roaming (§2.1)."""

from __future__ import annotations

from wgspec import wire
from wgspec.case import case
from wgspec.check import check
from wgspec.lab import Lab
from wgspec.noise import Wrong
from wgspec.peer import Peer, Session
from wgspec.target import Capability
from wgspec.wire import TRANSPORT

IN, OUT = Capability.INNER_IN, Capability.INNER_OUT


async def ready(lab: Lab) -> tuple[Peer, Session]:
    """A peer with a session that the target has seen data on."""
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.settle(session)
    await peer.receives(session)
    return peer, session


async def at_new_place(session: Session, old: Peer, new: Peer) -> None:
    """The target's data must come to `new`, not to `old`."""
    await new.receives(session)
    await old.silence("the peer has moved", 0.05)


@case(
    "R-93",
    level="M",
    cost="q",
    paper="2.1",
    text="Authenticated data, a keepalive, an initiation and a response from another address or "
    "port each move the peer's endpoint.",
    known={"GT": "before 0.4 only an initiation did"},
    needs=[OUT],
)
async def roams(lab: Lab) -> None:
    peer, session = await ready(lab)
    host = min(1, lab.instance.hosts - 1)
    moved = await lab.moved(peer, host=host)
    lab.note("data from a new address")
    await moved.settle(session)
    await at_new_place(session, peer, moved)
    again = await lab.moved(peer)
    lab.note("a keepalive from a new port")
    again.send(again.seal(session, b""))
    await lab.advance(lab.quiet())
    await at_new_place(session, moved, again)
    third = await lab.moved(peer, host=host)
    lab.note("an initiation from a new address")
    sent = await third.send_initiation()
    fresh = await third.expect_response(sent)
    await at_new_place(session, again, third)
    third.send(third.seal(fresh, b""))
    await third.settle(fresh)
    if not lab.target_initiates:
        lab.report("judged without a response: it cannot be made to initiate")
        return
    lab.note("a response from a new port")
    other = await lab.peer(endpoint=True)
    packet = await other.provoke()
    _, received = await other.expect_initiation()
    there = await lab.moved(other)
    made, plaintext = await there.accept(received)
    there.is_packet(plaintext or (await there.expect_data(made))[1], packet)
    await at_new_place(made, other, there)


@case(
    "R-94",
    level="M",
    cost="q",
    paper="2.1",
    text="Packets that do not authenticate, from another address, do not move the endpoint.",
    needs=[OUT],
)
async def forged_does_not_roam(lab: Lab) -> None:
    peer, session = await ready(lab)
    elsewhere = await lab.moved(peer)
    data = elsewhere.seal_packet(session, elsewhere.inbound().packet, session.counter + 5)
    elsewhere.send(wire.flip(data, "packet"))
    elsewhere.send(wire.flip(elsewhere.seal(session, b"", session.counter + 6), "packet"))
    forged = Wrong(edit=lambda message: message.__setitem__(100, message[100] ^ 1))
    elsewhere.send(elsewhere.initiation(wrong=forged).raw)
    await elsewhere.silence("packets that do not authenticate")
    await at_new_place(session, elsewhere, peer)


@case(
    "R-95",
    level="D",
    cost="q",
    paper="2.1",
    text="A replayed authentic packet (data, keepalive, initiation) from another address does not "
    "move the endpoint.",
    needs=[OUT],
)
async def replayed_does_not_roam(lab: Lab) -> None:
    peer, session = await ready(lab)
    assert peer.last_initiation is not None
    data = peer.seal_packet(session, peer.inbound().packet)
    keepalive = peer.seal(session, b"")
    for raw in (data, keepalive):
        peer.send(raw)
    await peer.settle(session)
    elsewhere = await lab.moved(peer)
    await peer.guard()
    for raw in (data, keepalive, peer.last_initiation.raw):
        elsewhere.send(raw)
    await elsewhere.silence("replays")
    await at_new_place(session, elsewhere, peer)


@case(
    "R-96",
    level="D",
    cost="q",
    paper="2.1",
    text="A peer may move between IPv4 and IPv6, and answers come from the address that it wrote "
    "to.",
    needs=[OUT, Capability.IPV6, Capability.HOSTS],
)
async def families(lab: Lab) -> None:
    peer, session = await ready(lab)
    for family in (6, 4):
        moved = await lab.moved(peer, family=family)
        await moved.settle(session)
        await at_new_place(session, peer, moved)
        peer = moved
        for to in (lab.instance.alias(family), lab.instance.address(family)):
            await peer.guard()
            sent = await peer.send_initiation_to(to)
            got, message = await peer.expect(wire.RESPONSE)
            assert isinstance(message, wire.Response)
            check(got.source == to, f"an answer from {to}", str(got.source))
            session = peer.read_response(sent, message)
            peer.send(peer.seal(session, b""), to)
            packet = peer.inbound()
            peer.send(peer.seal_packet(session, packet.packet), to)
            await lab.delivered(packet)
            await peer.provoke()
            data, _ = await peer.expect_data(session)
            check(data.source == to, f"data from {to}", str(data.source))


@case(
    "R-97",
    level="I",
    cost="q",
    paper="2.1",
    text="An authentic packet with an inner source that is not allowed still moves the endpoint.",
    known={"K": "moves", "G": "moves"},
    needs=[OUT],
)
async def disallowed_source_roams(lab: Lab) -> None:
    peer, session = await ready(lab)
    elsewhere = await lab.moved(peer)
    stray = elsewhere.inbound(source="10.97.0.97")
    elsewhere.send(elsewhere.seal_packet(session, stray.packet))
    await elsewhere.silence("a source that is not allowed")
    await lab.inner_send(peer.outbound())
    got = await elsewhere.arrival(1.0 + lab.quiet())
    moved = got is not None and wire.kind(got.data) == TRANSPORT
    lab.report(f"the endpoint {'moves' if moved else 'stays'}")
    check(moved, "the endpoint moves", "it stays")
