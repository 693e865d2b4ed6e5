"""E. Transport data (§5.4.6)."""

from __future__ import annotations

from wgspec import wire
from wgspec.case import case
from wgspec.check import check
from wgspec.inner import SMALLEST_4, Inner, length
from wgspec.lab import Lab
from wgspec.peer import Peer, Session, padding_of
from wgspec.target import Capability
from wgspec.wire import KEEPALIVE_SIZE, REJECT_AFTER_MESSAGES, TRANSPORT

IN, OUT, RAW = Capability.INNER_IN, Capability.INNER_OUT, Capability.INNER_RAW


async def ready(lab: Lab) -> tuple[Peer, Session]:
    """A peer with a session that carries traffic (the unmutated twin)."""
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    return peer, session


def show_life(peer: Peer, session: Session, number: int) -> None:
    """Now and then a keepalive, or a slow target thinks us dead after 15 s (§6.2)."""
    if number % 5 == 4:
        peer.send(peer.seal(session, b""))


@case(
    "R-59",
    level="M",
    cost="q",
    paper="5.4.6",
    text="The target's data has type 4, zero reserved bytes, our index, and counters 0, 1, 2, … "
    "without gap or repeat, in every new session.",
    needs=[OUT],
)
async def counters(lab: Lab) -> None:
    peer = await lab.peer(endpoint=lab.target_initiates)
    for target_first in (lab.target_initiates, False):
        session = await (peer.session_by_target() if target_first else peer.handshake())
        await peer.settle(session)
        for number in range(20):
            await peer.receives(session)
            show_life(peer, session, number)
        # A burst of many sizes, which a target may send as one batch.
        sizes = [60 + 17 * (i % 5) for i in range(20)] + [400] * 20
        packets = [peer.outbound(size=size) for size in sizes]
        await lab.inner_send(*packets)
        plaintexts = [(await peer.expect_data(session))[1] for _ in packets]
        for packet in packets:
            times = sum(packet.token in p for p in plaintexts)
            check(times == 1, "each packet of a burst once", f"{times} times")
        got = session.received
        check(got == list(range(len(got))), "counters 0, 1, 2, …", str(got))


@case(
    "R-60",
    level="M",
    cost="q",
    paper="5.4.6",
    text="Plaintexts are padded with less than 16 zero bytes to a multiple of 16, for 34 inner "
    "sizes in a row.",
    known={"B": "does not pad (issue 494)"},
    needs=[OUT],
)
async def padded(lab: Lab) -> None:
    peer, session = await ready(lab)
    for size in range(SMALLEST_4, SMALLEST_4 + 34):
        plaintext = await peer.receives(session, size=size)
        show_life(peer, session, size)
        check(len(plaintext) % 16 == 0, "a multiple of 16", f"{len(plaintext)} for {size} bytes")
        padding = padding_of(plaintext)
        check(len(plaintext) - size < 16, "less than 16 bytes of padding", str(len(padding)))
        check(not any(padding), "zero padding", padding.hex())


async def unpadded_at(peer: Peer, session: Session, size: int) -> None:
    plaintext = await peer.receives(session, size=size)
    check(len(plaintext) == size, f"{size} bytes at an MTU of {size}", f"{len(plaintext)} bytes")


@case(
    "R-61",
    level="M",
    cost="q",
    paper="5.4.6",
    text="Padding never exceeds the MTU: a packet of 1420 bytes at MTU 1420 is not padded, nor is "
    "one of 1299 at an MTU of 1299.",
    needs=[OUT],
    fresh=True,
)
async def padding_and_mtu(lab: Lab) -> None:
    peer, session = await ready(lab)
    mtu = lab.instance.mtu
    await unpadded_at(peer, session, mtu)
    if Capability.LINK not in lab.instance.capabilities:
        lab.report("another MTU cannot be set here")
        return
    await lab.instance.set_mtu(1299)
    await unpadded_at(peer, session, 1299)
    plaintext = await peer.receives(session, size=1290)
    check(len(plaintext) in (1296, 1299), "1296 bytes (or the MTU)", f"{len(plaintext)} bytes")


