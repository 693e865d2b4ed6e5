# ruff: noqa: ARG002
"""The batch path against the readable path: same bytes out, same packets in, same books."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dataplane import oracle
from tests.dataplane.oracle import ACK, PSH, Packet
from tests.dataplane.strategies import packets
from tests.dataplane.toolbox import current, kit  # noqa: F401
from tests.dataplane.twins import AWAY, Arrival, Twins, message, trains_of
from wgpy.dataplane import egress, flows, ingress
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import MAX_MESSAGES
from wgpy.dataplane.pipeline import BatchPath
from wgpy.protocol import outbound
from wgpy.protocol.constants import NS, Parameters
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, parse_address
from wgpy.protocol.policy import ENCRYPT, PLAINTEXT, Action, Verdict

GSO = {(4, 6): 1, (6, 6): 4, (4, 17): 5, (6, 17): 5}
PLAIN = (0, 0, 0, 0, 0, 0)
WHOLE = Packet(payload=bytes(range(250)) * 40, options=b"\1\1\x08\x0a" + bytes(8))
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def reads(draw: st.DrawFn) -> list[tuple[tuple[int, ...], bytes]]:
    """What a TUN device with offloads may yield in a row."""
    made: list[tuple[tuple[int, ...], bytes]] = []
    for _ in range(draw(st.integers(1, 4))):
        packet = draw(packets())
        kind = draw(st.sampled_from(("super", "checksum", "plain", "run", "garbage")))
        if kind == "garbage":
            made.append((PLAIN, draw(st.binary(min_size=1, max_size=80))))
        elif kind == "super":
            width = draw(st.integers(max(1, len(packet.payload) // 100), 1500))
            made.append(packet.offloaded(GSO[packet.version, packet.protocol], width))
        else:
            packet = replace(packet, payload=packet.payload[:1300])
            count = draw(st.integers(1, 70)) if kind == "run" else 1
            for number in range(count):
                each = replace(packet, identification=number, sequence=number * 1300)
                unfinished = kind == "checksum" or (kind == "run" and packet.ttl & 1)
                made.append(each.offloaded(0, 0) if unfinished else (PLAIN, each.build()))
    return made


@relaxed
@given(reads(), st.sampled_from((1280, 1419, 1420, 8920)), st.booleans())
def test_what_leaves_is_the_same(
    came: list[tuple[tuple[int, ...], bytes]], mtu: int, initiator: bool
) -> None:
    Twins(mtu=mtu, initiator=initiator).read_from_tun(came)


@relaxed
@given(reads())
def test_what_is_sent_arrives_on_the_other_side(
    came: list[tuple[tuple[int, ...], bytes]],
) -> None:
    """Every packet that can be sent, whole and in order."""
    twins = Twins()
    sent = twins.read_from_tun(came)
    twins.remote.receive([Datagram(d.data, AWAY) for d in sent], now=twins.now)
    arrived = twins.remote.pull_packets()
    whole = [p for vnet, data in came for p in oracle.cut(vnet, data)]
    # Garbage has no such addresses.
    ours = (bytes([10, 0, 0, 1, 10, 0, 0, 2]), b"\xfd" + bytes(14) + b"\1\xfd" + bytes(14) + b"\2")
    expected = [p for p in whole if p[12:20] == ours[0] or p[8:40] == ours[1]]
    assert len(arrived) == len(sent)
    assert arrived == expected


def test_super_packet_is_one_send() -> None:
    twins = Twins()
    twins.read_from_tun([WHOLE.offloaded(1, 1368)])
    assert twins.udp.trains == [8]


def test_equal_packets_share_a_send() -> None:
    twins = Twins()
    run = [replace(WHOLE, payload=b"x" * 64, identification=i).offloaded(0, 0) for i in range(70)]
    twins.read_from_tun(run)
    assert twins.udp.trains == [1, 64, 5], "the first does not wait for the others"


def test_a_full_super_packet_of_small_segments_is_several_sends() -> None:
    twins = Twins()
    twins.read_from_tun([replace(WHOLE, payload=os.urandom(20_000)).offloaded(1, 100)])
    assert twins.udp.trains == [64, 64, 64, 8]


def test_a_small_super_packet_leaves_its_neighbour_alone() -> None:
    """Both are read before either is sent, and cutting writes behind the super-packet."""
    small = replace(WHOLE, payload=bytes(1301)).offloaded(1, 130)
    Twins().read_from_tun([small, replace(WHOLE, payload=b"x").offloaded(0, 0), small])


def test_without_a_session_packets_wait_for_the_handshake() -> None:
    twins = Twins()
    for one in (twins.fast, twins.plain):
        peer = next(iter(one.device.peers.values()))
        one.device.erase_keys(peer)
        peer.initiation_sent_at = None
    twins.read_from_tun([WHOLE.offloaded(1, 1368)])
    staged = [len(next(iter(o.device.peers.values())).staged) for o in (twins.fast, twins.plain)]
    assert staged == [8, 8]


def test_a_refused_train_is_counted() -> None:
    twins = Twins()
    twins.udp.refuse = True
    twins.tun.waiting = [struct.pack("=BBHHHH", *v) + d for v, d in [WHOLE.offloaded(1, 1368)]]
    twins.out.turn(twins.now)
    assert twins.fast.drops[DropReason.UDP_SEND_FAILED] == 8


def test_a_super_packet_that_contradicts_itself_is_dropped_by_name() -> None:
    twins = Twins()
    vnet, data = WHOLE.offloaded(4, 1368)
    twins.tun.waiting = [struct.pack("=BBHHHH", *vnet) + data]
    twins.out.turn(twins.now)
    assert twins.fast.drops == {DropReason.MALFORMED: 1}
    assert not twins.udp.sent


def test_keys_are_renewed_in_time() -> None:
    twins = Twins()
    twins.now += 121 * NS
    sent = twins.read_from_tun([WHOLE.offloaded(1, 1368)] * 2)
    assert [len(d.data) for d in sent if len(d.data) == 148] == [148]


def test_the_last_counters_are_used_and_not_one_more() -> None:
    few = Parameters(reject_after_messages=10)
    twins = Twins(parameters=few)
    twins.read_from_tun([WHOLE.offloaded(1, 1368)] * 3)
    assert next(iter(twins.fast.device.peers.values())).current.next_counter == 10


class Chequered:
    """A policy that lets even ports of the test through and refuses the rest by name."""

    generation = 0

    def egress(self, source: bytes, destination: bytes, packet: bytes) -> Verdict:
        if destination[-1] == 2:
            return ENCRYPT
        if destination[-1] == 3:
            return PLAINTEXT
        return Verdict(Action.DROP, DropReason.UNENCRYPTED_TRAFFIC)

    def ingress(self, source: bytes, destination: bytes, peer: object, packet: bytes) -> Verdict:
        if source[-1] == 9:
            return Verdict(Action.DROP, DropReason.SOURCE_NOT_ON_NODE)
        return Verdict(Action.ACCEPT, per_packet=source[-1] == 5)

    def malformed(self, packet: bytes) -> Verdict:
        return Verdict(Action.DROP, DropReason.MALFORMED)


def to(last: int) -> Packet:
    return replace(WHOLE, destination=bytes([10, 0, 0, last]))


def test_the_policy_is_asked_and_obeyed() -> None:
    twins = Twins(policy=Chequered())
    came = [to(n).offloaded(1, 1368) for n in (2, 3, 4, 2, 3, 4)]
    sent = twins.read_from_tun(came)
    assert len(sent) == 16
    assert twins.fast.drops[DropReason.UNENCRYPTED_TRAFFIC] == 16
    assert twins.fast.pull_plaintext() == twins.plain.pull_plaintext() != []


class Counting(Chequered):
    """Remembers each question, with the identity of the packet that it was asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []

    def egress(self, source: bytes, destination: bytes, packet: bytes) -> Verdict:
        self.asked.append(("egress", destination))
        return super().egress(source, destination, packet)

    def ingress(self, source: bytes, destination: bytes, peer: object, packet: bytes) -> Verdict:
        self.asked.append(("ingress", source))
        return super().ingress(source, destination, peer, packet)


