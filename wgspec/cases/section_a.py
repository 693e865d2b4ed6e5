"""A. Wire format and silence (§5.1, §5.3, §5.4)."""

from __future__ import annotations

from wgspec.case import case
from wgspec.cases.common import LOW_ORDER, flip_field, refused_initiations, set_byte
from wgspec.cases.pressure import Pressure
from wgspec.check import check
from wgspec.lab import Lab, listed
from wgspec.noise import Wrong, finish
from wgspec.primitives import public_key
from wgspec.target import Capability
from wgspec.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, ZERO_MAC, Response


@case(
    "R-01",
    level="M",
    cost="q",
    paper="5.4.3",
    text="A valid initiation is answered by exactly one 92-byte response, to the address it came "
    "from and from the port it went to, within a second; its receiver is our sender index and "
    "its reserved bytes are zero.",
)
async def one_response(lab: Lab) -> None:
    peer = await lab.peer()
    sent = await peer.send_initiation()
    got, message = await peer.expect(RESPONSE)
    assert isinstance(message, Response)
    lab.measured(got.at - peer.last_sent_at)
    session = peer.read_response(sent, message)
    to = lab.instance.address(4)
    check(got.source == to, f"a reply from {to}", str(got.source))
    took = got.at - peer.last_sent_at
    check(took <= 1 + lab.slack, "a reply within 1 s", f"{took:.2f} s")
    await peer.silence("one response only")
    peer.send(peer.seal(session, b""))
    await peer.alive(session)


@case(
    "R-02",
    level="M",
    cost="q",
    paper="5.4.3",
    text="The response's mac1 is keyed with the initiator's static key, its mac2 is zero without "
    "a cookie, and `empty` opens under the derived key, with a PSK and without (32 zero bytes).",
)
async def response_fields(lab: Lab) -> None:
    for psk in (False, True):
        if psk and Capability.CONFIGURE not in lab.instance.capabilities:
            lab.report("judged without a PSK: its peers are fixed")
            continue
        peer = await lab.peer(psk=psk)
        sent = await peer.send_initiation()
        _, message = await peer.expect(RESPONSE)
        assert isinstance(message, Response)
        check(message.mac2 == ZERO_MAC, "mac2 of 16 zero bytes", message.mac2.hex())
        session = peer.read_response(sent, message)
        peer.send(peer.seal(session, b""))
        await peer.alive(session)