@case(
    "R-62",
    level="M",
    cost="q",
    paper="6.5",
    text="A keepalive is a transport message of 32 bytes with an empty plaintext.",
    needs=[Capability.CONFIGURE],
)
async def keepalive_size(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True, keepalive=25)
    _, received = await peer.expect_initiation()
    raw, session = peer.answer(received)
    peer.send(raw)
    got, message = await peer.expect(TRANSPORT, why="a keepalive")
    check(len(got.data) == KEEPALIVE_SIZE, "32 bytes", f"{len(got.data)} bytes")
    plaintext = peer.open(session, message)
    check(plaintext == b"", "an empty plaintext", f"{len(plaintext)} bytes")


@case(
    "R-63",
    level="D",
    cost="q",
    paper="5.4.6",
    text="A receiver takes plaintexts without padding and with more of it than needed, and trims "
    "them to the length in the IP header.",
    needs=[IN],
)
async def trimmed(lab: Lab) -> None:
    peer, session = await ready(lab)
    for family in (4, 6):
        for extra in (0, 1, 15, 16, 17, 200):
            packet = peer.inbound(size=77, family=family)
            peer.send(peer.seal(session, packet.packet + bytes(extra)))
            out = await lab.delivered(packet)
            check(len(out) == 77, f"77 bytes (of {77 + extra})", f"{len(out)} bytes")
            check(length(out) == 77, "an IP length of 77", str(length(out)))


async def _each_once(lab: Lab, packets: list[Inner]) -> None:
    """Every one of these comes out, and only once."""
    for packet in packets:
        await lab.delivered(packet)
    await lab.not_delivered(packets, "delivered before", at_most=1)


@case(
    "R-64",
    level="M",
    cost="q",
    paper="5.4.6",
    text="Data with a flipped bit, a cut end or added bytes is dropped.",
    needs=[IN],
)
async def tampered(lab: Lab) -> None:
    peer, session = await ready(lab)
    packets = [peer.inbound() for _ in range(6)]
    sealed = [peer.seal_packet(session, p.packet) for p in packets]
    wrongs = [
        wire.flip(sealed[0], "packet"),
        wire.flip(sealed[1], "packet", 8 * (len(sealed[1]) - 17)),
        sealed[2][:-1],
        sealed[3] + b"\0",
        wire.flip(sealed[4], "counter", 3),
        sealed[5][:-16],
    ]
    for wrong in wrongs:
        peer.send(wrong)
    await lab.not_delivered(packets, "tampered data")
    await peer.silence("tampered data")
    await peer.alive(session)


@case(
    "R-65",
    level="M",
    cost="q",
    paper="5.4.6",
    text="A forged packet neither uses up its counter nor moves the replay window, however high "
    "its counter.",
    needs=[IN],
)
async def forged(lab: Lab) -> None:
    peer, session = await ready(lab)
    packet = peer.inbound()
    genuine = peer.seal_packet(session, packet.packet)
    peer.send(wire.flip(genuine, "packet"))
    high = peer.inbound()
    peer.send(wire.flip(peer.seal_packet(session, high.packet, 2**40), "packet"))
    peer.send(wire.flip(peer.seal_packet(session, high.packet, 2**63), "packet"))
    await lab.not_delivered([packet, high], "a wrong tag")
    peer.send(genuine)
    await lab.delivered(packet)
    # The same inside a burst, which a target may take as one batch.
    packets = [peer.inbound() for _ in range(30)]
    sealed = [peer.seal_packet(session, p.packet) for p in packets]
    peer.port.train([wire.flip(d, "packet") if i % 3 else d for i, d in enumerate(sealed)])
    await _each_once(lab, packets[::3])
    await lab.not_delivered([p for i, p in enumerate(packets) if i % 3], "forged in a burst")
    peer.port.train([d for i, d in enumerate(sealed) if i % 3])
    await _each_once(lab, packets)
    await peer.alive(session)


