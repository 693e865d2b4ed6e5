"""What a WireGuard must do, sans-IO: cryptokey routing, roaming, life cycle.

Names carry the requirement's number of the conformance tester's list (R-87 …).
"""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from tests.protocol.puppet import AWAY, HOME, PUPPET_IP, SUT_IP, Keys, Puppet, Sut, echo, kinds
from tests.support.recording import fingerprint
from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.keys import PresharedKey, PrivateKey
from wgpy.protocol.messages import Initiation
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange

PING = echo(SUT_IP, PUPPET_IP, b"out")


@pytest.fixture
def sut() -> Sut:
    return Sut()


@pytest.fixture
def puppet(sut: Sut) -> Puppet:
    return Puppet(sut)


@pytest.fixture
def keys(puppet: Puppet) -> Keys:
    return puppet.handshake()


def where(sut: Sut, number: int = 0) -> Endpoint | None:
    return sut.engine.snapshot().peers[number].endpoint


def give(sut: Sut, puppet: Puppet, *prefixes: str, remove: bool = False) -> None:
    allowed = tuple(AllowedIp(Prefix.parse(text), remove) for text in prefixes)
    sut.change(PeerChange(puppet.public, allowed_ips=allowed))


def goes_to(sut: Sut, destination: str) -> Endpoint | None:
    source = SUT_IP if "." in destination else bytes(16)
    sent = sut.send(echo(source, parse_address(destination)))
    return sent[0].endpoint if sent else None


# G. Cryptokey routing.


def test_r87_longest_prefix_and_moves(sut: Sut) -> None:
    a, b = Puppet(sut, 1, allowed=("10.0.0.0/8",)), Puppet(sut, 2, allowed=("10.1.0.0/16",))
    a.handshake(HOME)
    b.handshake(AWAY)
    assert [goes_to(sut, ip) for ip in ("10.2.0.1", "10.1.0.1")] == [HOME, AWAY]
    give(sut, b, "10.0.0.0/8")
    assert goes_to(sut, "10.2.0.1") == AWAY
    assert sut.engine.snapshot().peers[0].allowed_ips == ()


def test_r88_r89_inner_source(sut: Sut) -> None:
    a, b = Puppet(sut, 1, allowed=("10.0.0.0/8",)), Puppet(sut, 2, allowed=("10.1.0.0/16",))
    keys = a.handshake()
    for source, delivered in (("10.2.0.1", 1), ("192.168.0.1", 0), ("10.1.0.1", 0)):
        sut.receive(a.seal(keys, echo(parse_address(source), SUT_IP)))
        assert len(sut.engine.pull_packets()) == delivered, source
    assert sut.drops(DropReason.SOURCE_NOT_ALLOWED) == 2
    theirs = b.handshake(AWAY)
    sut.receive(b.seal(theirs, echo(parse_address("10.1.0.1"), SUT_IP)), AWAY)
    assert len(sut.engine.pull_packets()) == 1


def test_r90_r91_no_peer_no_endpoint(sut: Sut) -> None:
    puppet = Puppet(sut, endpoint=None)
    assert goes_to(sut, "172.16.0.1") is None
    assert sut.drops(DropReason.NO_PEER) == 1
    assert sut.send(PING) == [] and sut.wait(100 * NS) == []
    assert sut.drops(DropReason.NO_ENDPOINT) == 1
    puppet.handshake(AWAY)
    assert where(sut) == AWAY
    assert goes_to(sut, "10.0.0.2") == AWAY


def test_r92_families_extremes_and_single_removal(sut: Sut) -> None:
    a = Puppet(sut, 1, allowed=("0.0.0.0/0", "::/0"))
    b = Puppet(sut, 2, allowed=("10.9.9.9/32", "fd00::9/128"))
    a.handshake(HOME)
    b.handshake(AWAY)
    probes = ("10.9.9.9", "10.9.9.8", "fd00::9", "fd00::8")
    assert [goes_to(sut, ip) for ip in probes] == [AWAY, HOME, AWAY, HOME]
    give(sut, a, "10.9.9.9/32", remove=True)  # not the owner: nothing happens
    assert goes_to(sut, "10.9.9.9") == AWAY
    give(sut, b, "10.9.9.9/32", "fd00::9/128", remove=True)
    assert [goes_to(sut, ip) for ip in probes] == [HOME] * 4
    sut.change(PeerChange(a.public, replace_allowed_ips=True))
    assert [goes_to(sut, ip) for ip in probes] == [None] * 4


# H. Roaming.