def test_a_packet_from_the_host_is_judged_once() -> None:
    """Whatever the verdict, and however many packets a super-packet is cut into."""
    policy = Counting()
    twins = Twins(policy=policy)
    twins.plain.policy = Chequered()
    for last, asked in ((2, 1), (2, 0), (3, 1), (3, 1), (4, 1)):
        policy.asked.clear()
        twins.read_from_tun([to(last).offloaded(1, 1368)])
        assert policy.asked == [("egress", bytes([10, 0, 0, last]))] * asked


@pytest.mark.parametrize("known", [True, False])
def test_what_is_refused_is_judged_once_and_counted_each_time(known: bool) -> None:
    """Single packets and super-packets; refused by the policy, or for want of a peer."""
    policy = Counting()
    twins = Twins(policy=policy)
    twins.plain.policy = Chequered()
    packet = to(4) if known else replace(WHOLE, destination=bytes([192, 0, 2, 2]))
    reason = DropReason.UNENCRYPTED_TRAFFIC if known else DropReason.NO_PEER
    policy.asked.clear()
    plain = ((0,) * 6, packet.segments(1000)[0].build())
    for _ in range(3):
        twins.read_from_tun([plain, packet.offloaded(1, 1368)] * 2)
    assert len(policy.asked) == 1
    assert twins.fast.drops[reason] == twins.plain.drops[reason] == 6 * (1 + 8)
    policy.generation = 1
    policy.egress = lambda *_: PLAINTEXT
    twins.plain.policy = policy
    twins.read_from_tun([plain])
    assert len(twins.fast.pull_plaintext()) == 1 == len(twins.plain.pull_plaintext())


