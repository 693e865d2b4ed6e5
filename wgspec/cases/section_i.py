"""I. Life cycle and robustness."""

from __future__ import annotations

import contextlib

from wgspec import wire
from wgspec.case import case
from wgspec.cases.common import garbage_initiation
from wgspec.check import Mismatch, check
from wgspec.lab import Lab, listed
from wgspec.peer import Peer, Session
from wgspec.primitives import public_key
from wgspec.target import Capability, PeerConfig, Rejected
from wgspec.wire import COOKIE_REPLY, RESPONSE

IN, OUT, CONFIGURE = Capability.INNER_IN, Capability.INNER_OUT, Capability.CONFIGURE
RANDOM = 10_000
FLOOD = 20_000
GROWTH = 64 << 20


async def ready(lab: Lab, *, psk: bool = False) -> tuple[Peer, Session]:
    """A peer with an endpoint and a session of the target's making."""
    peer = await lab.peer(endpoint=True, psk=psk)
    return peer, await peer.session_by_target()


@case(
    "R-98",
    level="D",
    cost="q",
    paper="2",
    text="After a change of the private key the target sends nothing on old sessions and makes a "
    "handshake with the new key within a second; a peer that has its own key is ignored.",
    needs=[OUT, CONFIGURE],
    fresh=True,
)
async def new_private_key(lab: Lab) -> None:
    peer, session = await ready(lab)
    if IN in lab.instance.capabilities:
        await peer.delivers(session)
    await lab.configure(private_key=lab.rng.randbytes(32))
    peer.drain()
    packet = await peer.provoke()
    at = lab.now()
    got, received = await peer.expect_initiation()
    check(got.at - at <= 1 + lab.slack, "an initiation within 1 s", f"{got.at - at:.2f} s")
    new, plaintext = await peer.accept(received)
    peer.is_packet(plaintext or (await peer.expect_data(new))[1], packet)
    await peer.alive(await peer.handshake())
    own = await lab.peer(configure=False)
    me = PeerConfig(lab.target_public, endpoint=own.address, allowed_ips=("10.98.0.0/24",))
    try:
        await lab.configure(me)
    except Rejected:
        lab.note("the target refuses a peer with its own key")
    await lab.inner_send(peer.outbound(to="10.98.0.1"))
    await own.silence("a peer with the target's own key")


@case(
    "R-99",
    level="D",
    cost="s",
    paper="5.2",
    text="After a change of the PSK the running session goes on, and the next handshake uses the "
    "new PSK.",
    known={"GT": "before 0.7.2 the session ended"},
    needs=[OUT, CONFIGURE],
)
async def new_psk(lab: Lab) -> None:
    peer, session = await ready(lab, psk=True)
    psk = lab.rng.randbytes(32)
    await lab.configure(PeerConfig(peer.public, update_only=True, preshared_key=psk))
    await peer.receives(session)
    if IN in lab.instance.capabilities:
        await peer.delivers(session)
    peer.psk = psk
    session = await peer.handshake()
    await peer.settle(session)
    await peer.receives(session)


@case(
    "R-100",
    level="D",
    cost="q",
    paper="2",
    text="A removed peer is met with silence at once, its session too; added again, its timestamps "
    "are forgotten.",
    needs=[IN, CONFIGURE],
)
async def removed_peer(lab: Lab) -> None:
    peer = await lab.peer()
    early = [peer.stamp() for _ in range(2)]
    session = await peer.handshake()
    await peer.delivers(session)
    await lab.configure(PeerConfig(peer.public, remove=True))
    packet = peer.inbound()
    peer.send(peer.seal_packet(session, packet.packet))
    await peer.send_initiation()
    await peer.silence("a removed peer")
    await lab.not_delivered([packet], "a removed peer")
    await lab.add(peer)
    sent = await peer.send_initiation(peer.initiation(timestamp=early[0]))
    session = await peer.expect_response(sent)
    await peer.delivers(session)