@case(
    "R-66",
    level="M",
    cost="q",
    paper="5.4.6",
    text="An exact replay is not delivered twice.",
    needs=[IN],
)
async def replayed(lab: Lab) -> None:
    peer, session = await ready(lab)
    packets = [peer.inbound() for _ in range(5)]
    sealed = [peer.seal_packet(session, p.packet) for p in packets]
    for data, packet in zip(sealed, packets, strict=True):
        peer.send(data)
        await lab.delivered(packet)
        peer.send(data)
    for data in sealed:
        peer.send(data)
    await lab.not_delivered(packets, "replayed", at_most=1)
    # The same inside bursts, which a target may take as one batch: the whole again, and
    # twice each, shuffled.
    for shuffled in (False, True):
        packets = [peer.inbound() for _ in range(30)]
        twice = 2 * [peer.seal_packet(session, p.packet) for p in packets]
        if shuffled:
            lab.rng.shuffle(twice)
        peer.port.train(twice[:30])
        peer.port.train(twice[30:])
        await _each_once(lab, packets)
    await peer.alive(session)


async def _comes_in(lab: Lab, peer: Peer, session: Session, offset: int) -> bool:
    """Whether a packet this far behind the newest is delivered.

    The top jumps first, so that no counter is used twice; a later packet proves it when
    the one behind does not come.
    """
    session.counter += 100_000
    await peer.delivers(session)
    packet = peer.inbound()
    peer.send(peer.seal_packet(session, packet.packet, session.counter - 1 - offset))
    await peer.delivers(session)
    if not lab.times_delivered(packet):
        await lab.advance(lab.quiet() / 4)
    return lab.times_delivered(packet) > 0


@case(
    "R-67",
    level="M",
    cost="q",
    paper="5.4.6",
    text="Packets out of order within the window are delivered, once each; the size of the window "
    "is reported (the paper gives none; less than 32 fails, less than 2000 is noted).",
    known={"K": "8128", "G": "8128", "B": "1024"},
    needs=[IN],
)
async def window(lab: Lab) -> None:
    peer, session = await ready(lab)
    base = session.counter
    early = [base + i for i in (5, 3, 0, 4, 1, 2)]
    packets = []
    for counter in early:
        packet = peer.inbound()
        packets.append(packet)
        peer.send(peer.seal_packet(session, packet.packet, counter))
        await lab.delivered(packet)
    inside, outside = 0, 70_000
    while outside - inside > 1:
        offset = (inside + outside) // 2
        if await _comes_in(lab, peer, session, offset):
            inside = offset
        else:
            outside = offset
    small = " (small: paths that reorder need 2000)" if inside < 2000 else ""
    lab.report(f"offset {inside} comes in, {outside} does not{small}")
    check(inside >= 32, "a window of at least 32", str(inside))
    again = [peer.seal_packet(session, p.packet, c) for p, c in zip(packets, early, strict=True)]
    for data in again:
        peer.send(data)
    await lab.not_delivered(packets, "delivered before", at_most=1)


@case(
    "R-68",
    level="M",
    cost="q",
    paper="5.4.6",
    text="A jump of the counter by 2^32 is accepted; counters left far behind are dropped then.",
    needs=[IN],
)
async def jump(lab: Lab) -> None:
    peer, session = await ready(lab)
    behind = session.counter
    session.counter += 2**32
    await peer.delivers(session)
    late = [peer.inbound() for _ in range(2)]
    peer.send(peer.seal_packet(session, late[0].packet, behind))
    peer.send(peer.seal_packet(session, late[1].packet, behind + 2**31))
    await lab.not_delivered(late, "far behind the window")
    await peer.alive(session)


@case(
    "R-69",
    level="M",
    cost="q",
    paper="6.2",
    text="Data whose counter is Reject-After-Messages (2^64 - 2^13 - 1) or more is dropped; the "
    "counter before it is accepted, once.",
    known={"K": "its limit is 2^64 - 8130, 63 more", "B": "has no limit"},
    needs=[IN],
    fresh=True,
)
async def last_counter(lab: Lab) -> None:
    peer, session = await ready(lab)
    last = peer.inbound()
    data = peer.seal_packet(session, last.packet, REJECT_AFTER_MESSAGES - 1)
    peer.send(data)
    await lab.delivered(last)
    peer.send(data)
    await lab.not_delivered([last], "replayed", at_most=1)
    for counter in (REJECT_AFTER_MESSAGES, 2**64 - 8129, 2**64 - 1):
        packet = peer.inbound()
        peer.send(peer.seal_packet(session, packet.packet, counter))
        away = counter - REJECT_AFTER_MESSAGES
        await lab.not_delivered([packet], f"counter is the limit + {away}")
    lab.is_alive()
    peer.drain()
    await peer.alive(await peer.handshake())