def test_r93_every_authentic_message_moves_the_endpoint(sut: Sut, puppet: Puppet) -> None:
    places = [Endpoint(bytes([198, 51, 100, n]), n) for n in range(1, 6)]
    (initiation,) = sut.send(PING)
    response, keys = puppet.response(Initiation.parse(bytes(initiation.data)))
    sut.receive(response, places[0])
    assert where(sut) == places[0]
    puppet.say(keys, source=places[1])
    assert where(sut) == places[1]
    sut.receive(puppet.seal(keys, b""), places[2])
    assert where(sut) == places[2]
    (reply,) = sut.receive(puppet.initiation(), places[3])
    assert where(sut) == reply.endpoint == places[3]
    six = Endpoint(bytes(15) + b"\1", 9)
    puppet.say(keys, source=six)
    assert where(sut) == six
    assert sut.send(PING)[0].endpoint == six


def test_r94_r95_nothing_else_does(sut: Sut, puppet: Puppet) -> None:
    good = puppet.initiation()
    keys = puppet.finish(sut.receive(good))
    data = puppet.seal(keys, b"")
    sut.receive(data)
    sut.now += NS
    forged = bytearray(puppet.seal(keys, b"x" * 20))
    forged[-1] ^= 1
    before = fingerprint(sut.engine)
    for message in (good, data, bytes(forged), b"", bytes(32)):
        sut.receive(message, AWAY)
        assert where(sut) == HOME
    assert fingerprint(sut.engine) == before