def test_a_scan_of_refused_addresses_does_not_make_us_forget_the_others() -> None:
    policy = Counting()
    twins = Twins(policy=policy)
    twins.plain.policy = Chequered()
    twins.read_from_tun([to(2).offloaded(1, 1368)])
    single = to(4).segments(1000)[0]
    scan = [replace(single, source=n.to_bytes(4)) for n in range(flows.MAX_FLOWS + 100)]
    twins.tun.waiting += [bytes(10) + packet.build() for packet in scan]
    while twins.tun.waiting:
        twins.out.turn(twins.now)
    assert len(twins.out.flows.refused) <= flows.MAX_FLOWS
    assert twins.fast.drops[DropReason.UNENCRYPTED_TRAFFIC] == len(scan)
    policy.asked.clear()
    twins.out.turn(twins.now)
    twins.tun.waiting += [bytes(10) + to(2).segments(1000)[0].build()]
    twins.out.turn(twins.now)
    assert policy.asked == []


def test_a_known_flow_that_waits_for_a_handshake_is_not_judged_again() -> None:
    policy = Counting()
    twins = Twins(policy=policy)
    twins.plain.policy = Chequered()
    twins.read_from_tun([to(2).offloaded(1, 1368)])
    twins.now += 181 * NS
    policy.asked.clear()
    twins.read_from_tun([to(2).offloaded(1, 1368)])
    assert policy.asked == []


@pytest.mark.parametrize(("last", "most"), [(1, 1), (5, 10), (9, 10)])
def test_a_packet_out_of_a_tunnel_is_judged_once(last: int, most: int) -> None:
    """Refused and per-packet answers are asked once for each packet, the others once for all."""
    policy = Counting()
    twins = Twins(policy=policy)
    twins.plain.policy = Chequered()
    source = bytes([10, 0, 0, last])
    inner = [p.build() for p in replace(WHOLE, source=source).segments(1000)]
    assert len(inner) == 10
    policy.asked.clear()
    twins.arrive([from_remote(twins, inner)])
    assert policy.asked == [("ingress", source)] * most


