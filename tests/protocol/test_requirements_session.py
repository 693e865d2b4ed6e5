"""What a WireGuard must do, sans-IO and in virtual time: load, transport, timers.

Names carry the requirement's number of the conformance tester's list (R-42 …).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.protocol.puppet import (
    AWAY,
    HOME,
    PUPPET_IP,
    SUT_IP,
    Keys,
    Puppet,
    Sut,
    echo,
    kinds,
    only,
)
from tests.support.recording import fingerprint
from wgpy.protocol.constants import DEFAULT_PARAMETERS, MS, NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.messages import CookieReply, Initiation, Response, Transport
from wgpy.protocol.settings import PeerChange

PING = echo(SUT_IP, PUPPET_IP, b"out")
IN = echo(PUPPET_IP, SUT_IP, b"in")
LOADED = replace(DEFAULT_PARAMETERS, under_load_backlog=0)
LIMIT = DEFAULT_PARAMETERS.reject_after_messages


@pytest.fixture
def sut() -> Sut:
    return Sut()


@pytest.fixture
def puppet(sut: Sut) -> Puppet:
    return Puppet(sut)


@pytest.fixture
def keys(puppet: Puppet) -> Keys:
    """A session that the puppet initiated and confirmed."""
    return puppet.handshake()


def got(sut: Sut) -> list[bytes]:
    return sut.engine.pull_packets()


# D. mac2, cookies, load.


def test_r42_without_load_mac2_is_ignored(sut: Sut, puppet: Puppet) -> None:
    good = puppet.initiation()
    assert kinds(sut.receive(good[:-16] + b"garbage garbage!")) == ["Response"]


def test_r43_to_r48_cookies() -> None:
    sut = Sut(LOADED)
    puppet = Puppet(sut)
    first = puppet.initiation()
    (datagram,) = sut.receive(first)
    assert len(datagram.data) == 64
    reply = CookieReply.parse(bytes(datagram.data))
    assert reply.receiver_index == Initiation.parse(first).sender_index
    assert puppet.cookie(reply)
    port = HOME._replace(port=HOME.port + 1)
    host = HOME._replace(ip=bytes([192, 0, 2, 3]))
    for elsewhere in (port, host):
        assert kinds(sut.receive(puppet.initiation(), elsewhere)) == ["CookieReply"]
    assert kinds(sut.receive(puppet.initiation())) == ["Response"]
    nonces = {
        CookieReply.parse(bytes(d.data)).nonce for _ in range(500) for d in sut.receive(first, AWAY)
    }
    assert len(nonces) == 500


def test_r49_a_cookie_ends_with_its_secret() -> None:
    sut = Sut(LOADED)
    puppet = Puppet(sut)
    (reply,) = only(sut.receive(puppet.initiation()), CookieReply)
    assert puppet.cookie(reply)
    sut.now += 119 * NS
    late = puppet.initiation()
    assert kinds(sut.receive(late)) == ["Response"]
    sut.now += NS
    assert kinds(sut.receive(late)) == ["CookieReply"]


def test_r50_an_initiator_under_load_asks_too() -> None:
    sut = Sut(LOADED)
    puppet = Puppet(sut)
    (initiation,) = only(sut.send(PING), Initiation)
    response, keys = puppet.response(initiation)
    (reply,) = only(sut.receive(response), CookieReply)
    assert reply.receiver_index == Response.parse(response).sender_index
    assert puppet.cookie(reply)
    (datagram,) = sut.receive(puppet.sign(response))
    assert puppet.open(keys, datagram) is not None


def test_r51_rate_limit() -> None:
    sut = Sut(replace(LOADED, initiation_guard=0))
    puppet, other = Puppet(sut, 1), Puppet(sut, 2)
    (reply,) = only(sut.receive(puppet.initiation()), CookieReply)
    puppet.cookie(reply)
    assert [len(sut.receive(puppet.initiation())) for _ in range(8)] == [1] * 5 + [0] * 3
    assert sut.drops(DropReason.RATE_LIMITED) == 3
    sut.now += 50 * MS
    assert kinds(sut.receive(puppet.initiation())) == ["Response"]
    (reply,) = only(sut.receive(other.initiation(), AWAY), CookieReply)
    other.cookie(reply)
    assert kinds(sut.receive(other.initiation(), AWAY)) == ["Response"]


def test_cookie_replies_are_bounded_under_a_name() -> None:
    sut = Sut(replace(LOADED, cookie_replies=3, cookie_replies_in_all=5))
    puppet = Puppet(sut)
    message = puppet.initiation()
    assert [len(sut.receive(message)) for _ in range(5)] == [1] * 3 + [0] * 2
    assert [len(sut.receive(message, AWAY)) for _ in range(5)] == [1] * 2 + [0] * 3
    assert (sut.drops(DropReason.COOKIE_LIMITED), sut.drops(DropReason.MAC2_REQUIRED)) == (5, 5)
    sut.now += NS
    (reply,) = only(sut.receive(message), CookieReply)
    assert puppet.cookie(reply)
    assert kinds(sut.receive(puppet.initiation())) == ["Response"]


def test_r52_r103_load_ends_and_the_session_lives(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    stranger = Puppet(sut, 9, known=False)
    flood = [stranger.initiation() for _ in range(50)]
    answers = [kind for n in range(400) for kind in kinds(sut.receive(flood[n % 50], AWAY))]
    assert set(answers) == {"CookieReply"}
    puppet.say(keys)
    assert len(got(sut)) == 1
    sut.now += 2 * NS
    assert kinds(sut.receive(puppet.initiation())) == ["Response"]


def test_r53_r54_r55_using_a_cookie(sut: Sut, puppet: Puppet) -> None:
    first = sut.send(PING)
    initiation = bytes(first[0].data)
    before = sut.engine.next_deadline()
    assert sut.receive(_cookie_for(puppet, initiation)) == [], "no hurry (§6.6)"
    assert sut.engine.next_deadline() == before
    ((at, second),) = sut.wait(6 * NS)
    assert at >= 5 * NS
    data = bytes(second.data)
    assert data[-16:] == sut.crypto.mac(b"C" * 16, data[:-16])
    assert data[8:40] != initiation[8:40]
    # Its responses carry it too.
    (response,) = sut.receive(puppet.initiation())
    assert bytes(response.data)[-16:] == sut.crypto.mac(b"C" * 16, bytes(response.data)[:-16])
    sut.wait(120 * NS)
    sut.engine.send([PING], now=sut.now)
    (late,) = [d for d in sut.engine.pull_datagrams() if len(d.data) == 148] or [
        d for _, d in sut.wait(6 * NS)
    ]
    assert bytes(late.data)[-16:] == bytes(16)


def _cookie_for(puppet: Puppet, message: bytes, **changes: object) -> bytes:
    """A genuine cookie reply of the puppet to a handshake message of the engine."""
    crypto = puppet.crypto
    key = crypto.hash(b"cookie--", puppet.public)
    mac1 = message[-32:-16]
    nonce = bytes(range(24))
    sealed = crypto.xaead_seal(key, nonce, b"C" * 16, mac1)
    index = int.from_bytes(message[4:8], "little")
    reply = CookieReply(index, nonce, sealed)
    return replace(reply, **changes).encode()  # type: ignore[arg-type]


def test_r56_r57_r58_wrong_cookies_and_side_effects(sut: Sut, puppet: Puppet) -> None:
    initiation = bytes(sut.send(PING)[0].data)
    good = _cookie_for(puppet, initiation)
    index = int.from_bytes(initiation[4:8], "little")
    before = fingerprint(sut.engine)
    for bad in (
        _cookie_for(puppet, initiation[:-32] + bytes(32)),
        _cookie_for(puppet, initiation, receiver_index=index ^ 1),
        _cookie_for(puppet, initiation, encrypted_cookie=bytes(32)),
        _cookie_for(Puppet(sut, 5, known=False), initiation),
        good[:-1] + bytes([good[-1] ^ 1]),
    ):
        assert sut.receive(bad, AWAY) == []
        assert fingerprint(sut.engine) == before
    peer = sut.engine.snapshot().peers[0]
    assert sut.receive(good, AWAY) == []
    assert sut.engine.snapshot().peers[0] == replace(
        peer, drops=sut.engine.snapshot().peers[0].drops
    ), "neither endpoint nor timers nor rx bytes"
    assert sut.receive(good, AWAY) == []
    assert sut.drops(DropReason.COOKIE_UNEXPECTED) == 1


# E. Transport.


def test_r59_counters(sut: Sut, keys: Keys) -> None:
    sent = [Transport.parse(bytes(d.data)) for _ in range(50) for d in sut.send(PING)]
    assert [m.counter for m in sent] == list(range(50))
    assert {m.receiver_index for m in sent} == {keys.local}


@pytest.mark.parametrize("mtu", [1420, 1299])
def test_r60_r61_padding(mtu: int) -> None:
    sut = Sut(mtu=mtu)
    puppet = Puppet(sut)
    keys = puppet.handshake()
    for size in [*range(34), mtu - 28 - 15, mtu - 28 - 1, mtu - 28]:
        packet = echo(SUT_IP, PUPPET_IP, b"x" * size)
        (datagram,) = sut.send(packet)
        plaintext = puppet.open(keys, datagram)
        assert plaintext is not None
        assert plaintext[: len(packet)] == packet
        padding = plaintext[len(packet) :]
        assert not any(padding) and len(padding) < 16
        assert len(plaintext) % 16 == 0 or len(plaintext) == mtu
        assert len(plaintext) <= mtu


def test_r63_any_padding_is_trimmed(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    for padding in (0, 1, 15, 16, 100):
        sut.receive(puppet.seal(keys, IN + bytes(padding)))
        assert got(sut) == [IN]


def test_r64_r65_forgeries_leave_the_window_alone(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    good = puppet.seal(keys, IN)
    before = fingerprint(sut.engine)
    far = Transport.parse(good)
    for bad in (
        good[:-1] + bytes([good[-1] ^ 1]), good[:-1], good + b"x",
        replace(far, counter=2**40).encode(),
    ):  # fmt: skip
        sut.receive(bad)
        assert fingerprint(sut.engine) == before
    assert sut.drops(DropReason.TAG_INVALID) == 4
    sut.receive(good)
    assert got(sut) == [IN]


def test_r66_r67_r68_window(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    messages = {n: puppet.seal(keys, IN, counter=n) for n in (1, 5, 8192, 8193, 8196, 2**32)}
    delivered = []
    for number in (5, 1, 1, 5, 8196, 5, 8192, 8192, 8193, 2**32, 8193, 8196):
        sut.receive(messages[number])
        delivered.append(len(got(sut)))
    assert delivered == [1, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 0]
    assert sut.drops(DropReason.REPLAYED) + sut.drops(DropReason.COUNTER_TOO_OLD) == 6


def test_r67_the_window_is_as_wide_as_it_says(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    width = DEFAULT_PARAMETERS.replay_window
    sut.receive(puppet.seal(keys, IN, counter=width + 99))
    for counter, wanted in ((100, 1), (99, 0), (100, 0), (101, 1)):
        got(sut)
        sut.receive(puppet.seal(keys, IN, counter=counter))
        assert len(got(sut)) == wanted, counter


def test_r69_counter_limit(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    last = puppet.seal(keys, IN, counter=LIMIT - 1)
    for message, wanted in ((puppet.seal(keys, IN, counter=LIMIT), 0), (last, 1), (last, 0),
                            (puppet.seal(keys, IN, counter=2**64 - 1), 0)):  # fmt: skip
        sut.receive(message)
        assert len(got(sut)) == wanted
    assert sut.drops(DropReason.COUNTER_EXHAUSTED) == 2


def test_r69_sending_stops_at_the_limit() -> None:
    sut = Sut(replace(DEFAULT_PARAMETERS, rekey_after_messages=5, reject_after_messages=8))
    puppet = Puppet(sut)
    keys = puppet.handshake()
    sut.now += 10 * NS
    sent = [kinds(sut.send(PING)) for _ in range(10)]
    assert sent == [["Transport"]] * 5 + [["Transport", "Initiation"]] + [["Transport"]] * 2 + [
        [], []
    ]  # fmt: skip
    assert puppet.open is not None and keys.local


def test_r70_r71_reflection_and_wrong_index(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    (mine,) = sut.send(PING)
    assert sut.receive(bytes(mine.data)) == []
    own = Transport.parse(bytes(mine.data))
    sut.receive(replace(own, receiver_index=keys.remote).encode())
    other = Puppet(sut, 2)
    theirs = other.handshake(AWAY)
    crossed = replace(Transport.parse(puppet.seal(keys, IN)), receiver_index=theirs.remote)
    sut.receive(crossed.encode())
    assert got(sut) == []
    puppet.say(keys)
    assert len(got(sut)) == 1


def test_r72_malformed_inside(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    short = bytearray(IN)
    short[2:4] = (len(IN) + 1).to_bytes(2)
    bad = [IN[:n] for n in range(1, 20)] + [b"\x05" + IN[1:], bytes(40), bytes(short)]
    for packet in bad:
        sut.receive(puppet.seal(keys, packet))
    assert got(sut) == []
    assert sut.drops(DropReason.INNER_MALFORMED) == len(bad)
    puppet.say(keys)
    assert len(got(sut)) == 1


# F. Timers.


def test_r74_r75_passive_keepalive(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    puppet.say(keys)
    start = sut.now
    ((at, datagram),) = sut.wait(30 * NS)
    assert at - start == 10 * NS
    assert len(datagram.data) == 32
    puppet.say(keys)
    sut.wait(5 * NS)
    sut.send(PING)
    puppet.say(keys)  # an answer, so that no new handshake is due
    sent = sut.wait(9 * NS)
    assert sent == [], "our packet paid for the first, the second is not due"


def test_r76_keepalives_are_not_answered(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    for _ in range(3):
        assert sut.receive(puppet.seal(keys, b"")) == []
        assert sut.wait(30 * NS) == []


def test_r77_an_old_silence_makes_no_hurry(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.wait(60 * NS)
    start = sut.now
    assert puppet.say(keys) == []
    ((at, _),) = sut.wait(12 * NS)
    assert at - start == 10 * NS


@pytest.mark.usefixtures("keys")
def test_r78_idle_is_silent(sut: Sut) -> None:
    assert sut.wait(500 * NS) == []


@pytest.mark.usefixtures("keys")
def test_r79_dead_peer(sut: Sut) -> None:
    sut.wait(20 * NS)
    start = sut.now
    sut.send(PING)
    sent = sut.wait(27 * NS)
    assert kinds([d for _, d in sent]) == ["Initiation"] * 3
    times = [at - start for at, _ in sent]
    assert 15 * NS <= times[0] <= 15 * NS + 334 * MS
    assert all(5 * NS <= b - a <= 5 * NS + 334 * MS for a, b in pairwise(times))


def initiate(sut: Sut, puppet: Puppet) -> Keys:
    """A session that the engine initiated."""
    return puppet.answer(sut.send(PING))[0]


def test_r80_r82_the_initiator_renews(sut: Sut, puppet: Puppet) -> None:
    keys = initiate(sut, puppet)
    puppet.say(keys)
    sut.wait(119 * NS)
    assert kinds(sut.send(PING)) == ["Transport"]
    puppet.say(keys)
    sut.now += NS
    assert kinds(sut.send(PING)) == ["Transport", "Initiation"]


def test_r81_the_responder_does_not(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    for _ in range(17):
        sent = [datagram for _, datagram in sut.wait(10 * NS)] + sut.send(PING)
        assert set(kinds(sent)) == {"Transport"}
        puppet.say(keys)


def test_r82_receive_side(sut: Sut, puppet: Puppet) -> None:
    keys = initiate(sut, puppet)
    sut.now += 165 * NS - 1
    assert puppet.say(keys) == []
    sut.now += 1
    assert kinds(puppet.say(keys)) == ["Initiation"]
    sut.now += 6 * NS
    assert puppet.say(keys) == [], "once"


def test_r83_reject_after_time(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.now += 180 * NS - 1
    puppet.say(keys)
    assert len(got(sut)) == 1
    sut.now += 1
    assert puppet.say(keys) == []
    assert got(sut) == []
    assert sut.drops(DropReason.SESSION_EXPIRED) == 1
    assert kinds(sut.send(PING)) == ["Initiation"]


def test_r84_zeroing(sut: Sut, puppet: Puppet) -> None:
    keys = initiate(sut, puppet)
    sut.wait(200 * NS)
    (pending,) = only(sut.send(PING), Initiation)
    late, _ = puppet.response(pending)
    sut.wait(700 * NS)
    assert sut.receive(late) == [], "the handshake in progress is forgotten too"
    puppet.say(keys)
    assert got(sut) == []
    assert sut.drops(DropReason.UNKNOWN_INDEX) == 2
    assert not sut.engine.device.indices
    peer = sut.engine.device.peers[puppet.public]
    assert peer.sessions() == [] and peer.initiation is None


def test_r85_persistent_keepalive(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.now += NS
    start = sut.now
    (first,) = sut.change(PeerChange(puppet.public, persistent_keepalive=7))
    assert len(first.data) == 32, "at once when switched on"
    assert [at - start for at, _ in sut.wait(15 * NS)] == [7 * NS, 14 * NS]
    sut.send(PING)
    puppet.say(keys)
    at = sut.now
    assert [t - at for t, _ in sut.wait(8 * NS)] == [7 * NS]
    sut.receive(puppet.seal(keys, b""))
    assert sut.change(PeerChange(puppet.public, persistent_keepalive=0)) == []
    assert sut.wait(60 * NS) == []


def test_r86_nothing_is_lost_around_a_rekey(sut: Sut, puppet: Puppet) -> None:
    old = initiate(sut, puppet)
    sut.now += 121 * NS
    sent = sut.send(PING)
    new, confirmation = puppet.answer(sent)
    assert len(confirmation) == 1
    for keys in (old, new, old, new):
        puppet.say(keys)
    assert len(got(sut)) == 4
