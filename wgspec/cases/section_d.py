"""D. mac2, cookies and load (§5.3, §5.4.4, §5.4.7, §6.6)."""

from __future__ import annotations

from wgspec import wire
from wgspec.case import case
from wgspec.cases.pressure import Pressure
from wgspec.check import check
from wgspec.lab import Lab
from wgspec.noise import RIGHT, Handshake, Wrong
from wgspec.peer import Peer
from wgspec.primitives import mac
from wgspec.target import Arrival, Capability, Unsupported
from wgspec.wire import (
    COOKIE_REPLY,
    INITIATION,
    JITTER,
    REKEY_TIMEOUT,
    RESPONSE,
    TRANSPORT,
    ZERO_MAC,
    CookieReply,
    Response,
    parse,
)

LOAD = (Capability.LOAD,)
OUT = Capability.INNER_OUT
RETRY = REKEY_TIMEOUT + JITTER


@case(
    "R-42",
    level="M",
    cost="q",
    paper="5.3",
    text="When not under load, a wrong mac2 is ignored: the response comes as usual.",
)
async def ignored_mac2(lab: Lab) -> None:
    peer = await lab.peer()
    sent = await peer.send_initiation(peer.initiation(wrong=Wrong(mac2=lab.rng.randbytes(16))))
    session = await peer.expect_response(sent)
    peer.send(peer.seal(session, b""))
    await peer.alive(session)