def test_a_new_generation_forgets_what_was_learnt() -> None:
    policy = Chequered()
    twins = Twins(policy=policy)
    assert twins.read_from_tun([to(2).offloaded(1, 1368)])
    policy.generation = 1
    policy.egress = lambda *_: Verdict(Action.DROP, DropReason.POLICY_DENIED)
    assert not twins.read_from_tun([to(2).offloaded(1, 1368)])


def from_remote(twins: Twins, inner: list[bytes]) -> list[bytes]:
    """Datagrams that the peer sends to carry `inner`."""
    twins.remote.send(inner, now=twins.now)
    return [bytes(d.data) for d in twins.remote.pull_datagrams()]


@relaxed
@given(st.data())
def test_what_arrives_is_the_same(data: st.DataObject) -> None:
    twins = Twins(initiator=data.draw(st.booleans()))
    inner: list[bytes] = []
    for packet in data.draw(st.lists(packets(), min_size=1, max_size=3)):
        width = data.draw(st.integers(max(1, len(packet.payload) // 20), 1300))
        inner += [p.build() for p in packet.segments(width)]
    inner += data.draw(st.lists(st.binary(min_size=1, max_size=60), max_size=2))
    datagrams = from_remote(twins, inner)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(datagrams) - 1))
        what = data.draw(st.sampled_from(("corrupt", "repeat", "swap", "lose", "noise", "type")))
        if what == "corrupt" and datagrams[at]:
            spot = data.draw(st.integers(0, len(datagrams[at]) - 1))
            broken = bytearray(datagrams[at])
            broken[spot] ^= 1 << data.draw(st.integers(0, 7))
            datagrams[at] = bytes(broken)
        elif what == "repeat":
            datagrams.insert(data.draw(st.integers(0, len(datagrams))), datagrams[at])
        elif what == "swap":
            datagrams[at], datagrams[0] = datagrams[0], datagrams[at]
        elif what == "lose" and len(datagrams) > 1:
            del datagrams[at]
        elif what == "noise":
            datagrams.insert(at, data.draw(st.binary(max_size=200)))
        elif what == "type":
            datagrams[at] = bytes([data.draw(st.integers(0, 5))]) + datagrams[at][1:]
    twins.arrive(trains_of(datagrams, data.draw(st.integers(1, 64))))


def test_a_train_becomes_one_write() -> None:
    twins = Twins()
    twins.arrive([from_remote(twins, [p.build() for p in WHOLE.segments(1000)])])
    pieces = [p.build() for p in replace(WHOLE, sequence=10_000).segments(1000)]
    train = from_remote(twins, pieces)
    twins.udp.waiting.append(Arrival(b"".join(train), len(train[0]), AWAY))
    twins.into.turn(0, twins.now)
    assert len(twins.tun.written) == 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_what_the_device_does_not_take_merged_is_written_one_by_one(
    version: int, protocol: int
) -> None:
    """The other protocol is merged as before."""
    twins = Twins()
    addresses = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (b"\xfd" + bytes(14) + b"\1",) * 2}
    source, destination = addresses[version]
    for given_up, writes in ((23 - protocol, 1), (protocol, 10)):
        twins.tun.given_up.add(given_up)
        whole = replace(
            WHOLE, version=version, protocol=protocol, source=source, destination=destination,
            options=b"", payload=bytes(10_000),
        )  # fmt: skip
        train = from_remote(twins, [p.build() for p in whole.segments(1000)])
        twins.udp.waiting.append(Arrival(b"".join(train), len(train[0]), AWAY))
        twins.tun.written.clear()
        twins.into.turn(0, twins.now)
        assert len(twins.tun.written) == writes
        assert len(twins.tun.delivered()) == 10


