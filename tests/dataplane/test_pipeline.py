# ruff: noqa: ARG002
"""The batch path against the readable path: same bytes out, same packets in, same books."""

from __future__ import annotations

import os
import struct
from collections import deque
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dataplane import oracle
from tests.dataplane.differential import AWAY, BothPaths, message, trains_of
from tests.dataplane.oracle import ACK, PSH, Packet
from tests.dataplane.strategies import packets
from tests.dataplane.toolbox import current, kit  # noqa: F401
from wgpy.dataplane import egress, flows, ingress
from wgpy.dataplane.interpreted import INTERPRETED
from wgpy.dataplane.offload import MAX_MESSAGES
from wgpy.dataplane.pipeline import BatchPath
from wgpy.memory.batch import Arrival
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
    BothPaths(mtu=mtu, initiator=initiator).read_from_tun(came)


@relaxed
@given(reads())
def test_what_is_sent_arrives_on_the_other_side(
    came: list[tuple[tuple[int, ...], bytes]],
) -> None:
    """Every packet that can be sent, whole and in order."""
    both = BothPaths()
    sent = both.read_from_tun(came)
    both.remote.receive([Datagram(d.data, AWAY) for d in sent], now=both.now)
    arrived = both.remote.pull_packets()
    whole = [p for vnet, data in came for p in oracle.cut(vnet, data)]
    # Garbage has no such addresses.
    ours = (bytes([10, 0, 0, 1, 10, 0, 0, 2]), b"\xfd" + bytes(14) + b"\1\xfd" + bytes(14) + b"\2")
    expected = [p for p in whole if p[12:20] == ours[0] or p[8:40] == ours[1]]
    assert len(arrived) == len(sent)
    assert arrived == expected


def test_super_packet_is_one_send() -> None:
    both = BothPaths()
    both.read_from_tun([WHOLE.offloaded(1, 1368)])
    assert both.trains == [8]


def test_equal_packets_share_a_send() -> None:
    both = BothPaths()
    run = [replace(WHOLE, payload=b"x" * 64, identification=i).offloaded(0, 0) for i in range(70)]
    both.read_from_tun(run)
    assert both.trains == [1, 64, 5], "the first does not wait for the others"


def test_a_full_super_packet_of_small_segments_is_several_sends() -> None:
    both = BothPaths()
    both.read_from_tun([replace(WHOLE, payload=os.urandom(20_000)).offloaded(1, 100)])
    assert both.trains == [64, 64, 64, 8]


def test_a_small_super_packet_leaves_its_neighbour_alone() -> None:
    """Both are read before either is sent, and cutting writes behind the super-packet."""
    small = replace(WHOLE, payload=bytes(1301)).offloaded(1, 130)
    BothPaths().read_from_tun([small, replace(WHOLE, payload=b"x").offloaded(0, 0), small])


def test_without_a_session_packets_wait_for_the_handshake() -> None:
    both = BothPaths()
    for one in (both.batch, both.readable):
        peer = next(iter(one.device.peers.values()))
        one.device.erase_keys(peer)
        peer.initiation_sent_at = None
    both.read_from_tun([WHOLE.offloaded(1, 1368)])
    staged = [len(next(iter(o.device.peers.values())).staged) for o in (both.batch, both.readable)]
    assert staged == [8, 8]


def test_a_refused_train_is_counted() -> None:
    both = BothPaths()
    both.udp.refuse = True
    vnet, data = WHOLE.offloaded(1, 1368)
    both.tun.waiting.append(struct.pack("=BBHHHH", *vnet) + data)
    both.out.turn(both.now)
    assert both.batch.drops[DropReason.UDP_SEND_FAILED] == 8


def test_a_super_packet_that_contradicts_itself_is_dropped_by_name() -> None:
    both = BothPaths()
    vnet, data = WHOLE.offloaded(4, 1368)
    both.tun.waiting.append(struct.pack("=BBHHHH", *vnet) + data)
    both.out.turn(both.now)
    assert both.batch.drops == {DropReason.MALFORMED: 1}
    assert not both.udp.sent


