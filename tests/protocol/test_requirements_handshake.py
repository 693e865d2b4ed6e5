"""What a WireGuard must do, sans-IO and in virtual time: wire format, initiator, responder.

Names carry the requirement's number of the conformance tester's list (R-01 …).  A silent
protocol needs care: a refused message has an unmutated twin that is accepted, and the
session goes on afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.crypto.test_agreement import LOW_ORDER_KEYS
from tests.protocol.puppet import (
    HOME,
    PUPPET_IP,
    SUT_IP,
    WALL,
    Puppet,
    Sut,
    echo,
    kinds,
    only,
)
from wgpy.protocol.constants import DEFAULT_PARAMETERS, MS, NS
from wgpy.protocol.cookie import mac1_key
from wgpy.protocol.drops import DropReason
from wgpy.protocol.keys import PresharedKey, PublicKey
from wgpy.protocol.messages import ZERO_MAC, Initiation, Response, Transport
from wgpy.protocol.settings import PeerChange
from wgpy.protocol.tai64n import GRAIN, decode, encode

PING = echo(SUT_IP, PUPPET_IP, b"out")


@pytest.fixture
def sut() -> Sut:
    return Sut()


@pytest.fixture
def puppet(sut: Sut) -> Puppet:
    return Puppet(sut)


def still_works(puppet: Puppet) -> None:
    """The unmutated twin: a genuine handshake and a packet each way."""
    puppet.sut.now += 30 * MS
    keys = puppet.handshake()
    puppet.say(keys, b"in")
    assert puppet.sut.engine.pull_packets() == [echo(PUPPET_IP, SUT_IP, b"in")]
    (datagram,) = puppet.sut.send(PING)
    opened = puppet.open(keys, datagram)
    assert opened is not None and opened.startswith(PING)


# A. Wire format and silence.


@pytest.mark.parametrize("psk", [bytes(32), bytes(range(32))], ids=["none", "psk"])
def test_r01_r02_r14_one_response(psk: bytes) -> None:
    sut = Sut()
    puppet = Puppet(sut, psk=PresharedKey(psk))
    replies = sut.receive(puppet.initiation())
    (datagram,) = replies
    assert (len(datagram.data), datagram.endpoint) == (92, HOME)
    data = bytes(datagram.data)
    assert data[:4] == bytes([2, 0, 0, 0])
    assert data[-16:] == ZERO_MAC
    assert data[60:76] == sut.crypto.mac(mac1_key(sut.crypto, puppet.public), data[:60])
    puppet.finish(replies)


def test_r03_r19_initiation(sut: Sut, puppet: Puppet) -> None:
    (datagram,) = sut.send(PING)
    data = bytes(datagram.data)
    assert (len(data), data[:4], data[-16:]) == (148, bytes([1, 0, 0, 0]), ZERO_MAC)
    assert data[116:132] == sut.crypto.mac(mac1_key(sut.crypto, puppet.public), data[:116])
    puppet.answer([datagram])
    assert puppet.seen_stamp is not None
    assert 0 <= WALL - decode(puppet.seen_stamp) < GRAIN
    assert puppet.seen_stamp[-3:] == bytes(3)


def test_r04_to_r08_what_is_no_message(sut: Sut, puppet: Puppet) -> None:
    good = puppet.initiation()
    for bad in (good[:-1], good + b"x", *(bytes([1]) + bytes(n) for n in range(32)), b"",
                bytes(65_507), bytes([4, 0, 0, 0]) + bytes(65_503)):  # fmt: skip
        assert sut.receive(bad) == []
    for position in (1, 2, 3):
        changed = bytearray(good)
        changed[position] = 1
        assert sut.receive(puppet.sign(bytes(changed))) == []
    for kind in (0, 5, 255):
        assert sut.receive(puppet.sign(bytes([kind]) + good[1:])) == []
    still_works(puppet)


def test_r09_r10_mac1(sut: Sut, puppet: Puppet) -> None:
    for load in (0, 128):
        sut = Sut(replace(DEFAULT_PARAMETERS, under_load_backlog=load))
        puppet = Puppet(sut)
        good = bytearray(puppet.initiation())
        good[120] ^= 1
        assert sut.receive(bytes(good)) == []
        assert sut.drops(DropReason.MAC1_INVALID) == 1
        other = puppet.crypto.mac(mac1_key(sut.crypto, puppet.public), bytes(good[:116]))
        assert sut.receive(bytes(good[:116]) + other + ZERO_MAC) == []
    still_works(puppet)


def test_r11_unknown_initiator(sut: Sut) -> None:
    assert sut.receive(Puppet(sut, 9, known=False).initiation()) == []
    assert sut.drops(DropReason.UNKNOWN_INITIATOR) == 1


@pytest.mark.parametrize(
    "name", ["encrypted_static", "encrypted_timestamp", "unencrypted_ephemeral"]
)
def test_r12_r36_a_wrong_field_leaves_no_trace(sut: Sut, puppet: Puppet, name: str) -> None:
    size = {"encrypted_static": 48, "encrypted_timestamp": 28, "unencrypted_ephemeral": 32}[name]
    assert sut.receive(puppet.initiation(stamp=b"\xff" * 12, **{name: b"\x11" * size})) == []
    still_works(puppet)


@pytest.mark.parametrize("public", LOW_ORDER_KEYS, ids=bytes.hex)
def test_r13_low_order_ephemeral(sut: Sut, puppet: Puppet, public: bytes) -> None:
    assert sut.receive(puppet.initiation(unencrypted_ephemeral=public)) == []
    assert sut.drops(DropReason.LOW_ORDER_KEY) == 1
    still_works(puppet)


def test_r15_unsolicited(sut: Sut, puppet: Puppet) -> None:
    response = Response(1, 2, bytes(32), bytes(16)).encode()
    assert sut.receive(puppet.sign(response)) == []
    assert sut.receive(bytes([3, 0, 0, 0]) + bytes(60)) == []
    assert sut.receive(Transport(99, 0, bytes(16)).encode()) == []
    assert sut.drops(DropReason.UNKNOWN_INDEX) == 3
    still_works(puppet)


# B. Initiator.


def test_r16_r28_the_first_packet_waits_for_the_handshake(sut: Sut, puppet: Puppet) -> None:
    keys, sent = puppet.answer(sut.send(PING))
    (datagram,) = sent
    opened = puppet.open(keys, datagram)
    assert opened is not None and opened.startswith(PING)


def test_r17_r18_r20_r21_r22_retries(sut: Sut, puppet: Puppet) -> None:
    sent = [(0, sut.send(PING)[0]), *sut.wait(200 * NS)]
    times = [at for at, _ in sent]
    gaps = [b - a for a, b in pairwise(times)]
    assert all(5 * NS <= gap <= 5 * NS + 334 * MS for gap in gaps)
    assert len(set(gaps)) == len(gaps)
    assert 85 * NS <= times[-1] <= 107 * NS
    messages = [Initiation.parse(bytes(datagram.data)) for _, datagram in sent]
    assert len({m.unencrypted_ephemeral for m in messages}) == len(messages) > 15
    assert len({m.sender_index >> 8 for m in messages}) == len(messages)
    stamps = []
    for message in messages:
        puppet.response(message)
        stamps.append(puppet.seen_stamp)
    assert stamps == sorted(set(stamps))  # type: ignore[type-var]


def test_r20_nothing_makes_initiations_hurry(sut: Sut, puppet: Puppet) -> None:
    times = [0]
    sut.send(PING)
    for step in range(40):
        out = [at for at, _ in sut.wait(500 * MS)]
        sut.engine.send([PING] * 3, now=sut.now)
        change = PeerChange(puppet.public, endpoint=HOME, persistent_keepalive=step % 2)
        out += [sut.now for d in sut.change(change) if len(d.data) == 148]
        times += out
    assert all(b - a >= 5 * NS for a, b in pairwise(times))
    assert len(times) > 3


def test_r23_r24_giving_up_and_starting_anew(sut: Sut, puppet: Puppet) -> None:
    sut.now = NS
    sut.send(PING)
    sut.wait(60 * NS)
    sut.engine.send([PING], now=sut.now)
    after = sut.wait(100 * NS)
    assert after[-1][0] > 120 * NS, "a new packet restarts the 90 s"
    assert sut.wait(300 * NS) == []
    assert sut.drops(DropReason.HANDSHAKE_GAVE_UP) == 2
    fresh = echo(SUT_IP, PUPPET_IP, b"new")
    (initiation,) = sut.send(fresh)
    keys, sent = puppet.answer([initiation])
    assert [puppet.open(keys, d)[: len(fresh)] for d in sent] == [fresh]  # type: ignore[index]


def test_r25_r26_r27_responses(sut: Sut, puppet: Puppet) -> None:
    (first,) = only(sut.send(PING), Initiation)
    stale, _ = puppet.response(first)
    ((_, again),) = sut.wait(6 * NS)
    initiation = Initiation.parse(bytes(again.data))
    assert sut.receive(stale) == []
    good, keys = puppet.response(initiation)
    message = Response.parse(good)
    wrong = replace(message, receiver_index=message.receiver_index ^ 1)
    for bad in (
        puppet.sign(wrong.encode()),
        good[:-32] + bytes(32),
        puppet.sign(replace(message, encrypted_nothing=bytes(16)).encode()),
        puppet.sign(replace(message, unencrypted_ephemeral=bytes([9] + [0] * 31)).encode()),
    ):
        assert sut.receive(bad) == []
    (datagram,) = sut.receive(good)
    assert puppet.open(keys, datagram) is not None
    assert sut.receive(good) == [], "the second copy makes no second session"
    puppet.say(keys)
    assert len(sut.engine.pull_packets()) == 1


def test_r28_without_data_a_keepalive_confirms(sut: Sut, puppet: Puppet) -> None:
    initiation = sut.change(PeerChange(puppet.public, persistent_keepalive=25))
    keys, (datagram,) = puppet.answer(initiation)
    assert len(datagram.data) == 32
    assert puppet.open(keys, datagram) == b""


@pytest.mark.parametrize("public", LOW_ORDER_KEYS[:4], ids=bytes.hex)
def test_r29_low_order_response(sut: Sut, puppet: Puppet, public: bytes) -> None:
    (initiation,) = only(sut.send(PING), Initiation)
    bad, _ = puppet.response(initiation, ephemeral=public)
    assert sut.receive(bad) == []
    assert sut.drops(DropReason.LOW_ORDER_KEY) == 1
    assert kinds([d for _, d in sut.wait(6 * NS)]) == ["Initiation"]


@pytest.mark.parametrize("public", LOW_ORDER_KEYS, ids=bytes.hex)
def test_r30_low_order_peer_is_never_spoken_to(sut: Sut, puppet: Puppet, public: bytes) -> None:
    change = PeerChange(PublicKey(public), endpoint=HOME, persistent_keepalive=1)
    assert sut.change(change) == []
    assert sut.wait(200 * NS) == []
    still_works(puppet)


def test_r31_wrong_psk(sut: Sut, puppet: Puppet) -> None:
    puppet.psk = PresharedKey(bytes([1] * 32))
    data, _ = puppet.response(only(sut.send(PING), Initiation)[0])
    assert sut.receive(data) == []
    assert sut.drops(DropReason.RESPONSE_INVALID) == 1
    with pytest.raises(AssertionError, match="does not open"):
        puppet.finish(sut.receive(puppet.initiation()))


def test_r32_simultaneous(sut: Sut, puppet: Puppet) -> None:
    """Both initiate; whatever is answered first, data flows both ways at the end."""
    mine = sut.send(PING)
    theirs = puppet.finish(sut.receive(puppet.initiation()))
    keys, sent = puppet.answer(mine)
    assert len(sent) == 1 and puppet.open(keys, sent[0]) is not None
    puppet.say(theirs, b"1")
    puppet.say(keys, b"2")
    assert len(sut.engine.pull_packets()) == 2
    (datagram,) = sut.send(PING)
    assert puppet.open(keys, datagram) or puppet.open(theirs, datagram)


# C. Responder.


def test_r33_r34_r35_timestamps(sut: Sut, puppet: Puppet) -> None:
    good = puppet.initiation()
    keys = puppet.finish(sut.receive(good))
    sut.now += NS
    assert sut.receive(good) == []
    assert sut.receive(puppet.initiation(stamp=encode(puppet.stamp))) == []
    assert sut.receive(puppet.initiation(stamp=encode(puppet.stamp - NS))) == []
    assert sut.drops(DropReason.TIMESTAMP_REPLAYED) == 3
    puppet.say(keys)
    assert len(sut.engine.pull_packets()) == 1
    future = encode(WALL + 10**9 * NS)
    assert kinds(sut.receive(puppet.initiation(stamp=future))) == ["Response"]
    sut.now += NS
    assert sut.receive(puppet.initiation()) == [], "the floor survives"
    sut.wait(1000 * NS)
    assert sut.receive(puppet.initiation()) == [], "even the erasure of all keys"


def test_r37_initiation_guard(sut: Sut, puppet: Puppet) -> None:
    assert len(sut.receive(puppet.initiation())) == 1
    sut.now += 19 * MS
    assert sut.receive(puppet.initiation()) == []
    assert sut.drops(DropReason.INITIATION_FLOOD) == 1
    sut.now += 25 * MS
    assert len(sut.receive(puppet.initiation())) == 1


def test_r38_silence_until_confirmed(sut: Sut, puppet: Puppet) -> None:
    keys = puppet.finish(sut.receive(puppet.initiation()))
    sent = sut.send(PING) + sut.send(PING)
    assert "Transport" not in kinds(sent)
    flushed = sut.receive(puppet.seal(keys, b""))
    opened = [puppet.open(keys, d) for d in flushed]
    assert [o and o[: len(PING)] for o in opened] == [PING, PING]


def test_r39_an_unconfirmed_handshake_changes_nothing(sut: Sut, puppet: Puppet) -> None:
    old = puppet.handshake()
    sut.now += NS
    assert len(sut.receive(puppet.initiation())) == 1
    puppet.say(old)
    assert len(sut.engine.pull_packets()) == 1
    (datagram,) = sut.send(PING)
    assert puppet.open(old, datagram) is not None


def test_r40_three_slots(sut: Sut, puppet: Puppet) -> None:
    first = puppet.handshake()
    sut.now += NS
    second = puppet.handshake()
    puppet.say(first)
    assert len(sut.engine.pull_packets()) == 1, "previous"
    sut.now += NS
    third = puppet.handshake()
    for keys, wanted in ((first, 0), (second, 1), (third, 1)):
        puppet.say(keys)
        assert len(sut.engine.pull_packets()) == wanted


def test_r41_roles_change(sut: Sut, puppet: Puppet) -> None:
    puppet.handshake()
    sut.wait(200 * NS)
    sut.engine.pull_datagrams()
    keys, sent = puppet.answer(sut.send(PING))
    assert puppet.open(keys, sent[0]) is not None
    sut.now += NS
    still_works(puppet)