def test_keepalives_in_any_place() -> None:
    twins = Twins()
    peer = next(iter(twins.remote.device.peers.values()))
    made: list[bytes] = []
    for before in (0, 1, 3):
        made += from_remote(twins, [p.build() for p in WHOLE.segments(1000)][:before])
        outbound.send_keepalive(twins.remote.device, peer, twins.now)
        made += [bytes(d.data) for d in twins.remote.pull_datagrams()]
    assert sum(len(d) == 32 for d in made) == 3
    twins.arrive(trains_of(made))
    twins.arrive([[made[0]] * 5])


def test_a_roaming_peer_moves_with_its_train() -> None:
    twins = Twins()
    moved = Endpoint(parse_address("198.51.100.7"), 999, 0, parse_address("192.0.2.1"), 3)
    twins.arrive([from_remote(twins, [p.build() for p in WHOLE.segments(1000)])], moved)
    assert next(iter(twins.fast.device.peers.values())).endpoint == moved


def test_replayed_and_forged_trains_change_nothing() -> None:
    twins = Twins()
    train = from_remote(twins, [p.build() for p in WHOLE.segments(1000)])
    assert len(twins.arrive([train])) == 10
    assert twins.arrive([train]) == []
    index = struct.unpack_from("<I", train[0], 4)[0]
    assert twins.arrive([[message(index, 2**40 + n, bytes(500)) for n in range(9)]]) == []
    assert twins.arrive([[message(index ^ 1, n, bytes(500)) for n in range(9)]]) == []
    assert twins.arrive([[message(index, 2**64 - 1 - n, bytes(500)) for n in range(9)]]) == []
    names = twins.fast.drops
    assert names[DropReason.REPLAYED] == 10
    assert names[DropReason.TAG_INVALID] == 9
    assert names[DropReason.UNKNOWN_INDEX] == 9
    assert names[DropReason.COUNTER_EXHAUSTED] == 9


@pytest.mark.parametrize("source", [b"\x0b\0\0\1", b"\x0a\0\0\x09", b"\x0a\0\0\5"])
def test_sources_are_checked_for_every_packet(source: bytes) -> None:
    twins = Twins(policy=Chequered())
    good = [p.build() for p in WHOLE.segments(1000)]
    bad = [p.build() for p in replace(WHOLE, source=source).segments(1000)]
    mixed = [p for pair in zip(good, bad, strict=True) for p in pair]
    delivered = twins.arrive([from_remote(twins, good + bad), from_remote(twins, mixed)])
    assert len(delivered) == (40 if source[-1] == 5 else 20)


def test_a_session_that_is_too_old_opens_nothing() -> None:
    twins = Twins()
    train = from_remote(twins, [p.build() for p in WHOLE.segments(1000)])
    twins.now += 181 * NS
    assert twins.arrive([train]) == []
    assert twins.fast.drops == {DropReason.SESSION_EXPIRED: 10}


def test_a_device_that_is_down_is_silent() -> None:
    twins = Twins()
    train = from_remote(twins, [p.build() for p in WHOLE.segments(1000)])
    for one in (twins.fast, twins.plain):
        one.set_up(False, now=twins.now)
    assert twins.arrive([train]) == []
    assert twins.read_from_tun([WHOLE.offloaded(1, 1000)]) == []
    assert twins.fast.drops[DropReason.DEVICE_DOWN] == 20


def test_two_sessions_in_one_train() -> None:
    """While keys change, one train may carry messages of the old and the new session."""
    twins = Twins()
    old = from_remote(twins, [p.build() for p in WHOLE.segments(1000)])
    pushed = replace(WHOLE, flags=ACK | PSH, sequence=10_000)
    stranger = [message(7, n, d[16:]) for n, d in enumerate(old[:3])]
    new = from_remote(twins, [p.build() for p in pushed.segments(1000)])
    assert len(twins.arrive([old[:5] + stranger + old[5:] + new])) == 20


