"""The engine's face: policy, events, counters, and the schedule of many peers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.puppet import HOME, PUPPET_IP, SUT_IP, Keys, Puppet, Sut, echo, kinds
from wgpy.config import parse_config
from wgpy.protocol import device as device_module
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.constants import DEFAULT_PARAMETERS, NS
from wgpy.protocol.crypto import backend
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.engine import Engine
from wgpy.protocol.events import (
    CookieReplySent,
    Direction,
    EndpointMoved,
    Event,
    InitiationReceived,
    KeepaliveReceived,
    PacketDropped,
    ResponseSent,
    SessionEstablished,
)
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.policy import ENCRYPT, PLAINTEXT, Action, Verdict
from wgpy.protocol.settings import AllowedIp, DeviceChange, PeerChange
from wgpy.uapi import parse_set

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


class Table:
    """A policy for tests: by destination outwards, by source inwards."""

    generation = 0

    def egress(self, source: bytes, destination: bytes, packet: Buffer) -> Verdict:  # noqa: ARG002
        if destination[3] == 100:
            return PLAINTEXT
        if destination[3] == 101:
            return Verdict(Action.DROP, DropReason.UNENCRYPTED_TRAFFIC)
        return ENCRYPT

    def ingress(self, _source: bytes, destination: bytes, *_rest: object) -> Verdict:
        if destination == SUT_IP:
            return Verdict(Action.ACCEPT)
        return Verdict(Action.DROP, DropReason.SOURCE_NOT_ON_NODE)

    def malformed(self, packet: Buffer) -> Verdict:  # noqa: ARG002
        return Verdict(Action.DROP)


def test_policy_outwards(sut: Sut, keys: Keys) -> None:
    sut.engine.policy = Table()
    assert kinds(sut.send(PING)) == ["Transport"]
    plain = echo(SUT_IP, bytes([10, 0, 0, 100]))
    assert sut.send(plain) == []
    assert sut.engine.pull_plaintext() == [plain]
    assert sut.engine.pull_plaintext() == []
    assert sut.send(echo(SUT_IP, bytes([10, 0, 0, 101]))) == []
    assert sut.send(b"no packet") == []
    assert sut.drops(DropReason.UNENCRYPTED_TRAFFIC) == 1
    assert sut.drops(DropReason.POLICY_DENIED) == 1
    assert keys.counter == 1


def test_policy_inwards(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.engine.policy = Table()
    for destination in (SUT_IP, bytes([10, 0, 0, 77])):
        sut.receive(puppet.seal(keys, echo(PUPPET_IP, destination)))
    assert sut.engine.pull_packets() == [echo(PUPPET_IP, SUT_IP)]
    assert sut.drops(DropReason.SOURCE_NOT_ON_NODE) == 1


def test_the_default_policy_never_lets_plaintext_out(sut: Sut) -> None:
    for packet in (PING, echo(SUT_IP, bytes([8, 8, 8, 8])), b"", b"\x45" * 30):
        sut.send(packet)
    assert sut.engine.pull_plaintext() == []
    assert sut.drops(DropReason.MALFORMED) == 2
    assert sut.drops(DropReason.NO_PEER) == 2


def events(sut: Sut) -> list[Event]:
    found = []
    while (event := sut.engine.next_event()) is not None:
        found.append(event)
    return found


def test_events_tell_the_story(sut: Sut, puppet: Puppet) -> None:
    events(sut)
    puppet.handshake()
    told = [type(event) for event in events(sut)]
    assert told == [InitiationReceived, ResponseSent, SessionEstablished, KeepaliveReceived]
    puppet.sut.now += NS
    elsewhere = Endpoint(bytes([192, 0, 2, 50]), 5)
    puppet.handshake(elsewhere)
    (moved,) = [event for event in events(sut) if isinstance(event, EndpointMoved)]
    assert (moved.old, moved.new, moved.peer, moved.at) == (HOME, elsewhere, puppet.public, NS)
    with pytest.raises(FrozenInstanceError):
        moved.at = 0  # type: ignore[misc]


def test_events_are_bounded(sut: Sut, puppet: Puppet) -> None:
    sut.engine.trace_drops = True
    for _ in range(device_module.MAX_EVENTS + 100):
        sut.receive(b"x")
    assert len(events(sut)) == device_module.MAX_EVENTS
    assert puppet.public in sut.engine.device.peers


def test_dropped_packets_say_where_they_wanted_to_go(sut: Sut) -> None:
    sut.engine.trace_drops = True
    packet = echo(SUT_IP, bytes([8, 8, 8, 8]), bytes(200))
    sut.send(packet)
    (drop,) = events(sut)
    assert isinstance(drop, PacketDropped)
    assert (drop.reason, drop.direction, drop.size) == (
        DropReason.NO_PEER, Direction.EGRESS, len(packet),
    )  # fmt: skip
    assert (drop.source, drop.destination, drop.head) == (SUT_IP, bytes([8] * 4), packet[:64])
    sut.engine.record_drop(DropReason.TUN_WRITE_FAILED, now=5, packet=PING)
    (drop,) = events(sut)
    assert isinstance(drop, PacketDropped) and drop.direction is Direction.INGRESS
    assert sut.drops(DropReason.TUN_WRITE_FAILED) == 1
    sut.engine.trace_drops = False
    sut.send(packet)
    assert events(sut) == []
    assert sut.drops(DropReason.NO_PEER) == 2


def test_drops_are_counted_for_the_peer_too(sut: Sut, puppet: Puppet, keys: Keys) -> None:
    sut.receive(puppet.seal(keys, b"x" * 30))
    (peer,) = sut.engine.snapshot().peers
    assert peer.drops == {DropReason.INNER_MALFORMED: 1}
    assert puppet.public == peer.public_key


def test_cookie_replies_are_told(puppet: Puppet, sut: Sut) -> None:
    stranger = Puppet(sut, 9, known=False)
    for _ in range(200):
        sut.receive(stranger.initiation())
    told = events(sut)
    assert any(isinstance(event, CookieReplySent) for event in told)
    assert puppet.public in sut.engine.device.peers


def test_snapshot(sut: Sut, puppet: Puppet) -> None:
    keys = puppet.handshake()
    sut.now += 3 * NS
    puppet.say(keys)
    sut.send(PING)
    device = sut.engine.snapshot()
    (peer,) = device.peers
    assert (device.public_key, peer.public_key, peer.endpoint) == (sut.public, puppet.public, HOME)
    assert peer.allowed_ips == (Prefix(PUPPET_IP, 32),)
    # Initiation, keepalive and a packet in; response and a packet out.
    assert peer.rx_bytes == 148 + 32 + len(puppet.seal(keys, echo(PUPPET_IP, SUT_IP)))
    assert peer.tx_bytes == 92 + 32 + (len(PING) + 15) // 16 * 16
    assert peer.latest_handshake == 1_700_000_000 * NS
    assert peer.deadline is not None and device.deadline == peer.deadline
    assert sut.engine.next_deadline() == peer.deadline


def test_handling_early_or_twice_is_harmless(sut: Sut, puppet: Puppet) -> None:
    sut.send(PING)
    before = sut.engine.next_deadline()
    assert before is not None
    sut.engine.handle_deadline(now=sut.now)
    assert sut.engine.next_deadline() == before
    sut.engine.handle_deadline(now=before.at)
    assert len(sut.engine.pull_datagrams()) == 1
    sut.engine.handle_deadline(now=before.at)
    assert sut.engine.pull_datagrams() == []
    assert puppet.public in sut.engine.device.peers


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 20 * NS)),
                max_size=60))  # fmt: skip
def test_the_schedule_is_the_earliest_of_all_timers(steps: list[tuple[int, int, int]]) -> None:
    """The heap beside a naive minimum, under sends, removals and time."""
    engine = Engine(crypto=backend(), entropy=Random(1).randbytes, now=0, wall=0)
    engine.apply(DeviceChange(private_key=PrivateKey.clamp(bytes(31) + b"\1")), now=0)
    crypto = backend()
    publics = [PublicKey(crypto.public_key(bytes([n + 1] * 32))) for n in range(10)]
    now = 0
    for number, action, pause in steps:
        now += pause
        engine.handle_deadline(now=now)
        inner = bytes([10, 0, 0, number])
        change = PeerChange(
            publics[number], remove=action == 0, endpoint=HOME,
            persistent_keepalive=number if action == 1 else None,
            allowed_ips=(AllowedIp(Prefix(inner, 32)),),
        )  # fmt: skip
        if action < 3:
            engine.apply(DeviceChange(peers=(change,)), now=now)
        else:
            engine.send([echo(SUT_IP, inner)], now=now)
        peers = engine.device.peers.values()
        naive = [at for peer in peers if (at := peer.timers.earliest_at()) is not None]
        deadline = engine.next_deadline()
        assert (deadline.at if deadline else None) == (min(naive) if naive else None)
        assert len(engine.device._schedule) <= 2 * len(peers) + 66
        engine.pull_datagrams()


def test_settings_of_a_session_are_the_papers() -> None:
    assert DEFAULT_PARAMETERS.staged_packets == 128
    assert DEFAULT_PARAMETERS.initiation_guard == 20_000_000


def test_a_private_key_is_clamped_when_it_is_set() -> None:
    """Whatever it came through: the UAPI, a file and a program all end here (RFC 7748 §5)."""
    sut = Sut()
    raw = PrivateKey(bytes([0xFF]) * 32)
    for change in (
        DeviceChange(private_key=raw),
        parse_set(f"private_key={raw.hex()}\n"),
        parse_config(f"[Interface]\nPrivateKey={raw.base64}\n").change(Endpoint.parse),
    ):
        sut.engine.apply(DeviceChange(private_key=PrivateKey(bytes(32))), now=0)
        sut.engine.apply(change, now=0)
        assert sut.engine.snapshot().private_key == PrivateKey.clamp(raw)
