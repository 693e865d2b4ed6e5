"""C. The target as responder (§5, §5.1, §6.3)."""

from __future__ import annotations

from wgspec.case import case
from wgspec.cases.common import flip_field
from wgspec.check import Mismatch, check
from wgspec.lab import Lab
from wgspec.noise import Wrong
from wgspec.target import Capability
from wgspec.wire import INITIATION, REKEY_TIMEOUT, RESPONSE

IN, OUT = Capability.INNER_IN, Capability.INNER_OUT


@case(
    "R-33",
    level="M",
    cost="q",
    paper="5.1",
    text="A byte-exact replay of an accepted initiation is met with silence and leaves the session "
    "intact.",
)
async def replayed_initiation(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    assert peer.last_initiation is not None
    await peer.send_initiation(peer.last_initiation)
    await peer.silence("a replayed initiation")
    await peer.alive(session)
    await peer.handshake()


@case(
    "R-34",
    level="M",
    cost="q",
    paper="5.1",
    text="A fresh initiation whose timestamp is equal to or less than the greatest seen is met "
    "with silence.",
)
async def old_timestamp(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    assert peer.last_initiation is not None
    greatest = peer.last_initiation.timestamp
    for name, less in (("equal", 0), ("1 ns less", 1), ("an hour less", 3600 << 32)):
        stamp = (int.from_bytes(greatest, "big") - less).to_bytes(12, "big")
        sent = await peer.send_initiation(peer.initiation(timestamp=stamp))
        lab.note(f"sender {sent.sender:08x} has a timestamp that is {name}")
    await peer.silence("timestamps that do not grow")
    await peer.alive(session)
    await peer.handshake()


@case(
    "R-35",
    level="M",
    cost="q",
    paper="5.1",
    text="A timestamp in the future is accepted and becomes the new floor, also for later "
    "handshakes.",
    needs=[Capability.FORGET],
)
async def future_timestamp(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.handshake()
    present = [peer.stamp() for _ in range(2)]
    for ahead in (3600.0, 7200.0):
        sent = await peer.send_initiation(peer.initiation(timestamp=peer.stamp(ahead)))
        session = await peer.expect_response(sent)
        peer.send(peer.seal(session, b""))
        await peer.send_initiation(peer.initiation(timestamp=present.pop()))
        await peer.silence("a timestamp below the floor")
    await peer.alive(session)
    await peer.handshake()


@case(
    "R-36",
    level="M",
    cost="q",
    paper="5.1",
    text="An initiation with the greatest timestamp that fails authentication does not raise the "
    "floor.",
)
async def forged_timestamp(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    forged = Wrong(edit=flip_field(INITIATION, "timestamp", 200))
    await peer.send_initiation(peer.initiation(timestamp=b"\xff" * 12, wrong=forged))
    await peer.silence("a timestamp with a wrong tag")
    await peer.alive(session)
    await peer.handshake()


@case(
    "R-37",
    level="D",
    cost="q",
    paper="5.3",
    text="Of two valid initiations by one peer within 20 ms only one is answered; of two that are "
    "25 ms and more apart, both.",
    known={"K": "20 ms", "G": "20 ms", "B": "answers both"},
)
async def flood_guard(lab: Lab) -> None:
    peer = await lab.peer()
    counts: list[int] = []
    for _ in range(6):  # a busy target may take the second one late: one good try proves it
        try:
            await peer.handshake()
        except Mismatch:
            if not counts:
                raise
            break  # it has had enough of us and demands cookies
        await lab.advance(0.05)
        pair = [peer.initiation() for _ in range(2)]
        for sent in pair:
            peer.send(sent.raw)
        await lab.advance(lab.quiet())
        counts.append(sum(a.data[0] == RESPONSE for a in peer.drain()))
        if counts[-1] == 1:
            break
    check(counts[-1] == 1, "one response to two initiations at once", f"responses: {counts}")
    await lab.advance(0.05)
    await peer.handshake()
    await lab.advance(0.05)
    await peer.alive(await peer.handshake())


@case(
    "R-38",
    level="M",
    cost="q",
    paper="5.4.5",
    text="The responder sends no data before the initiator's first transport message, even with "
    "packets queued; after it, the queue follows within a second.",
    needs=[OUT],
)
async def waits_for_confirmation(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake(confirm=False)
    packet = await peer.provoke()
    await peer.silence("unconfirmed", max(0.5, lab.quiet()), allow={INITIATION})
    at = peer.send(peer.seal(session, b""))
    got, plaintext = await peer.expect_data(session, allow={INITIATION})
    if not plaintext:
        got, plaintext = await peer.expect_data(session, allow={INITIATION})
    peer.is_packet(plaintext, packet)
    check(got.at - at <= 1 + lab.slack, "the queue within 1 s", f"{got.at - at:.2f} s")


@case(
    "R-39",
    level="M",
    cost="q",
    paper="6.3",
    text="A handshake that is answered but not confirmed does not end the current session: its "
    "data is accepted and it is still sent on.",
    needs=[IN, OUT],
)
async def unconfirmed(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.delivers(session)
    await peer.receives(session)
    await peer.handshake(confirm=False)
    await peer.delivers(session)
    await peer.receives(session)
    await peer.handshake(confirm=False)
    await peer.delivers(session)
    await peer.receives(session)


@case(
    "R-40",
    level="M",
    cost="q",
    paper="6.3",
    text="After three handshakes data on the current and the previous session is accepted, on the "
    "one before it is dropped.",
    known={"B": "keeps 8 sessions"},
    needs=[IN],
)
async def rotation(lab: Lab) -> None:
    peer = await lab.peer()
    sessions = []
    for _ in range(3):
        session = await peer.handshake()
        await peer.delivers(session)
        sessions.append(session)
    oldest, previous, current = sessions
    await peer.delivers(previous)
    packet = peer.inbound()
    peer.send(peer.seal_packet(oldest, packet.packet))
    await lab.not_delivered([packet], "the session before the previous one")
    await peer.delivers(current)
    await peer.delivers(previous)


@case(
    "R-41",
    level="M",
    cost="s",
    paper="5.3",
    text="Roles are independent: the former responder can initiate the next handshake, and the "
    "other way round.",
    needs=[IN, OUT],
)
async def roles(lab: Lab) -> None:
    first = await lab.peer(endpoint=True)
    await first.session_by_target()
    session = await first.handshake()
    await first.delivers(session)
    await first.receives(session)
    # The target, responder so far, is made to initiate by data that stays unanswered (§6.5).
    second = await lab.peer(endpoint=True)
    session = await second.handshake()
    await second.settle(session)
    await second.receives(session)
    _, received = await second.expect_initiation(3 * REKEY_TIMEOUT + 2 + lab.slack)
    session, _ = await second.accept(received)
    await second.delivers(session)
    await second.receives(session)