@case(
    "R-43",
    level="M",
    cost="q",
    paper="5.3",
    text="Under load an initiation with a correct mac1 and a zero or wrong mac2 is answered by one "
    "64-byte cookie reply, whose receiver is the rejected message's sender, and is not "
    "processed: a genuine one with an equal timestamp is accepted later.",
    known={"K": "512 queued", "G": "128 queued", "B": "over 100 handshakes a second"},
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def cookie_demanded(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.alive(await peer.handshake())
    pressure = await Pressure.on(lab)
    await pressure.cookie(peer)
    await peer.silence("one cookie reply")
    await pressure.cookie(peer, Wrong(mac2=lab.rng.randbytes(16)))
    await peer.silence("one cookie reply")
    assert peer.last_initiation is not None
    stamp = peer.last_initiation.timestamp
    await pressure.relax()
    sent = await peer.send_initiation(peer.initiation(timestamp=stamp))
    session = await peer.expect_response(sent)
    peer.send(peer.seal(session, b""))
    await peer.alive(session)


@case(
    "R-44",
    level="M",
    cost="q",
    paper="5.4.7",
    text="The cookie opens with XAEAD under Hash(`cookie--` and the target's key), with the "
    "rejected message's mac1 as additional data.",
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def cookie_opens(lab: Lab) -> None:
    peer = await lab.peer()
    pressure = await Pressure.on(lab)
    cookies = [await pressure.cookie(peer) for _ in range(3)]
    check(all(len(c) == 16 for c in cookies), "16-byte cookies", str([len(c) for c in cookies]))
    check(len(set(cookies)) == 1, "one cookie for one address", f"{len(set(cookies))} of 3")


@case(
    "R-45",
    level="M",
    cost="q",
    paper="5.4.7",
    text="Among 500 cookie replies no nonce repeats.",
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def distinct_nonces(lab: Lab) -> None:
    pressure = await Pressure.on(lab)
    await pressure.cookie(await lab.peer())
    nonces: list[bytes] = []
    for _ in range(40):
        await pressure.press()
        await lab.advance(0.05)
        messages = [parse(a.data) for a in pressure.replies()]
        nonces += [m.nonce for m in messages if isinstance(m, CookieReply)]
        if len(nonces) >= 500:
            break
    lab.report(f"{len(nonces)} cookie replies")
    if len(nonces) < 500:
        raise Unsupported(f"only {len(nonces)} cookie replies to 40 bursts")
    check(len(set(nonces)) == len(nonces), "different nonces", "a repeated one")


async def with_cookie(lab: Lab) -> tuple[Peer, Pressure, bytes]:
    """A peer, the pressure on the target, and the peer's cookie."""
    peer = await lab.peer()
    pressure = await Pressure.on(lab)
    return peer, pressure, await pressure.cookie(peer)


async def under_load(
    pressure: Pressure, peer: Peer, wrong: Wrong = RIGHT
) -> tuple[Handshake, Arrival]:
    """Press, and make sure the target is under load by a probe of another peer, then send."""
    prober = await pressure.lab.peer()
    await pressure.cookie(prober)
    sent = await peer.send_initiation(peer.initiation(wrong=wrong))
    got = await peer.arrival()
    check(got is not None, "a reply to the initiation", "silence")
    assert got is not None
    return sent, got


@case(
    "R-46",
    level="M",
    cost="q",
    paper="5.3",
    text="Under load, an initiation with mac2 made with the cookie is answered by a response.",
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def cookie_used(lab: Lab) -> None:
    peer, pressure, cookie = await with_cookie(lab)
    peer.cookie = cookie
    sent, got = await under_load(pressure, peer)
    message = parse(got.data)
    check(isinstance(message, Response), "a response", wire.describe(got.data))
    assert isinstance(message, Response)
    session = peer.read_response(sent, message)
    peer.send(peer.seal(session, b""))
    await peer.alive(session)


async def refused_elsewhere(lab: Lab, *, host: int) -> None:
    peer, pressure, cookie = await with_cookie(lab)
    peer.cookie = cookie
    elsewhere = await lab.moved(peer, host=host)
    _, got = await under_load(pressure, elsewhere)
    what = wire.describe(got.data)
    check(wire.kind(got.data) == COOKIE_REPLY, "a cookie reply", what)
    _, got = await under_load(pressure, peer)
    what = wire.describe(got.data)
    check(wire.kind(got.data) == RESPONSE, "a response where the cookie belongs", what)


@case(
    "R-47",
    level="M",
    cost="q",
    paper="5.4.7",
    text="A cookie used from another source port is refused: a cookie reply again.",
    known={"P": "§5.3 speaks of the IP address alone", "B": "accepts it"},
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def cookie_of_another_port(lab: Lab) -> None:
    await refused_elsewhere(lab, host=0)


@case(
    "R-48",
    level="M",
    cost="q",
    paper="5.4.7",
    text="A cookie used from another source address is refused: a cookie reply again.",
    needs=[*LOAD, Capability.HOSTS],
    fresh=True,
    heavy=True,
)
async def cookie_of_another_host(lab: Lab) -> None:
    await refused_elsewhere(lab, host=1)


@case(
    "R-49",
    level="M",
    cost="l",
    paper="5.4.7",
    text="A cookie is refused once the secret it was made with is more than 2 minutes old.",
    known={"B": "secrets live in slots of 128 s"},
    needs=LOAD,
    fresh=True,
)
async def old_cookie(lab: Lab) -> None:
    peer, pressure, cookie = await with_cookie(lab)
    peer.cookie = cookie
    _, got = await under_load(pressure, peer)
    check(wire.kind(got.data) == RESPONSE, "a response at first", wire.describe(got.data))
    await lab.advance(131.0)
    peer.drain()
    _, got = await under_load(pressure, peer)
    check(wire.kind(got.data) == COOKIE_REPLY, "a cookie reply", wire.describe(got.data))


@case(
    "R-50",
    level="M",
    cost="q",
    paper="5.3",
    text="The target as initiator under load answers our response without mac2 by a cookie reply "
    "to its sender, and takes the response once it has mac2.",
    needs=[*LOAD, OUT],
    fresh=True,
    heavy=True,
)
async def initiator_under_load(lab: Lab) -> None:
    prober = await lab.peer()
    pressure = await Pressure.on(lab)
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, received = await peer.expect_initiation()
    await pressure.cookie(prober)
    raw, session = peer.answer(received)
    peer.send(raw)
    _, message = await peer.expect(COOKIE_REPLY, allow={INITIATION})
    assert isinstance(message, CookieReply)
    check(
        message.receiver == session.local,
        f"receiver {session.local:08x}",
        f"{message.receiver:08x}",
    )
    peer.cookie = peer.open_cookie(message, raw[-32:-16])
    await pressure.cookie(prober)
    await peer.accept(received)


@case(
    "R-51",
    level="D",
    cost="s",
    paper="5.3",
    text="Under load, with a valid mac2, about 5 and then 20 initiations a second of one address "
    "are served; another address is not affected.",
    known={"K": "20/s, burst 5, per IPv4 or IPv6 /64", "G": "per address", "B": "no limiter"},
    needs=[*LOAD, Capability.HOSTS, Capability.CONFIGURE],
    fresh=True,
    heavy=True,
)
async def rate_limit(lab: Lab) -> None:
    pressure = await Pressure.on(lab)
    first = await lab.peer()
    crowd = [first]
    for _ in range(11):
        one = Peer(lab, first.port, lab.rng.randbytes(32), bytes(32))
        one.inner4, one.inner6 = f"10.51.0.{len(crowd)}", f"fd77:51::{len(crowd)}"
        await lab.add(one)
        crowd.append(one)
    other = await lab.peer(host=1)
    cookie = await pressure.cookie(first)
    other.cookie = await pressure.cookie(other)
    start, sent, served, other_served = lab.now(), 0, 0, 0
    while lab.now() - start < 3.0:
        await pressure.press()
        for one in crowd:
            one.cookie = cookie
            one.send(one.initiation().raw)
            sent += 1
        await lab.advance(0.15)
        served += sum(a.data[0] == RESPONSE for a in first.drain())
        other.send(other.initiation().raw)
        await lab.advance(0.1)
        other_served += sum(a.data[0] == RESPONSE for a in other.drain())
    seconds = lab.now() - start
    most = 5 + 20 * (seconds + 0.5)
    lab.report(f"{served} of {sent} served in {seconds:.1f} s; {other_served} of the other address")
    check(served <= most, f"at most {most:.0f} served in {seconds:.1f} s", str(served))
    check(served >= 5, "at least the burst of 5 served", str(served))
    check(other_served >= 1, "the other address served", "nothing")


@case(
    "R-52",
    level="D",
    cost="s",
    paper="5.3",
    text="The state of being under load ends within a second of the pressure.",
    needs=LOAD,
    fresh=True,
    heavy=True,
)
async def load_ends(lab: Lab) -> None:
    peer, pressure, _ = await with_cookie(lab)
    await pressure.press()
    await lab.advance(1.0 + lab.slack)
    peer.drain()
    session = await peer.handshake()
    await peer.alive(session)


def has_mac2(raw: bytes, cookie: bytes) -> bool:
    """Whether mac2 of this handshake message is made with the cookie."""
    return raw[-16:] == mac(cookie, raw[:-16])


@case(
    "R-53",
    level="M",
    cost="s",
    paper="6.6",
    text="A valid cookie reply causes no immediate retransmission: the target waits for its retry "
    "timer.",
    needs=[OUT],
)
async def cookie_waits(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    got, received = await peer.expect_initiation()
    peer.send(peer.cookie_reply(received.sender, received.mac1, lab.rng.randbytes(16)))
    again, _ = await peer.expect_initiation(RETRY + 1 + lab.slack)
    waited = again.at - got.at
    check(waited >= REKEY_TIMEOUT - lab.early, "5 s of waiting", f"{waited:.3f} s")


@case(
    "R-54",
    level="M",
    cost="s",
    paper="5.4.4",
    text="After a cookie reply the next initiation has a fresh ephemeral and mac2 made with the "
    "cookie; so have the target's responses.",
    needs=[OUT],
)
async def cookie_in_use(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    got, received = await peer.expect_initiation()
    cookie = lab.rng.randbytes(16)
    peer.send(peer.cookie_reply(received.sender, received.mac1, cookie))
    again, second = await peer.expect_initiation(RETRY + 1 + lab.slack)
    check(has_mac2(again.data, cookie), "mac2 made with the cookie", again.data[-16:].hex())
    fresh = second.ephemeral_remote != received.ephemeral_remote
    check(fresh, "a fresh ephemeral", "the same one")
    await peer.accept(second)
    sent = await peer.send_initiation()
    answer, message = await peer.expect(RESPONSE)
    assert isinstance(message, Response)
    peer.read_response(sent, message)
    check(has_mac2(answer.data, cookie), "a response with mac2", answer.data[-16:].hex())
    check(got.data[-16:] == ZERO_MAC, "no mac2 before the cookie", got.data[-16:].hex())


async def response_raw(peer: Peer) -> tuple[bytes, Response]:
    """The target's response to a genuine initiation of ours, confirmed."""
    sent = await peer.send_initiation()
    got, message = await peer.expect(RESPONSE, allow={INITIATION, TRANSPORT})
    assert isinstance(message, Response)
    session = peer.read_response(sent, message)
    peer.send(peer.seal(session, b""))
    return got.data, message


@case(
    "R-55",
    level="M",
    cost="l",
    paper="5.4.4",
    text="mac2 is made with a cookie that is less than 120 s old, and is zero again after that.",
    known={"K": "stops at 115 s"},
)
async def cookie_ages(lab: Lab) -> None:
    peer = await lab.peer()
    cookie = lab.rng.randbytes(16)
    _, message = await response_raw(peer)
    peer.send(peer.cookie_reply(message.sender, message.mac1, cookie))
    await lab.advance(110.0)
    raw, _ = await response_raw(peer)
    check(has_mac2(raw, cookie), "mac2 made with a cookie of 110 s", raw[-16:].hex())
    await lab.advance(11.0 + lab.early)
    raw, _ = await response_raw(peer)
    check(raw[-16:] == ZERO_MAC, "a zero mac2 at 121 s", raw[-16:].hex())


@case(
    "R-56",
    level="M",
    cost="s",
    paper="5.3",
    text="A cookie reply with another message's mac1 as additional data, a wrong key, an unknown "
    "index or a flipped bit is ignored: the next mac2 is zero.",
    needs=[OUT],
)
async def wrong_cookie_replies(lab: Lab) -> None:
    peer = await lab.peer(endpoint=True)
    await peer.provoke()
    _, first = await peer.expect_initiation()
    reply = peer.cookie_reply(first.sender, first.mac1, lab.rng.randbytes(16))
    cookie = lab.rng.randbytes(16)
    wrongs = [
        wire.flip(reply, "cookie"),
        wire.flip(reply, "nonce"),
        peer.cookie_reply(first.sender ^ 1, first.mac1, cookie),
        peer.cookie_reply(first.sender, first.mac1, cookie, key_of=peer.remote),
        peer.cookie_reply(first.sender, lab.rng.randbytes(16), cookie),
    ]
    for wrong in wrongs:
        peer.send(wrong)
    got, second = await peer.expect_initiation(RETRY + 1 + lab.slack)
    check(got.data[-16:] == ZERO_MAC, "a zero mac2", got.data[-16:].hex())
    lab.note("a cookie reply with the mac1 of the initiation before")
    peer.send(peer.cookie_reply(second.sender, first.mac1, cookie))
    got, third = await peer.expect_initiation(RETRY + 1 + lab.slack)
    check(got.data[-16:] == ZERO_MAC, "a zero mac2", got.data[-16:].hex())
    peer.send(peer.cookie_reply(third.sender, third.mac1, cookie))
    got, _ = await peer.expect_initiation(RETRY + 1 + lab.slack)
    check(has_mac2(got.data, cookie), "mac2 after a right cookie reply", got.data[-16:].hex())


@case(
    "R-57",
    level="D",
    cost="q",
    paper="5.4.7",
    text="A cookie reply, even a valid one from another address, changes neither the endpoint nor "
    "the session.",
    known={"GT": "fixed in 0.8.0"},
    needs=[OUT],
)
async def cookie_moves_nothing(lab: Lab) -> None:
    peer = await lab.peer()
    await peer.settle(await peer.handshake())
    _, message = await response_raw(peer)
    elsewhere = await lab.moved(peer)
    elsewhere.send(elsewhere.cookie_reply(message.sender, message.mac1, lab.rng.randbytes(16)))
    await elsewhere.silence("a cookie reply from elsewhere")
    await peer.provoke()
    await peer.expect(TRANSPORT, why="at the address as before")
    await elsewhere.silence("data goes to the address as before")


@case(
    "R-58",
    level="I",
    cost="q",
    paper="5.4.7",
    text="Of two valid cookie replies to one message the first is kept.",
    known={"K": "ignores the second", "G": "takes the last"},
)
async def second_cookie(lab: Lab) -> None:
    peer = await lab.peer()
    _, message = await response_raw(peer)
    first, second = lab.rng.randbytes(16), lab.rng.randbytes(16)
    for cookie in (first, second):
        peer.send(peer.cookie_reply(message.sender, message.mac1, cookie))
    raw, _ = await response_raw(peer)
    for name, cookie in (("first", first), ("second", second)):
        if has_mac2(raw, cookie):
            lab.report(f"the {name} cookie is used")
    check(has_mac2(raw, first), "mac2 made with the first cookie", raw[-16:].hex())