@case(
    "R-03",
    level="M",
    cost="q",
    paper="5.4.2",
    text="An initiation by the target has 148 bytes, zero reserved bytes, mac1 keyed with our "
    "static key, a zero mac2, and `static` and `timestamp` that open to its key and 12 bytes.",
    needs=[Capability.INNER_OUT],
)
async def initiation_fields(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    got, received = await peer.expect_initiation()
    check(len(received.timestamp) == 12, "a 12-byte timestamp", str(len(received.timestamp)))
    mac2 = got.data[132:]
    check(mac2 == ZERO_MAC, "mac2 of 16 zero bytes", mac2.hex())
    await peer.accept(received)


@case(
    "R-04",
    level="M",
    cost="q",
    paper="5.4",
    text="Handshake messages one byte too short or too long are met with silence: initiations of "
    "147 and 149 bytes, responses of 91 and 93, cookie replies of 63 and 65.",
)
async def exact_lengths(lab: Lab) -> None:
    peer = await lab.peer()
    wrongs = [(f"{148 + by} bytes", Wrong(resize=by)) for by in (-1, 1)]
    await refused_initiations(lab, peer, wrongs)
    if not lab.target_initiates:
        lab.report("judged as responder: it cannot be made to initiate")
        return
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    for by in (-1, 1):
        raw, _ = peer.answer(received, wrong=Wrong(resize=by))
        reply = peer.cookie_reply(received.sender, received.mac1, lab.rng.randbytes(16))
        peer.send(raw)
        peer.send((reply + b"\0") if by > 0 else reply[:-1])
    await peer.silence("responses of 91 and 93 bytes, cookie replies of 63 and 65")
    await peer.accept(received)


@case(
    "R-05",
    level="D",
    cost="q",
    paper="5.4",
    text="A message with a nonzero reserved byte, otherwise correct (mac1 computed over it), is "
    "dropped: initiation, response and data.",
)
async def reserved_bytes(lab: Lab) -> None:
    peer = await lab.peer()
    wrongs = [(f"reserved byte {i}", Wrong(edit=set_byte(i, 1))) for i in (1, 2, 3)]
    await refused_initiations(lab, peer, wrongs)
    if Capability.INNER_IN in lab.instance.capabilities:
        session = await peer.handshake()
        packet = peer.inbound()
        data = bytearray(peer.seal_packet(session, packet.packet))
        data[2] = 1
        peer.send(bytes(data))
        await lab.not_delivered([packet], "reserved byte in data")
        await peer.alive(session)
    if lab.target_initiates:
        peer = await lab.peer(endpoint=True)
        await peer.provoke()
        _, received = await peer.expect_initiation()
        raw, _ = peer.answer(received, wrong=Wrong(edit=set_byte(3, 0x80)))
        peer.send(raw)
        await peer.silence("reserved byte in a response")
        await peer.accept(received)


@case(
    "R-06",
    level="D",
    cost="q",
    paper="5.4",
    text="Message types other than 1 to 4 (0, 5, 255) are met with silence.",
)
async def unknown_types(lab: Lab) -> None:
    peer = await lab.peer()
    wrongs = [(f"type {t}", Wrong(edit=set_byte(0, t))) for t in (0, 5, 255)]
    await refused_initiations(lab, peer, wrongs)


@case(
    "R-07",
    level="D",
    cost="q",
    paper="5.1",
    text="Datagrams of every length from 0 to 31 bytes, with every type byte, are met with silence "
    "and the target keeps running.",
    fresh=True,
)
async def short_datagrams(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    for length in range(32):
        for kind in range(6) if length else (0,):
            body = bytes([kind, 0, 0, 0]) + session.remote.to_bytes(4, "little")
            peer.send((body + lab.rng.randbytes(32))[:length])
    await peer.silence("datagrams of 0 to 31 bytes")
    lab.is_alive()
    await peer.alive(session)


@case(
    "R-08",
    level="D",
    cost="q",
    paper="5.1",
    text="A datagram of 65,507 bytes, as each message type and as data with a known index, is met "
    "with silence and the target keeps running.",
    known={"GT": "0.7.2 fixed a remote crash by oversized datagrams"},
    fresh=True,
)
async def huge_datagrams(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    for kind in range(6):
        body = bytes([kind, 0, 0, 0]) + session.remote.to_bytes(4, "little")
        peer.send(body + bytes(65507 - len(body)))
    await peer.silence("datagrams of 65,507 bytes")
    genuine = peer.seal(session, bytes(65507 - 32))  # opens, but holds no IP packet
    peer.send(genuine)
    await peer.silence("65,475 bytes of plaintext that are not a packet")
    lab.is_alive()
    await peer.alive(session)


@case(
    "R-09",
    level="M",
    cost="q",
    paper="5.3",
    text="A message whose mac1 has one wrong bit is met with silence, under load too: never a "
    "cookie reply.",
    fresh=True,
    heavy=True,
)
async def wrong_mac1(lab: Lab) -> None:
    peer = await lab.peer()
    flips = [
        (f"bit {bit} of mac1 flipped", Wrong(edit_last=flip_field(INITIATION, "mac1", bit)))
        for bit in (0, 64, 127)
    ]
    await refused_initiations(lab, peer, flips)
    if Capability.LOAD not in lab.instance.capabilities:
        return
    pressure = await Pressure.on(lab)
    await pressure.cookie(peer)
    lab.note("under load: mac1 with a flipped bit")
    await pressure.press()
    for _, wrong in flips:
        peer.send(peer.initiation(wrong=wrong).raw)
    await peer.silence("wrong mac1 under load")
    await pressure.relax()
    await peer.handshake()


@case(
    "R-10",
    level="M",
    cost="q",
    paper="5.3",
    text="A message whose mac1 is keyed with another public key is met with silence.",
)
async def mac1_of_another(lab: Lab) -> None:
    peer = await lab.peer()
    other = public_key(lab.rng.randbytes(32))
    await refused_initiations(lab, peer, [("mac1 for another key", Wrong(mac1_for=other))])


@case(
    "R-11",
    level="M",
    cost="q",
    paper="5.1",
    text="A correct initiation by a static key that is not configured is met with silence.",
)
async def unknown_static(lab: Lab) -> None:
    stranger = await lab.peer(configure=False)
    friend = await lab.peer()
    await friend.handshake()
    await stranger.send_initiation()
    await stranger.silence("an unknown static key")
    if Capability.CONFIGURE not in lab.instance.capabilities:
        await friend.handshake()
        return
    await lab.add(stranger)
    session = await stranger.handshake()
    await stranger.alive(session)


@case(
    "R-12",
    level="M",
    cost="q",
    paper="5.1",
    text="An initiation with a flipped bit in `static`, `timestamp` or `ephemeral` (mac1 correct) "
    "is met with silence, and a genuine one right after it is answered: no state is kept.",
)
async def flipped_fields(lab: Lab) -> None:
    peer = await lab.peer()
    wrongs = [
        (f"bit {bit} of {name} flipped", Wrong(edit=flip_field(INITIATION, name, bit)))
        for name in ("static", "timestamp", "ephemeral")
        for bit in (0, 222)
    ]
    await refused_initiations(lab, peer, wrongs)


@case(
    "R-13",
    level="D",
    cost="q",
    paper="5.4.2",
    text="An initiation with a low-order ephemeral, consistently computed, is met with silence.",
    known={"K": "checks", "G": "checks", "B": "has no check"},
)
async def low_order_ephemeral(lab: Lab) -> None:
    peer = await lab.peer()
    await refused_initiations(
        lab, peer, [(f"ephemeral {p.hex()[:8]}…", Wrong(low_order=p)) for p in LOW_ORDER]
    )


@case(
    "R-14",
    level="M",
    cost="q",
    paper="5.4.7",
    text="There is at most one reply to a request and it is never longer than the request: 92 for "
    "148, 64 for 148 or 92, and the confirmation of a response is not longer than the response "
    "either.",
    fresh=True,
    heavy=True,
)
async def no_amplification(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.send_initiation()
    await lab.advance(max(0.5, 2 * lab.quiet()))
    replies = peer.drain()
    sizes = [len(a.data) for a in replies]
    check(sizes == [92], "one reply of 92 bytes to an initiation of 148", listed(replies))
    if Capability.LOAD not in lab.instance.capabilities:
        return
    pressure = await Pressure.on(lab)
    await pressure.cookie(peer)
    await lab.advance(lab.quiet())
    later = peer.drain()
    check(not later, "one reply of 64 bytes to an initiation under load", listed(later))
    if lab.target_initiates:
        await lab.advance(1.5)
        other = await lab.peer(keepalive=0, endpoint=True)
        await other.provoke()
        _, received = await other.expect_initiation()
        await other.accept(received)
        extra = [a for a in other.drain() if len(a.data) > 92]
        check(not extra, "no more than the queued packet after a response", listed(extra))


@case(
    "R-15",
    level="M",
    cost="q",
    paper="5.1",
    text="Unsolicited responses, cookie replies and data with an unknown index are met with "
    "silence.",
)
async def unsolicited(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.alive(session)
    pretended = peer.initiation()
    unknown = (session.remote ^ 0x5A5A5A5A).to_bytes(4, "little")
    me = lab.rng.randbytes(4)
    body = bytes([RESPONSE, 0, 0, 0]) + me + unknown + lab.rng.randbytes(48)
    peer.send(finish(body, peer.remote, None))
    peer.send(bytes([COOKIE_REPLY, 0, 0, 0]) + unknown + lab.rng.randbytes(56))
    peer.send(bytes([TRANSPORT, 0, 0, 0]) + unknown + bytes(8) + lab.rng.randbytes(48))
    known = session.remote
    peer.send(peer.cookie_reply(known, pretended.mac1, lab.rng.randbytes(16)))
    peer.send(finish(body[:8] + known.to_bytes(4, "little") + body[12:], peer.remote, None))
    await peer.silence("unsolicited messages")
    await peer.alive(session)