def test_r96_the_local_address_is_kept(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    """Replies leave from the address that was written to."""
    local = HOME._replace(local_ip=bytes([192, 0, 2, 99]), local_ifindex=3)
    puppet.say(keys, source=local)
    assert sut.send(PING)[0].endpoint == local


def test_r96_an_answer_that_is_never_confirmed_tries_another_address(
    sut: Sut, puppet: Puppet
) -> None:
    """The peer reaches the address, but what leaves from it may be lost: every other answer
    leaves from where the kernel chooses, until one was heard."""
    local = HOME._replace(local_ip=bytes([192, 0, 2, 99]), local_ifindex=3)
    seen = []
    for _ in range(4):
        sut.now += 5 * NS
        (response,) = sut.receive(puppet.initiation(), local)
        seen.append(response.endpoint)
    assert seen == [local, HOME, local, HOME]
    keys = puppet.finish([response])
    puppet.say(keys, source=local)
    sut.now += 5 * NS
    (response,) = sut.receive(puppet.initiation(), local)
    assert response.endpoint == local


def test_r97_a_disallowed_source_still_moves_it(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.receive(puppet.seal(keys, echo(bytes([9, 9, 9, 9]), SUT_IP)), AWAY)
    assert sut.engine.pull_packets() == []
    assert where(sut) == AWAY


# I. Life cycle and robustness.


def test_r98_a_new_private_key(sut: Sut, puppet: Puppet) -> None:
    keys = puppet.answer(sut.send(PING))[0]
    sut.engine.apply(DeviceChange(private_key=PrivateKey.clamp(bytes([3] * 32))), now=sut.now)
    puppet.say(keys)
    assert sut.engine.pull_packets() == []
    assert kinds(sut.send(PING)) == ["Initiation"], "at once, not after Rekey-Timeout"


def test_r98_nobody_is_their_own_peer(sut: Sut, puppet: Puppet) -> None:
    sut.engine.apply(DeviceChange(private_key=puppet.key), now=sut.now)
    assert sut.engine.snapshot().peers == ()
    sut.change(PeerChange(puppet.public, endpoint=HOME))
    assert sut.engine.snapshot().peers == ()


def test_r98_without_a_private_key_it_is_silent(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.engine.apply(DeviceChange(private_key=PrivateKey(bytes(32))), now=sut.now)
    assert sut.engine.snapshot().public_key is None
    assert sut.send(PING) == [] and puppet.say(keys) == []
    assert sut.receive(puppet.initiation()) == []
    assert sut.drops(DropReason.NO_PRIVATE_KEY) == 1
    assert sut.wait(200 * NS) == []


def test_r99_a_new_psk_is_for_the_next_handshake(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    puppet.psk = PresharedKey(bytes(range(32)))
    sut.change(PeerChange(puppet.public, preshared_key=puppet.psk))
    puppet.say(keys)
    assert len(sut.engine.pull_packets()) == 1
    sut.now += NS
    puppet.say(puppet.handshake())
    assert len(sut.engine.pull_packets()) == 1


def test_r100_removal(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    old = puppet.initiation()
    assert kinds(sut.receive(old)) == []  # within the guard: only to have it
    sut.now += NS
    sut.receive(old)
    sut.change(PeerChange(puppet.public, remove=True))
    assert puppet.say(keys) == [] and sut.engine.pull_packets() == []
    assert sut.wait(600 * NS) == []
    again = Puppet(sut)
    again.stamp = 0
    assert kinds(sut.receive(again.initiation())) == ["Response"], "the floor is forgotten"


def test_r101_down_is_silent_and_up_works(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.change(PeerChange(puppet.public, persistent_keepalive=5))
    sut.engine.set_up(False, now=sut.now)
    assert sut.send(PING) == [] and puppet.say(keys) == []
    assert sut.receive(puppet.initiation()) == []
    assert sut.change(PeerChange(puppet.public, persistent_keepalive=0)) == []
    assert sut.change(PeerChange(puppet.public, persistent_keepalive=5)) == []
    assert sut.wait(300 * NS) == []
    assert sut.drops(DropReason.DEVICE_DOWN) >= 3
    sut.engine.set_up(True, now=sut.now)
    sent = sut.engine.pull_datagrams()
    assert kinds(sent) == ["Initiation"], "the persistent keepalive asks for keys"
    puppet.answer(sent)
    assert kinds(sut.send(PING)) == ["Transport"]


def test_r101_down_and_up_at_once_forgets_the_handshake(sut: Sut, puppet: Puppet) -> None:
    sut.send(PING)
    sut.engine.set_up(False, now=sut.now)
    sut.engine.set_up(True, now=sut.now)
    assert kinds(sut.send(PING)) == ["Initiation"]
    assert sut.engine.snapshot().peers[0].public_key == puppet.public


def test_r102_fuzz(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    """Random datagrams and mutations of valid ones: no answer, no growth, no harm."""
    random = Random(5)
    valid = [puppet.initiation(), puppet.seal(keys, b"x" * 48), bytes([3, 0, 0, 0]) + bytes(60)]
    sut.receive(valid[0])
    sut.now += NS
    (reply,) = sut.receive(puppet.initiation())
    valid.append(bytes(reply.data))
    before = fingerprint(sut.engine)
    tracemalloc.start()
    start = tracemalloc.take_snapshot()
    for number in range(2000):
        if number % 2:
            data = bytearray(random.choice(valid))
            data[random.randrange(4, len(data))] ^= 1 << random.randrange(8)
        else:
            data = bytearray(random.randbytes(random.randrange(200)))
            if data:
                data[:4] = bytes([random.randrange(6), 0, 0, 0])[: len(data)]
        sut.now += 10**6
        assert sut.receive(bytes(data), AWAY) == []
    grown = sum(d.size_diff for d in tracemalloc.take_snapshot().compare_to(start, "filename")
                if "wgpy" in d.traceback[0].filename)  # fmt: skip
    tracemalloc.stop()
    assert grown < 100_000
    assert fingerprint(sut.engine) == before
    sut.now += NS
    puppet.say(puppet.handshake())
    assert len(sut.engine.pull_packets()) == 1


def test_r104_very_many_allowed_ips(sut: Sut, puppet: Puppet) -> None:
    prefixes = tuple(AllowedIp(Prefix((11 << 24 | n << 2).to_bytes(4), 30)) for n in range(130_560))
    sut.change(PeerChange(puppet.public, allowed_ips=prefixes))
    assert len(sut.engine.snapshot().peers[0].allowed_ips) == 130_561
    assert goes_to(sut, "11.0.4.1") == HOME
    sut.change(PeerChange(puppet.public, remove=True))
    assert len(sut.engine.device.allowed_ips) == 0


def test_unwanted_update_only_changes_nothing(sut: Sut) -> None:
    stranger = Puppet(sut, 5, known=False)
    sut.change(PeerChange(stranger.public, update_only=True, endpoint=HOME))
    sut.change(PeerChange(stranger.public, remove=True))
    assert sut.engine.snapshot().peers == ()


def test_staged_queue_drops_its_oldest(sut: Sut, puppet: Puppet) -> None:
    packets = [echo(SUT_IP, PUPPET_IP, bytes([n])) for n in range(200)]
    sent = [d for packet in packets for d in sut.send(packet)]
    assert sut.drops(DropReason.QUEUE_FULL) == 72
    keys, flushed = puppet.answer(sent)
    opened = [puppet.open(keys, d) for d in flushed]
    assert [o and o[: len(p)] for o, p in zip(opened, packets[72:], strict=True)] == packets[72:]


@pytest.mark.usefixtures("keys")
def test_secrets_are_in_no_repr(sut: Sut, puppet: Puppet) -> None:
    device = sut.engine.device
    peer = device.peers[puppet.public]
    assert peer.current is not None
    shown = " ".join(map(repr, (sut.engine, device, peer, peer.current, sut.engine.snapshot(),
                                device.checker, peer.macs, device.crypto)))  # fmt: skip
    for secret in (sut.key, puppet.key):
        assert secret.hex() not in shown and bytes.__repr__(secret)[2:-1] not in shown