def test_keys_are_renewed_in_time() -> None:
    both = BothPaths()
    both.now += 121 * NS
    sent = both.read_from_tun([WHOLE.offloaded(1, 1368)] * 2)
    assert [len(d.data) for d in sent if len(d.data) == 148] == [148]


def test_the_last_counters_are_used_and_not_one_more() -> None:
    few = Parameters(reject_after_messages=10)
    both = BothPaths(parameters=few)
    both.read_from_tun([WHOLE.offloaded(1, 1368)] * 3)
    assert next(iter(both.batch.device.peers.values())).current.next_counter == 10


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
    both = BothPaths(policy=Chequered())
    came = [to(n).offloaded(1, 1368) for n in (2, 3, 4, 2, 3, 4)]
    sent = both.read_from_tun(came)
    assert len(sent) == 16
    assert both.batch.drops[DropReason.UNENCRYPTED_TRAFFIC] == 16
    assert both.batch.pull_plaintext() == both.readable.pull_plaintext() != []


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
    both = BothPaths(policy=policy)
    both.readable.policy = Chequered()
    for last, asked in ((2, 1), (2, 0), (3, 1), (3, 1), (4, 1)):
        policy.asked.clear()
        both.read_from_tun([to(last).offloaded(1, 1368)])
        assert policy.asked == [("egress", bytes([10, 0, 0, last]))] * asked


@pytest.mark.parametrize("known", [True, False])
def test_what_is_refused_is_judged_once_and_counted_each_time(known: bool) -> None:
    """Single packets and super-packets; refused by the policy, or for want of a peer."""
    policy = Counting()
    both = BothPaths(policy=policy)
    both.readable.policy = Chequered()
    packet = to(4) if known else replace(WHOLE, destination=bytes([192, 0, 2, 2]))
    reason = DropReason.UNENCRYPTED_TRAFFIC if known else DropReason.NO_PEER
    policy.asked.clear()
    plain = ((0,) * 6, packet.segments(1000)[0].build())
    for _ in range(3):
        both.read_from_tun([plain, packet.offloaded(1, 1368)] * 2)
    assert len(policy.asked) == 1
    assert both.batch.drops[reason] == both.readable.drops[reason] == 6 * (1 + 8)
    policy.generation = 1
    policy.egress = lambda *_: PLAINTEXT
    both.readable.policy = policy
    both.read_from_tun([plain])
    assert len(both.batch.pull_plaintext()) == 1 == len(both.readable.pull_plaintext())


def test_a_scan_of_refused_addresses_does_not_make_us_forget_the_others() -> None:
    policy = Counting()
    both = BothPaths(policy=policy)
    both.readable.policy = Chequered()
    both.read_from_tun([to(2).offloaded(1, 1368)])
    single = to(4).segments(1000)[0]
    scan = [replace(single, source=n.to_bytes(4)) for n in range(flows.MAX_FLOWS + 100)]
    both.tun.waiting += [bytes(10) + packet.build() for packet in scan]
    while both.tun.waiting:
        both.out.turn(both.now)
    assert len(both.out.flows.refused) <= flows.MAX_FLOWS
    assert both.batch.drops[DropReason.UNENCRYPTED_TRAFFIC] == len(scan)
    policy.asked.clear()
    both.out.turn(both.now)
    both.tun.waiting += [bytes(10) + to(2).segments(1000)[0].build()]
    both.out.turn(both.now)
    assert policy.asked == []


def test_a_known_flow_that_waits_for_a_handshake_is_not_judged_again() -> None:
    policy = Counting()
    both = BothPaths(policy=policy)
    both.readable.policy = Chequered()
    both.read_from_tun([to(2).offloaded(1, 1368)])
    both.now += 181 * NS
    policy.asked.clear()
    both.read_from_tun([to(2).offloaded(1, 1368)])
    assert policy.asked == []