@case(
    "R-101",
    level="D",
    cost="q",
    paper="2",
    text="With its interface down the target is silent; up again, it works.",
    needs=[Capability.LINK],
    fresh=True,
)
async def link_down(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.alive(await peer.handshake())
    await lab.instance.set_up(False)
    await lab.advance(0.3)
    await peer.send_initiation()
    await peer.silence("the interface is down")
    await lab.instance.set_up(True)
    peer.drain()
    await lab.advance(0.3)
    await peer.alive(await peer.handshake())


def mutated(lab: Lab, peer: Peer, session: Session) -> bytes:
    """A genuine message with one to four bits flipped where that makes it invalid."""
    choice = lab.rng.randrange(3)
    if choice == 0:
        data = bytearray(peer.last_initiation.raw if peer.last_initiation else b"")
        end = 132  # beyond is mac2, which counts only under load
    elif choice == 1:
        data = bytearray(peer.seal(session, bytes(48), session.counter + lab.rng.randrange(1000)))
        end = len(data)
    else:
        data = bytearray(peer.cookie_reply(session.remote, bytes(16), bytes(16)))
        end = len(data)
    for bit in lab.rng.sample(range(8 * end), lab.rng.randrange(1, 5)):
        data[bit // 8] ^= 1 << (bit % 8)
    return bytes(data)


async def alive_again(peer: Peer, session: Session) -> None:
    """The liveness probe; a target that is still busy with the garbage may lose one or two."""
    for _ in range(2):
        with contextlib.suppress(Mismatch):
            await peer.alive(session)
            return
    await peer.alive(session)


@case(
    "R-102",
    level="Q",
    cost="s",
    paper="5.1",
    text="10,000 random and 10,000 mutated datagrams get no reply; the target lives, answers the "
    "next handshake, and its memory grows by less than 64 MiB.",
    fresh=True,
    heavy=True,
)
async def garbage(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    before = lab.instance.health().rss
    port = await lab.port()
    port.on_arrival = None
    for start in range(0, 2 * RANDOM, 200):
        if start < RANDOM:
            batch = [lab.rng.randbytes(lab.rng.randrange(1, 300)) for _ in range(200)]
        else:
            batch = [mutated(lab, peer, session) for _ in range(200)]
        port.burst(batch)
        await lab.advance(0.02)
    await lab.advance(lab.quiet())
    check(not port.inbox, "no reply", listed(list(port.inbox)[:5]))
    lab.is_alive()
    await alive_again(peer, session)
    await peer.alive(await peer.handshake())
    grown = lab.instance.health().rss - before
    if before:
        lab.report(f"memory grew by {grown / 2**20:.1f} MiB")
    check(grown < GROWTH, "less than 64 MiB of growth", f"{grown / 2**20:.1f} MiB")


def answers(data: bytes, sender: int) -> bool:
    """Whether a response or cookie reply is for our message with this sender index."""
    place = {RESPONSE: 8, COOKIE_REPLY: 4}.get(wire.kind(data), 0)
    return not place or data[place : place + 4] == sender.to_bytes(4, "little")


@case(
    "R-103",
    level="Q",
    cost="s",
    paper="5.3",
    text="During a flood of 20,000 initiations that pass mac1 an established session delivers at "
    "least half of its packets, and within 2 s after it a handshake succeeds.",
    needs=[IN, Capability.LOAD],
    fresh=True,
    heavy=True,
)
async def flood(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.delivers(session)
    port = await lab.port(host=lab.instance.hosts - 1)
    port.on_arrival = None
    stock = [garbage_initiation(lab.rng, lab.target_public) for _ in range(1000)]
    packets = []
    for start in range(0, FLOOD, 250):
        port.burst(stock[start % 1000 : start % 1000 + 250])
        packet = peer.inbound()
        packets.append(packet)
        peer.send(peer.seal_packet(session, packet.packet))
        await lab.advance(0.05)
    end = lab.now()
    await lab.advance(lab.quiet())
    came = sum(1 for p in packets if lab.times_delivered(p))
    lab.report(f"{came} of {len(packets)} packets came through the flood")
    check(came * 2 >= len(packets), "half of the packets", f"{came} of {len(packets)}")
    peer.drain()
    while True:
        sent = await peer.send_initiation()
        got = await peer.arrival(max(0.25, lab.quiet()))
        while got is not None and not answers(got.data, sent.sender):
            got = await peer.arrival(max(0.25, lab.quiet()))  # that was for an earlier one
        if got is not None and wire.kind(got.data) == RESPONSE:
            break
        took = lab.now() - end
        check(took <= 2 + 2 * lab.slack, "a handshake within 2 s of the flood", f"{took:.1f} s")
        if got is not None:
            check(wire.kind(got.data) == COOKIE_REPLY, "a cookie reply", wire.describe(got.data))
    message = wire.parse(got.data)
    assert isinstance(message, wire.Response)
    session = peer.read_response(sent, message)
    peer.send(peer.seal(session, b""))
    await peer.delivers(session)


@case(
    "R-104",
    level="D",
    cost="s",
    paper="2",
    text="Configuration of unusual size is accepted and reported complete: 130,560 allowed IPs of "
    "one peer, 40 peers with 52 each, 29 peers without any.",
    needs=[Capability.UAPI, Capability.STATE, CONFIGURE],
    fresh=True,
)
async def big_configuration(lab: Lab) -> None:
    def key() -> bytes:
        return public_key(lab.rng.randbytes(32))

    huge = PeerConfig(
        key(), allowed_ips=tuple(f"10.{a}.{b}.{c}/32"
                                 for a in range(2) for b in range(256) for c in range(255)),
    )  # fmt: skip
    many = [
        PeerConfig(key(), allowed_ips=tuple(f"10.104.{n}.{i}/32" for i in range(52)))
        for n in range(40)
    ]
    none = [PeerConfig(key()) for _ in range(29)]
    await lab.configure(huge, *many, *none)
    state = await lab.instance.state()
    check(len(state.peers) == 70, "70 peers", str(len(state.peers)))
    for wanted in (huge, *many, *none):
        told = state.peer(wanted.public_key)
        check(told is not None, "every peer told back", "one is missing")
        assert told is not None
        same = set(told.allowed_ips) == set(wanted.allowed_ips or ())
        check(same, f"{len(wanted.allowed_ips or ())} allowed IPs", str(len(told.allowed_ips)))
    await lab.configure(replace_peers=True)
    state = await lab.instance.state()
    check(not state.peers, "no peers after replace_peers", str(len(state.peers)))
    peer = await lab.peer()
    await peer.alive(await peer.handshake())


@case(
    "R-105",
    level="D",
    cost="q",
    paper="2",
    text="SIGINT, SIGTERM, deletion of the interface and deletion of the UAPI socket each end the "
    "process cleanly, and its socket is removed.",
    needs=[Capability.PROCESS],
    fresh=True,
)
async def clean_end(lab: Lab) -> None:
    for how in ("SIGINT", "SIGTERM", "link", "socket"):
        lab.note(f"ended by {how}")
        instance = await lab.instance.target.create(lab.rng.randbytes(32))
        try:
            status = await instance.end(how, 5.0 + lab.slack)
            check(status is not None, f"an end by {how}", "it lives on")
            check(status == 0, f"status 0 after {how}", f"status {status}")
            left = instance.leftovers()
            check(not left, f"nothing left after {how}", ", ".join(left))
        finally:
            await instance.stop()