def hostile(twins: Twins) -> list[bytes]:
    """Datagrams that are wrong in every way there is a name for, among good ones."""
    good = from_remote(twins, [p.build() for p in WHOLE.segments(1000)])
    index = struct.unpack_from("<I", good[0], 4)[0]
    swapped = replace(WHOLE, source=bytes([172, 16, 0, 1]))
    wrong = bytearray(good[4])
    wrong[-1] ^= 1
    keepalive = message(index, 7, bytes(16))
    return [
        b"", *good[:3], b"", b"\4", b"\4\0\0\0", b"\4\1\0\0" + bytes(60), bytes(148),
        b"\1\0\0\0" + bytes(144), b"\1\0\0\0" + bytes(143), b"\2\0\0\0" + bytes(88),
        b"\3\0\0\0" + bytes(60), b"\3" + bytes(63), b"\5\0\0\0" + bytes(28), b"\xff" * 1500,
        bytes(wrong), good[4], good[4], keepalive, message(index, 2**64 - 1, bytes(32)),
        message(index ^ 5, 3, bytes(500)), message(0, 0, bytes(16)), good[0][:31], good[0][:-1],
        good[0] + b"\0", *good[5:], good[3], *from_remote(twins, [b"", b"x", b"\x45" + bytes(30)]),
        *from_remote(twins, [p.build() for p in swapped.segments(1000)]), b"", b"",
    ]  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 64])
def test_hostile_datagrams_are_counted_alike_on_every_path(most: int) -> None:
    twins = Twins()
    datagrams = hostile(twins)
    twins.arrive(trains_of(datagrams, most))
    for each in (twins.fast, twins.plain):
        each.device.indices = {}
    twins.arrive(trains_of(datagrams, most))
    for each in (twins.fast, twins.plain):
        each.set_up(False, now=twins.now)
    twins.arrive(trains_of(datagrams, most))
    drops = twins.fast.drops
    assert drops[DropReason.LENGTH_INVALID] > 3 * datagrams.count(b"")
    counted = sum(drops.values()) + twins.fast.device.delivered.packets
    assert counted >= 3 * len(datagrams) - 1, "each has a name or was delivered (a keepalive)"


def test_bytes_are_counted_without_padding_on_every_path() -> None:
    """Whether packets went alone, in a run, or in a super-packet."""
    twins = Twins()
    odd = replace(WHOLE, payload=bytes(1301))
    run = [replace(odd, identification=n, payload=bytes(101)).offloaded(0, 0) for n in range(9)]
    twins.read_from_tun([odd.offloaded(1, 130), *run, run[0]])
    assert twins.fast.device.encrypted.packets == 11 + 10 + 1  # The first made the session.
    twins.arrive(trains_of(from_remote(twins, [p.build() for p in odd.segments(130)])))
    assert twins.fast.device.delivered.packets == 11


def test_a_flood_of_handshakes_leaves_the_path_at_once() -> None:
    twins = Twins()
    flood = [b"\1\0\0\0" + struct.pack("<I", n) + bytes(140) for n in range(40)]
    assert twins.arrive([flood, [*flood, b"\1\0\0\0"]]) == []
    assert twins.fast.drops == {DropReason.MAC1_INVALID: 80, DropReason.LENGTH_INVALID: 1}


class Endless(list):
    """A queue that fills up as fast as it is emptied."""

    def __init__(self, *items: object) -> None:
        super().__init__(items)
        self.taken = 0

    def pop(self, _index: int = 0) -> object:
        self.taken += 1
        return self[0]


def test_a_turn_ends_however_much_waits() -> None:
    """So that the other direction, timers and configuration get theirs."""
    twins = Twins()
    vnet, data = WHOLE.offloaded(1, 1368)
    twins.tun.waiting = Endless(struct.pack("=BBHHHH", *vnet) + data)
    twins.out.turn(twins.now)
    assert twins.tun.waiting.taken <= egress.MAX_SUPERS
    twins.tun.waiting = Endless(bytes(10) + replace(WHOLE, payload=b"x").build())
    twins.out.turn(twins.now)
    assert twins.tun.waiting.taken <= egress.TURN + 1
    large = [p.build() for p in replace(WHOLE, payload=bytes(44_000)).segments(1000)]
    train = from_remote(twins, large)
    twins.udp.waiting = Endless(Arrival(b"".join(train), len(train[0]), AWAY))
    twins.into.turn(0, twins.now)
    assert twins.udp.waiting.taken <= ingress.MAX_LONG