@pytest.mark.parametrize(("last", "most"), [(1, 1), (5, 10), (9, 10)])
def test_a_packet_out_of_a_tunnel_is_judged_once(last: int, most: int) -> None:
    """Refused and per-packet answers are asked once for each packet, the others once for all."""
    policy = Counting()
    both = BothPaths(policy=policy)
    both.readable.policy = Chequered()
    source = bytes([10, 0, 0, last])
    inner = [p.build() for p in replace(WHOLE, source=source).segments(1000)]
    assert len(inner) == 10
    policy.asked.clear()
    both.arrive([from_remote(both, inner)])
    assert policy.asked == [("ingress", source)] * most


def test_a_new_generation_forgets_what_was_learnt() -> None:
    policy = Chequered()
    both = BothPaths(policy=policy)
    assert both.read_from_tun([to(2).offloaded(1, 1368)])
    policy.generation = 1
    policy.egress = lambda *_: Verdict(Action.DROP, DropReason.POLICY_DENIED)
    assert not both.read_from_tun([to(2).offloaded(1, 1368)])


def from_remote(both: BothPaths, inner: list[bytes]) -> list[bytes]:
    """Datagrams that the peer sends to carry `inner`."""
    both.remote.send(inner, now=both.now)
    return [bytes(d.data) for d in both.remote.pull_datagrams()]