@case(
    "R-70",
    level="M",
    cost="q",
    paper="5.4.5",
    text="The target's own packet sent back to it is dropped: each direction has its own key.",
    needs=[IN, OUT],
)
async def reflected(lab: Lab) -> None:
    peer, session = await ready(lab)
    packet = await peer.provoke()
    got, _ = await peer.expect_data(session)
    peer.send(got.data)
    peer.send(wire.replace(got.data, "receiver", session.remote.to_bytes(4, "little")))
    high = (session.counter + 100).to_bytes(8, "little")
    turned = wire.replace(got.data, "receiver", session.remote.to_bytes(4, "little"))
    peer.send(wire.replace(turned, "counter", high))
    await lab.not_delivered([packet], "reflected")
    await peer.silence("a reflected packet")
    await peer.alive(session)


@case(
    "R-71",
    level="M",
    cost="q",
    paper="5.4.6",
    text="Data under one peer's key with another peer's index is dropped.",
    needs=[IN],
)
async def crossed(lab: Lab) -> None:
    peer, session = await ready(lab)
    other, theirs = await ready(lab)
    packets = [peer.inbound(), other.inbound()]
    ours = peer.seal_packet(session, packets[0].packet)
    peer.send(wire.replace(ours, "receiver", theirs.remote.to_bytes(4, "little")))
    others = other.seal_packet(theirs, packets[1].packet)
    other.send(wire.replace(others, "receiver", session.remote.to_bytes(4, "little")))
    await lab.not_delivered(packets, "another peer's index")
    await peer.alive(session)
    await other.alive(theirs)


@case(
    "R-72",
    level="D",
    cost="q",
    paper="3",
    text="Plaintexts that are not an IP packet (1 to 19 bytes, a version other than 4 and 6, a "
    "length beyond the end) are dropped and the session is unaffected.",
    needs=[IN, RAW],
    fresh=True,
)
async def no_packets(lab: Lab) -> None:
    peer, session = await ready(lab)
    whole = peer.inbound(size=64).packet
    six = peer.inbound(size=64 + 20, family=6).packet
    wrongs = [whole[:n] for n in range(1, 20)] + [six[:n] for n in (20, 39)]
    wrongs += [bytes([version << 4 | 5]) + whole[1:] for version in (0, 1, 5, 7, 15)]
    wrongs += [whole[:2] + (1000).to_bytes(2, "big") + whole[4:]]
    wrongs += [six[:4] + (1000).to_bytes(2, "big") + six[6:]]
    before = len(lab.instance.delivered)
    for wrong in wrongs:
        peer.send(peer.seal(session, wrong))
    await lab.advance(lab.quiet())
    came = list(lab.instance.delivered)[before:]
    check(not came, "nothing delivered", ", ".join(d.packet[:24].hex() for d in came))
    await peer.alive(session)


@case(
    "R-73",
    level="I",
    cost="q",
    paper="5.4",
    text="The outer TOS byte of handshake messages and data, and whether ECN is copied: reported.",
    known={"K": "handshake 0x88 (AF41), data copies ECN", "G": "0", "B": "0"},
    needs=[OUT],
)
async def tos(lab: Lab) -> None:
    peer = await lab.peer(endpoint=lab.target_initiates)
    if lab.target_initiates:
        await peer.provoke()
        got, received = await peer.expect_initiation()
        session, _ = await peer.accept(received)
    else:
        sent = await peer.send_initiation()
        got, message = await peer.expect(wire.RESPONSE)
        assert isinstance(message, wire.Response)
        session = peer.read_response(sent, message)
        peer.send(peer.seal(session, b""))
        await peer.settle(session)
    if got.tos < 0:
        lab.report("the outer TOS byte cannot be seen here")
        return
    peer.drain()
    marked: Inner = peer.outbound(tos=0xB9)
    await lab.inner_send(marked)
    data, _ = await peer.expect_data(session)
    name = wire.NAMES[got.data[0]]
    lab.report(f"{name} 0x{got.tos:02x}; data of inner TOS 0xb9 has 0x{data.tos:02x}")