def test_more_messages_than_rows_and_a_short_last_one() -> None:
    """What lies in the buffer behind the train is of an earlier one, and not looked at."""
    twins = Twins()
    size = 64
    whole = [p.build() for p in replace(WHOLE, payload=bytes(MAX_MESSAGES + 1)).segments(1)]
    messages = from_remote(twins, whole)
    assert {len(m) for m in messages} == {size + 32}
    keepalive = bytes([4]) + bytes(31)
    twins.into._slab.buffer[:] = b"\4\0\0\0" * (len(twins.into._slab.buffer) // 4)
    twins.arrive([[*messages, keepalive]])


def test_a_packet_does_not_wait_for_the_loop_behind_lone_garbage() -> None:
    """A turn takes much of what means nothing, and ends with the first message of a peer."""
    twins = Twins()
    (data,) = from_remote(twins, [WHOLE.segments(1000)[0].build()])
    unknown, forged = bytes([4]) + bytes(40), data[:-1] + bytes([data[-1] ^ 1])
    for garbage, name in ((unknown, "UNKNOWN_INDEX"), (forged, "TAG_INVALID")):
        junk = [Arrival(garbage, len(garbage), AWAY)] * (ingress.MAX_REFUSED + 5)
        (good,) = from_remote(twins, [WHOLE.segments(1000)[0].build()])
        twins.udp.waiting = [*junk, *[Arrival(good, len(good), AWAY)] * 2]
        before, written = twins.fast.drops.copy(), len(twins.tun.written)
        twins.into.turn(0, twins.now)
        assert (len(twins.udp.waiting), len(twins.tun.written)) == (7, written)
        twins.into.turn(0, twins.now)
        assert (len(twins.udp.waiting), len(twins.tun.written)) == (1, written + 1)
        gone = {reason.name: count - before[reason] for reason, count in twins.fast.drops.items()}
        assert gone[name] == len(junk)


def test_the_core_is_offered_to_the_receiver_when_its_packets_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a small socket overflows while its reader waits for us to sleep."""
    twins = Twins()
    twins.udp.overflowed = lambda: 0  # type: ignore[attr-defined]
    twins.udp.handshakes_overflowed = lambda: 0  # type: ignore[attr-defined]
    interface = SimpleNamespace(engine=twins.fast, listeners=[], now=lambda: twins.now)
    path = BatchPath(interface, twins.tun, twins.udp)  # type: ignore[arg-type]
    written_before: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: written_before.append(len(twins.tun.written)))
    for count in (1, 2):
        (data,) = from_remote(twins, [WHOLE.segments(1000)[0].build()])
        twins.udp.waiting = [Arrival(data, len(data), AWAY)]
        path.udp_ready(0)
        assert len(twins.tun.written) == count
    twins.tun.waiting = [bytes(10) + replace(WHOLE, payload=b"x").build()]
    path.tun_ready()
    assert written_before == [1, 2]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MAX_FLOWS", 8)
    twins = Twins()
    for number in range(1, 200):
        source = bytes([10, 0, 0, number])
        small = replace(WHOLE, source=source, payload=bytes(5 * number + 100))
        twins.read_from_tun([replace(small, destination=source).offloaded(1, 30 + number)])
        twins.arrive([from_remote(twins, [p.build() for p in small.segments(30 + number)])])
    assert len(twins.out.flows) <= 8
    assert len(twins.into.flows) <= 8
    for slab in (twins.out._slab, twins.into._slab):
        assert len(slab._rows) <= 64
    if current().tools is INTERPRETED:  # The compiled ones remember nothing.
        assert len(twins.out._segmenter._frames) <= 128
        assert len(twins.into._merger._frames) <= 128