@relaxed
@given(st.data())
def test_what_arrives_is_the_same(data: st.DataObject) -> None:
    both = BothPaths(initiator=data.draw(st.booleans()))
    inner: list[bytes] = []
    for packet in data.draw(st.lists(packets(), min_size=1, max_size=3)):
        width = data.draw(st.integers(max(1, len(packet.payload) // 20), 1300))
        inner += [p.build() for p in packet.segments(width)]
    inner += data.draw(st.lists(st.binary(min_size=1, max_size=60), max_size=2))
    datagrams = from_remote(both, inner)
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
    both.arrive(trains_of(datagrams, data.draw(st.integers(1, 64))))


def test_a_train_becomes_one_write() -> None:
    both = BothPaths()
    both.arrive([from_remote(both, [p.build() for p in WHOLE.segments(1000)])])
    pieces = [p.build() for p in replace(WHOLE, sequence=10_000).segments(1000)]
    train = from_remote(both, pieces)
    both.udp.waiting.append(Arrival(b"".join(train), len(train[0]), AWAY))
    both.into.turn(0, both.now)
    assert len(both.tun.written) == 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
def test_what_the_device_does_not_take_merged_is_written_one_by_one(
    version: int, protocol: int
) -> None:
    """The other protocol is merged as before."""
    both = BothPaths()
    addresses = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (b"\xfd" + bytes(14) + b"\1",) * 2}
    source, destination = addresses[version]
    for given_up, writes in ((23 - protocol, 1), (protocol, 10)):
        both.tun.given_up.add(given_up)
        whole = replace(
            WHOLE, version=version, protocol=protocol, source=source, destination=destination,
            options=b"", payload=bytes(10_000),
        )  # fmt: skip
        train = from_remote(both, [p.build() for p in whole.segments(1000)])
        both.udp.waiting.append(Arrival(b"".join(train), len(train[0]), AWAY))
        both.tun.written.clear()
        both.into.turn(0, both.now)
        assert len(both.tun.written) == writes
        assert len(both.delivered()) == 10


def test_keepalives_in_any_place() -> None:
    both = BothPaths()
    peer = next(iter(both.remote.device.peers.values()))
    made: list[bytes] = []
    for before in (0, 1, 3):
        made += from_remote(both, [p.build() for p in WHOLE.segments(1000)][:before])
        outbound.send_keepalive(both.remote.device, peer, both.now)
        made += [bytes(d.data) for d in both.remote.pull_datagrams()]
    assert sum(len(d) == 32 for d in made) == 3
    both.arrive(trains_of(made))
    both.arrive([[made[0]] * 5])


def test_a_roaming_peer_moves_with_its_train() -> None:
    both = BothPaths()
    moved = Endpoint(parse_address("198.51.100.7"), 999, 0, parse_address("192.0.2.1"), 3)
    both.arrive([from_remote(both, [p.build() for p in WHOLE.segments(1000)])], moved)
    assert next(iter(both.batch.device.peers.values())).endpoint == moved


def test_replayed_and_forged_trains_change_nothing() -> None:
    both = BothPaths()
    train = from_remote(both, [p.build() for p in WHOLE.segments(1000)])
    assert len(both.arrive([train])) == 10
    assert both.arrive([train]) == []
    index = struct.unpack_from("<I", train[0], 4)[0]
    assert both.arrive([[message(index, 2**40 + n, bytes(500)) for n in range(9)]]) == []
    assert both.arrive([[message(index ^ 1, n, bytes(500)) for n in range(9)]]) == []
    assert both.arrive([[message(index, 2**64 - 1 - n, bytes(500)) for n in range(9)]]) == []
    names = both.batch.drops
    assert names[DropReason.REPLAYED] == 10
    assert names[DropReason.TAG_INVALID] == 9
    assert names[DropReason.UNKNOWN_INDEX] == 9
    assert names[DropReason.COUNTER_EXHAUSTED] == 9


@pytest.mark.parametrize("source", [b"\x0b\0\0\1", b"\x0a\0\0\x09", b"\x0a\0\0\5"])
def test_sources_are_checked_for_every_packet(source: bytes) -> None:
    both = BothPaths(policy=Chequered())
    good = [p.build() for p in WHOLE.segments(1000)]
    bad = [p.build() for p in replace(WHOLE, source=source).segments(1000)]
    mixed = [p for pair in zip(good, bad, strict=True) for p in pair]
    delivered = both.arrive([from_remote(both, good + bad), from_remote(both, mixed)])
    assert len(delivered) == (40 if source[-1] == 5 else 20)


def test_a_session_that_is_too_old_opens_nothing() -> None:
    both = BothPaths()
    train = from_remote(both, [p.build() for p in WHOLE.segments(1000)])
    both.now += 181 * NS
    assert both.arrive([train]) == []
    assert both.batch.drops == {DropReason.SESSION_EXPIRED: 10}


def test_a_device_that_is_down_is_silent() -> None:
    both = BothPaths()
    train = from_remote(both, [p.build() for p in WHOLE.segments(1000)])
    for one in (both.batch, both.readable):
        one.set_up(False, now=both.now)
    assert both.arrive([train]) == []
    assert both.read_from_tun([WHOLE.offloaded(1, 1000)]) == []
    assert both.batch.drops[DropReason.DEVICE_DOWN] == 20


def test_two_sessions_in_one_train() -> None:
    """While keys change, one train may carry messages of the old and the new session."""
    both = BothPaths()
    old = from_remote(both, [p.build() for p in WHOLE.segments(1000)])
    pushed = replace(WHOLE, flags=ACK | PSH, sequence=10_000)
    stranger = [message(7, n, d[16:]) for n, d in enumerate(old[:3])]
    new = from_remote(both, [p.build() for p in pushed.segments(1000)])
    assert len(both.arrive([old[:5] + stranger + old[5:] + new])) == 20


def hostile(both: BothPaths) -> list[bytes]:
    """Datagrams that are wrong in every way there is a name for, among good ones."""
    good = from_remote(both, [p.build() for p in WHOLE.segments(1000)])
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
        good[0] + b"\0", *good[5:], good[3], *from_remote(both, [b"", b"x", b"\x45" + bytes(30)]),
        *from_remote(both, [p.build() for p in swapped.segments(1000)]), b"", b"",
    ]  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 64])
def test_hostile_datagrams_are_counted_alike_on_every_path(most: int) -> None:
    both = BothPaths()
    datagrams = hostile(both)
    both.arrive(trains_of(datagrams, most))
    for each in (both.batch, both.readable):
        each.device.indices = {}
    both.arrive(trains_of(datagrams, most))
    for each in (both.batch, both.readable):
        each.set_up(False, now=both.now)
    both.arrive(trains_of(datagrams, most))
    drops = both.batch.drops
    assert drops[DropReason.LENGTH_INVALID] > 3 * datagrams.count(b"")
    counted = sum(drops.values()) + both.batch.device.delivered.packets
    assert counted >= 3 * len(datagrams) - 1, "each has a name or was delivered (a keepalive)"


