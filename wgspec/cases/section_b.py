"""B. The target as initiator (§5.4.2, §6.1, §6.4)."""

from __future__ import annotations

from itertools import pairwise

from wgspec.case import case
from wgspec.cases.common import LOW_ORDER, collect_initiations, flip_field, gaps, in_time
from wgspec.check import Mismatch, check
from wgspec.lab import Lab, listed
from wgspec.noise import Wrong
from wgspec.peer import Peer, Session
from wgspec.target import Capability, PeerConfig, Rejected
from wgspec.wire import (
    INITIATION,
    JITTER,
    REKEY_TIMEOUT,
    RESPONSE,
    TRANSPORT,
    Initiation,
    Response,
    Transport,
    parse,
)

OUT = Capability.INNER_OUT
GIVEN_UP = 115.0
"""By then every known implementation has given up (the last one at 107 s)."""


@case(
    "R-16",
    level="M",
    cost="q",
    paper="6.4",
    text="The first packet for a peer without a session causes an initiation within a second; the "
    "packet is queued and delivered after the handshake.",
    needs=[OUT],
)
async def first_packet(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    packet = await peer.provoke()
    at = lab.now()
    got, received = await peer.expect_initiation()
    took = got.at - at
    check(took <= 1 + lab.slack, "an initiation within 1 s", f"{took:.2f} s")
    session, plaintext = await peer.accept(received)
    if not plaintext:
        _, plaintext = await peer.expect_data(session)
    peer.is_packet(plaintext, packet)


@case(
    "R-17",
    level="M",
    cost="s",
    paper="5.4.2",
    text="Every initiation, retransmissions too, has a new ephemeral and a new random sender "
    "index: among 20 and more none repeats, and one peer's do not share their upper bytes.",
    known={"B": "index is base + 1", "GT": "audit finding 3.2: predictable index"},
    needs=[OUT],
)
async def fresh_values(lab: Lab) -> None:
    peers = [await lab.peer(endpoint=True) for _ in range(8)]
    for peer in peers:
        await peer.provoke()
    await lab.advance(2 * REKEY_TIMEOUT + 2 * JITTER + 0.5 + lab.slack)
    seen: list[Initiation] = []
    for peer in peers:
        own = [parse(a.data) for a in peer.drain()]
        messages = [m for m in own if isinstance(m, Initiation)]
        check(len(messages) >= 3, "3 initiations in 11 s", str(len(messages)))
        uppers = {m.sender >> 8 for m in messages}
        shared = f"indices {', '.join(f'{m.sender:08x}' for m in messages)}"
        check(len(uppers) > 1, "indices that do not share their upper bytes", shared)
        seen += messages
    check(len({m.sender for m in seen}) == len(seen), "different indices", "a repeated one")
    check(len({m.ephemeral for m in seen}) == len(seen), "different ephemerals", "a repeat")
    check(len(seen) >= 20, "20 initiations", str(len(seen)))


async def unanswered(lab: Lab, peer: Peer, count: int) -> list[tuple[float, Initiation]]:
    """(time, message) of this many initiations in a row, none answered."""
    await peer.provoke()
    out: list[tuple[float, Initiation]] = []
    for _ in range(count):
        got, message = await peer.expect(
            INITIATION, REKEY_TIMEOUT + JITTER + 1 + lab.slack, why=f"number {len(out) + 1}"
        )
        assert isinstance(message, Initiation)
        out.append((got.at, message))
    return out


@case(
    "R-18",
    level="M",
    cost="s",
    paper="5.1",
    text="Timestamps grow strictly from one initiation to the next.",
    needs=[OUT],
)
async def growing_timestamps(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    stamps = [
        peer.read_initiation(message).timestamp for _, message in await unanswered(lab, peer, 3)
    ]
    grows = all(a < b for a, b in pairwise(stamps))
    check(grows, "growing timestamps", ", ".join(s.hex() for s in stamps))


@case(
    "R-19",
    level="I",
    cost="q",
    paper="5.1",
    text="The timestamp's seconds are within 60 s of the clock (TAI64 base 2^62 + 10) and the low "
    "24 bits of its nanoseconds are zero.",
    known={"K": "zeroes the bits", "G": "zeroes the bits", "B": "base 2^62 + 37, full ns"},
    needs=[OUT],
)
async def timestamp_format(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    seconds = int.from_bytes(received.timestamp[:8], "big")
    nanoseconds = int.from_bytes(received.timestamp[8:], "big")
    off = seconds - (2**62 + 10) - lab.wall_ns() // 10**9
    lab.report(f"timestamp is {off} s off, nanoseconds {nanoseconds:08x}")
    check(abs(off) <= 60, "within 60 s", f"{off} s off")
    check(nanoseconds % 2**24 == 0, "24 zero bits", f"nanoseconds {nanoseconds:08x}")


@case(
    "R-20",
    level="M",
    cost="s",
    paper="6.1",
    text="Two initiations to one peer are never less than 5 s apart, whatever triggers them: "
    "packets every 200 ms, repeated configuration, unanswered handshakes.",
    needs=[OUT, Capability.CONFIGURE],
)
async def never_too_often(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    times: list[float] = []
    for tick in range(60):
        await peer.provoke()
        if tick % 5 == 0:
            again = PeerConfig(peer.public, endpoint=peer.address, keepalive=tick % 2)
            await lab.configure(again)
        times += [at for at, _ in await collect_initiations(peer, 0.2)]
    check(len(times) >= 2, "2 initiations or more in 12 s", str(len(times)))
    least = min(gaps(times))
    check(least >= REKEY_TIMEOUT - lab.early, "5 s between initiations", f"{least:.3f} s")


@case(
    "R-21",
    level="D",
    cost="s",
    paper="6.1",
    text="An unanswered initiation is sent again after 5 s and a jitter of up to a third of a "
    "second, and the gaps vary.",
    known={"K": "0 to 333 ms", "G": "0 to 333 ms", "B": "a 250 ms tick, no jitter"},
    needs=[OUT],
)
async def retry_interval(lab: Lab) -> None:
    peers = [await lab.peer(endpoint=True) for _ in range(3)]
    for peer in peers:
        await peer.provoke()
    await lab.advance(4 * (REKEY_TIMEOUT + JITTER) + 0.5 + lab.slack)
    all_gaps: list[float] = []
    for peer in peers:
        all_gaps += gaps([a.at for a in peer.drain() if a.data[0] == INITIATION])
    check(len(all_gaps) >= 6, "retries every 5 s", f"{len(all_gaps)} retries in 22 s")
    for gap in all_gaps:
        in_time(lab, "a retry", gap, REKEY_TIMEOUT, REKEY_TIMEOUT + JITTER)
    spread = max(all_gaps) - min(all_gaps)
    lab.report(f"gaps of {min(all_gaps):.3f} to {max(all_gaps):.3f} s")
    check(spread > 0.02, "gaps that vary", f"all within {spread * 1000:.1f} ms")


@case(
    "R-22",
    level="M",
    cost="l",
    paper="6.4",
    text="After 90 s (85 to 107 s) of unanswered initiations the target gives up, and is silent "
    "until there is a new packet to send.",
    known={"K": "20 initiations, the last at 95 to 101 s", "G": "as the kernel"},
    needs=[OUT],
)
async def gives_up(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    times = [at for at, _ in await collect_initiations(peer, 125.0)]
    check(bool(times), "initiations", "none")
    last = times[-1] - times[0]
    lab.report(f"{len(times)} initiations, the last after {last:.1f} s")
    # The last one may be up to a retry interval before the moment of giving up.
    check(84 - lab.early <= last <= 107 + lab.slack, "the last after 85 to 107 s", f"{last:.1f} s")


@case(
    "R-23",
    level="M",
    cost="l",
    paper="6.4",
    text="A new packet during the retries starts the count of 90 s again; after the target has "
    "given up, a packet causes an initiation within a second.",
    needs=[OUT],
)
async def fresh_attempt(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    await collect_initiations(peer, 60.0)
    await peer.provoke()
    times = [at for at, _ in await collect_initiations(peer, GIVEN_UP)]
    start = lab.now() - GIVEN_UP - 60
    last = times[-1] - start if times else 0.0
    check(last > 125, "retries for 90 s after the second packet", f"the last after {last:.1f} s")
    await peer.provoke()
    at = lab.now()
    got, _ = await peer.expect(INITIATION)
    check(got.at - at <= 1 + lab.slack, "an initiation within 1 s", f"{got.at - at:.2f} s")


@case(
    "R-24",
    level="D",
    cost="l",
    paper="6.4",
    text="When the target has given up, its queued packets are gone: they do not appear after a "
    "later handshake.",
    needs=[OUT],
)
async def queue_dropped(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    old = await peer.provoke()
    await collect_initiations(peer, GIVEN_UP)
    session = await peer.handshake()
    for got in await peer.silence("old packets", allow={TRANSPORT}):
        check(old.token not in peer.open(session, parse(got.data)), "no old packet", "it came")
    await peer.receives(session)


@case(
    "R-25",
    level="M",
    cost="q",
    paper="5.4.3",
    text="A response with a wrong receiver, a wrong mac1 or a wrong tag is ignored, and the "
    "genuine response to the same initiation still works.",
    needs=[OUT],
)
async def wrong_responses(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    wrongs = {
        "a wrong receiver": Wrong(edit=flip_field(RESPONSE, "receiver")),
        "a wrong mac1": Wrong(edit_last=flip_field(RESPONSE, "mac1")),
        "a wrong tag": Wrong(edit=flip_field(RESPONSE, "empty")),
        "a wrong ephemeral": Wrong(edit=flip_field(RESPONSE, "ephemeral")),
    }
    for name, wrong in wrongs.items():
        lab.note(f"response with {name}")
        peer.send(peer.answer(received, wrong=wrong)[0])
    await peer.silence("wrong responses")
    session, _ = await peer.accept(received)
    if Capability.INNER_IN in lab.instance.capabilities:
        await peer.alive(session)


@case(
    "R-26",
    level="D",
    cost="s",
    paper="5.4.3",
    text="A response to an initiation that a later one has replaced is ignored.",
    known={"B": "accepts one previous"},
    needs=[OUT],
)
async def superseded(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    (_, first), (_, second) = await unanswered(lab, peer, 2)
    lab.note("response to the first initiation")
    peer.send(peer.answer(peer.read_initiation(first))[0])
    await peer.silence("a response to a superseded initiation")
    session, _ = await peer.accept(peer.read_initiation(second))
    if Capability.INNER_IN in lab.instance.capabilities:
        await peer.alive(session)


@case(
    "R-27",
    level="M",
    cost="q",
    paper="5.4.3",
    text="A byte-identical second response makes no second session and no second confirmation.",
    needs=[OUT],
)
async def repeated_response(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    raw, session = peer.answer(received)
    peer.send(raw)
    _, message = await peer.expect(TRANSPORT, why="the confirmation")
    peer.open(session, message)
    for extra in await peer.silence("one confirmation", allow={TRANSPORT}):
        peer.open(session, parse(extra.data))
    peer.send(raw)
    await peer.silence("a repeated response")
    await peer.receives(session)
    counters = session.received
    check(len(set(counters)) == len(counters), "counters without repeat", str(counters))


@case(
    "R-28",
    level="D",
    cost="q",
    paper="6.5",
    text="A valid response is followed by a transport message within a second: the queued packet, "
    "else a keepalive.",
    needs=[OUT, Capability.CONFIGURE],
)
async def confirmation(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True, keepalive=25)
    _, received = await peer.expect_initiation()
    raw, session = peer.answer(received)
    at = peer.send(raw)
    got, message = await peer.expect(TRANSPORT, why="the confirmation")
    check(got.at - at <= 1 + lab.slack, "within 1 s", f"{got.at - at:.2f} s")
    check(not peer.open(session, message), "a keepalive", "data")


@case(
    "R-29",
    level="D",
    cost="q",
    paper="5.4.3",
    text="A response with a low-order ephemeral makes no session; the handshake goes on.",
    known={"K": "checks", "G": "checks", "B": "has no check"},
    needs=[OUT],
)
async def low_order_response(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    for point in LOW_ORDER:
        peer.send(peer.answer(received, wrong=Wrong(low_order=point))[0])
    await peer.silence("responses with low-order ephemerals")
    await peer.accept(received)


@case(
    "R-30",
    level="D",
    cost="q",
    paper="5.4.2",
    text="To a configured peer whose public key is of low order nothing is ever sent.",
    needs=[OUT, Capability.CONFIGURE],
)
async def low_order_key(lab: Lab) -> None:
    port = (await lab.peer(configure=False)).port
    for number, point in enumerate(LOW_ORDER):
        if not any(point):
            continue  # all zero means "no key" in the configuration protocol
        change = PeerConfig(
            point, endpoint=port.address, allowed_ips=(f"10.30.0.{number}/32",), keepalive=1
        )
        try:
            await lab.configure(change)
        except Rejected:
            lab.note(f"the target refuses the key {point.hex()}")
            continue
        lab.remember(point)
        await lab.inner_send(lab.packet(lab.inner_host(4), f"10.30.0.{number}"))
    twin = await lab.peer(endpoint=True)
    await twin.session_by_target()
    await lab.advance(1.2)
    sent = list(port.inbox)
    check(not sent, "silence towards low-order keys", listed(sent))


@case(
    "R-31",
    level="M",
    cost="q",
    paper="5.2",
    text="With a PSK other than the target's there is no session: as initiator it rejects our "
    "response, as responder its answer does not open.",
)
async def wrong_psk(lab: Lab) -> None:
    configurable = Capability.CONFIGURE in lab.instance.capabilities
    if configurable and lab.target_initiates:
        await rejects_psk(lab)
    else:
        lab.report("judged as responder: it cannot be made to initiate")
    other = await lab.peer(psk=configurable)
    right, other.psk = other.psk, lab.rng.randbytes(32)
    sent = await other.send_initiation()
    _, message = await other.expect(RESPONSE)
    assert isinstance(message, Response)
    try:
        other.read_response(sent, message)
    except Mismatch as error:
        lab.note(f"as required: {error.actual}")
    else:
        raise Mismatch("a response that does not open with another PSK", "it opens")
    other.psk = right
    await other.handshake()


async def rejects_psk(lab: Lab) -> None:
    """The half of R-31 in which the target initiates."""
    peer = await lab.peer(psk=True, endpoint=True)
    right = peer.psk
    await peer.provoke()
    _, received = await peer.expect_initiation()
    for wrong in (lab.rng.randbytes(32), bytes(32)):
        peer.psk = wrong
        peer.send(peer.answer(received)[0])
    await peer.silence("a response made with another PSK")
    peer.psk = right
    session, _ = await peer.accept(received)
    if Capability.INNER_IN in lab.instance.capabilities:
        await peer.alive(session)


@case(
    "R-32",
    level="D",
    cost="s",
    paper="6.2",
    text="When both sides initiate at the same time there is one working session within 11 s.",
    needs=[OUT, Capability.INNER_IN],
)
async def simultaneous(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    packet = await peer.provoke()
    start = lab.now()
    _, theirs = await peer.expect_initiation()
    ours = await peer.send_initiation()
    raw, as_responder = peer.answer(theirs)
    peer.send(raw)
    sessions: list[Session] = [as_responder]
    working: Session | None = None
    while working is None:
        if lab.now() - start > 11 + lab.slack:
            raise Mismatch("a working session within 11 s", "none")
        got = await peer.arrival(1.0)
        message = parse(got.data) if got else None
        if isinstance(message, Response):
            sessions.append(peer.read_response(ours, message))
            peer.send(peer.seal(sessions[-1], b""))
        elif isinstance(message, Initiation):
            raw, session = peer.answer(peer.read_initiation(message))
            peer.send(raw)
            sessions.append(session)
        elif isinstance(message, Transport):
            mine = [s for s in sessions if s.local == message.receiver]
            check(bool(mine), "data for one of our sessions", f"receiver {message.receiver:08x}")
            if packet.token in peer.open(mine[0], message):
                working = mine[0]
    await peer.delivers(working)