def test_bytes_are_counted_without_padding_on_every_path() -> None:
    """Whether packets went alone, in a run, or in a super-packet."""
    both = BothPaths()
    odd = replace(WHOLE, payload=bytes(1301))
    run = [replace(odd, identification=n, payload=bytes(101)).offloaded(0, 0) for n in range(9)]
    both.read_from_tun([odd.offloaded(1, 130), *run, run[0]])
    assert both.batch.device.encrypted.packets == 11 + 10 + 1  # The first made the session.
    both.arrive(trains_of(from_remote(both, [p.build() for p in odd.segments(130)])))
    assert both.batch.device.delivered.packets == 11


def test_a_flood_of_handshakes_leaves_the_path_at_once() -> None:
    both = BothPaths()
    flood = [b"\1\0\0\0" + struct.pack("<I", n) + bytes(140) for n in range(40)]
    assert both.arrive([flood, [*flood, b"\1\0\0\0"]]) == []
    assert both.batch.drops == {DropReason.MAC1_INVALID: 80, DropReason.LENGTH_INVALID: 1}


SEGMENTS = [p.build() for p in WHOLE.segments(1000)]


def test_datagrams_that_come_singly_are_one_write() -> None:
    both = BothPaths()
    both.arrive([[data] for data in from_remote(both, SEGMENTS[:1])])
    assert both.into._lone
    for data in from_remote(both, [p.build() for p in WHOLE.segments(1000)] * 2):
        both.udp.waiting.append(Arrival(data, len(data), AWAY))
    both.into.turn(0, both.now)
    assert len(both.tun.written) == 3, "the first alone, then what each PSH ends"
    assert not both.udp.waiting


@settings(relaxed, max_examples=20)
@given(st.lists(packets(), min_size=1, max_size=2), st.randoms(use_true_random=False))
def test_single_datagrams_are_gathered_exactly(came: list[Packet], random: Random) -> None:
    """Any mixture of sizes, sources, repetitions, handshakes and empty datagrams, in order."""
    both = BothPaths()
    elsewhere = Endpoint(parse_address("198.51.100.7"), 999)
    for _ in range(2):
        inner = [p for packet in came
                 for p in oracle.cut(*replace(packet, payload=packet.payload[:9000]).offloaded(
                     GSO[packet.version, packet.protocol], 700))]
        arriving = from_remote(both, inner)
        for odd in (b"", b"\4", b"\1" + bytes(147), bytes(700), *random.choices(arriving, k=2)):
            if random.random() < 0.3:
                arriving.insert(random.randint(0, len(arriving)), odd)
        moves = random.choice((0, 0, 0.1))
        both.arrive_from(
            [([data], elsewhere if random.random() < moves else AWAY) for data in arriving]
        )


def test_single_handshakes_are_not_gathered() -> None:
    both = BothPaths()
    both.into._lone = False
    flood = b"\1\0\0\0" + bytes(144)
    both.udp.waiting.extend([Arrival(flood, len(flood), AWAY)] * (ingress.MAX_REFUSED + 9))
    both.into.turn(0, both.now)
    assert len(both.udp.waiting) == 9


class Endless(deque):
    """A queue that fills up as fast as it is emptied."""

    def __init__(self, *items: object) -> None:
        super().__init__(items)
        self.taken = 0

    def popleft(self) -> object:
        self.taken += 1
        return self[0]


def test_a_turn_ends_however_much_waits() -> None:
    """So that the other direction, timers and configuration get theirs."""
    both = BothPaths()
    vnet, data = WHOLE.offloaded(1, 1368)
    both.tun.waiting = Endless(struct.pack("=BBHHHH", *vnet) + data)
    both.out.turn(both.now)
    assert both.tun.waiting.taken <= egress.MAX_SUPERS
    both.tun.waiting = Endless(bytes(10) + replace(WHOLE, payload=b"x").build())
    both.out.turn(both.now)
    assert both.tun.waiting.taken <= egress.TURN + 1
    large = [p.build() for p in replace(WHOLE, payload=bytes(44_000)).segments(1000)]
    train = from_remote(both, large)
    both.udp.waiting = Endless(Arrival(b"".join(train), len(train[0]), AWAY))
    both.into.turn(0, both.now)
    assert both.udp.waiting.taken <= ingress.MAX_LONG


def test_more_messages_than_rows_and_a_short_last_one() -> None:
    """What lies in the buffer behind the train is of an earlier one, and not looked at."""
    both = BothPaths()
    size = 64
    whole = [p.build() for p in replace(WHOLE, payload=bytes(MAX_MESSAGES + 1)).segments(1)]
    messages = from_remote(both, whole)
    assert {len(m) for m in messages} == {size + 32}
    keepalive = bytes([4]) + bytes(31)
    both.into._slab.buffer[:] = b"\4\0\0\0" * (len(both.into._slab.buffer) // 4)
    both.arrive([[*messages, keepalive]])


def test_a_packet_does_not_wait_for_the_loop_behind_lone_garbage() -> None:
    """A turn takes much of what means nothing, and goes on to the messages of the peers."""
    both = BothPaths()
    (data,) = from_remote(both, [WHOLE.segments(1000)[0].build()])
    unknown, forged = bytes([4]) + bytes(40), data[:-1] + bytes([data[-1] ^ 1])
    for garbage, name in ((unknown, "UNKNOWN_INDEX"), (forged, "TAG_INVALID")):
        junk = [Arrival(garbage, len(garbage), AWAY)] * (ingress.MAX_REFUSED + 5)
        (good,) = from_remote(both, [WHOLE.segments(1000)[0].build()])
        both.udp.waiting.clear()
        both.udp.waiting.extend([*junk, *[Arrival(good, len(good), AWAY)] * 2])
        before, written = both.batch.drops.copy(), len(both.tun.written)
        both.into.turn(0, both.now)
        assert (len(both.udp.waiting), len(both.tun.written)) == (7, written)
        both.into.turn(0, both.now)
        assert (len(both.udp.waiting), len(both.tun.written)) == (0, written + 1)
        gone = {reason.name: count - before[reason] for reason, count in both.batch.drops.items()}
        assert gone[name] == len(junk)


def test_the_core_is_offered_to_the_receiver_when_its_packets_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a small socket overflows while its reader waits for us to sleep."""
    both = BothPaths()
    interface = SimpleNamespace(engine=both.batch, listeners=[], now=lambda: both.now)
    path = BatchPath(interface, both.tun, both.udp)  # type: ignore[arg-type]
    written_before: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: written_before.append(len(both.tun.written)))
    for count in (1, 2):
        (data,) = from_remote(both, [WHOLE.segments(1000)[0].build()])
        both.udp.waiting.append(Arrival(data, len(data), AWAY))
        path.udp_ready(0)
        assert len(both.tun.written) == count
    both.tun.waiting.append(bytes(10) + replace(WHOLE, payload=b"x").build())
    path.tun_ready()
    assert written_before == [1, 2]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MAX_FLOWS", 8)
    both = BothPaths()
    for number in range(1, 200):
        source = bytes([10, 0, 0, number])
        small = replace(WHOLE, source=source, payload=bytes(5 * number + 100))
        both.read_from_tun([replace(small, destination=source).offloaded(1, 30 + number)])
        both.arrive([from_remote(both, [p.build() for p in small.segments(30 + number)])])
    assert len(both.out.flows) <= 8
    assert len(both.into.flows) <= 8
    for slab in (both.out._slab, both.into._slab):
        assert len(slab._rows) <= 64
    if current().tools is INTERPRETED:  # The compiled ones remember nothing.
        assert len(both.out._segmenter._frames) <= 128
        assert len(both.into._merger._frames) <= 128
