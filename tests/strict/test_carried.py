"""Packets inside of packets: what ICMP errors quote and tunnels wrap decides, not the wrapping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from strict.headers import carried, ends
from strict.policy import StrictPolicy
from strict.settings import Mode
from tests.strict.helpers import CONTROL, a, key, node, table
from wgpy.protocol.drops import DropReason
from wgpy.protocol.policy import Action

POD = {4: "10.244.{}.7", 6: "fd00:10:0:{}::7"}
NODE = {4: "192.168.5.{}", 6: "fd00:5::{}"}
HEAD = {4: IP, 6: IPv6}
ERRORS = [
    *((4, ICMP(type=kind)) for kind in (3, 4, 5, 11, 12)),
    *((6, error) for error in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded(),
                               ICMPv6ParamProblem())),
]
errors = pytest.mark.parametrize(("version", "error"), ERRORS, ids=lambda v: repr(v)[:20])
both = pytest.mark.parametrize("version", [4, 6])


def ip(version: int, source: str, destination: str, **more: object) -> Packet:
    return HEAD[version](src=source, dst=destination, **more)


def quoted(version: int) -> Packet:
    return ip(version, POD[version].format(3), POD[version].format(1)) / UDP() / Raw(b"secret")


def judge(packet: Packet, mode: Mode = Mode.STRICT, **changes: object) -> tuple[int, str]:
    source, destination = a(packet.src), a(packet.dst)
    decision = table(mode, **changes).decide(source, destination, bytes(packet))
    reason = decision.verdict.reason
    return int(decision.rule), reason.name if reason else decision.verdict.action.value


@errors
def test_an_error_about_pods_is_encrypted_to_their_node(version: int, error: Packet) -> None:
    """Assert: encrypted, or dropped where that is impossible.  Sanity: default mode leaks."""
    head = ip(version, NODE[version].format(1), POD[version].format(3))
    packet = head / error / quoted(version)
    assert judge(packet) == (11, "encrypt")
    assert judge(packet, Mode.DEFAULT) == (7, "plaintext")
    for pod in (4, 9):
        packet = ip(version, NODE[version].format(1), POD[version].format(pod)) / error / quoted(
            version)
        assert judge(packet) == (11, "UNENCRYPTED_TRAFFIC")
    assert judge(packet / Raw(b"")) == judge(packet)


@errors
def test_an_error_about_node_traffic_is_node_traffic(version: int, error: Packet) -> None:
    about = ip(version, POD[version].format(3), NODE[version].format(1)) / UDP()
    packet = ip(version, NODE[version].format(1), POD[version].format(3)) / error / about
    assert judge(packet) == (7, "plaintext")


@errors
def test_an_opted_out_node_is_no_exception(version: int, error: Packet) -> None:
    made = table(node_encryption=True)
    made.upsert_node(node("here", 1, cidrs=("10.244.1.0/24",), labels=CONTROL))
    from strict.labels import Selector

    made.configure(table(node_encryption=True, node_encryption_opt_out=Selector.parse(
        "node-role.kubernetes.io/control-plane")).config)
    packet = ip(version, NODE[version].format(1), POD[version].format(3)) / error / quoted(version)
    source, destination = a(packet.src), a(packet.dst)
    assert made.decide(source, destination).verdict.action is Action.PLAINTEXT
    assert made.decide(source, destination, bytes(packet)).verdict.action is Action.ENCRYPT


@both
def test_what_cannot_be_read_is_a_pods(version: int) -> None:
    head = ip(version, NODE[version].format(1), POD[version].format(3))
    error = ICMP(type=3) if version == 4 else ICMPv6DestUnreach()
    whole = bytes(head / error / quoted(version))
    size = len(bytes(head))
    cut = [head / Raw(whole[size:end]) for end in range(size, size + 8 + size)]
    if version == 4:
        for packet in cut:
            packet.proto = 1
        cut += [head.copy() / error / quoted(4)]
        cut[-1].flags = "MF"
        cut += [ip(4, head.src, head.dst, frag=9, proto=1) / Raw(b"rest")]
    else:
        for packet in cut:
            packet.nh = 58
        cut += [head / IPv6ExtHdrFragment(offset=9, nh=58) / Raw(b"rest"),
                head / IPv6ExtHdrFragment(offset=9, nh=60) / Raw(b"rest"),
                head / ICMPv6ND_Redirect()]
    for packet in cut:
        assert judge(packet) == (11, "encrypt"), packet.summary()


@both
def test_wrappings(version: int) -> None:
    """Nested errors, options and extension headers on both levels, IP in IP of both families."""
    here, there = NODE[version].format(1), NODE[version].format(3)
    error = ICMP(type=11) if version == 4 else ICMPv6TimeExceeded()
    back = ip(version, POD[version].format(3), there) / error / quoted(version)
    made = [ip(version, here, POD[version].format(3)) / error / back]
    if version == 4:
        option = IPOption(b"\x07\x0b\x04" + bytes(8))
        inner = IP(src="10.244.3.7", dst="10.244.1.7", options=[option]) / UDP()
        made.append(IP(src=here, dst="10.244.3.7", options=[option]) / error / inner)
    else:
        inner = IPv6(src="fd00:10:0:3::7", dst="fd00:10:0:1::7") / IPv6ExtHdrHopByHop() / UDP()
        made.append(IPv6(src=here, dst="fd00:10:0:3::7") / IPv6ExtHdrDestOpt() / error / inner)
    for inner_version, protocol in ((4, 4), (6, 41)):
        key_word = {"proto" if version == 4 else "nh": protocol}
        made.append(ip(version, here, POD[version].format(3), **key_word)
                    / Raw(bytes(quoted(inner_version))))
    deep = quoted(version)
    for _ in range(6):
        deep = ip(version, here, POD[version].format(3)) / error / deep
    made.append(deep)
    for packet in made:
        assert judge(packet) == (11, "encrypt"), packet.summary()


@both
def test_warm_flows_are_not_fooled(version: int) -> None:
    """Plaintext remembered for a flow does not count for an error on it; echoes stay plain."""
    policy = StrictPolicy()
    policy.replace(table())
    source, destination = NODE[version].format(1), POD[version].format(3)
    head = ip(version, source, destination)
    echo = bytes(head / (ICMP() if version == 4 else ICMPv6EchoRequest()))
    error = bytes(head / (ICMP(type=3) if version == 4 else ICMPv6DestUnreach()) / quoted(version))

    def verdict(packet: bytes) -> Action:
        return policy.egress(a(source), a(destination), packet).action

    for _ in range(2):
        assert verdict(bytes(head / UDP())) is Action.PLAINTEXT
        assert verdict(echo) is Action.PLAINTEXT
        assert verdict(error) is Action.ENCRYPT
        assert verdict(memoryview(error)) is Action.ENCRYPT  # type: ignore[arg-type]


@both
def test_the_other_end_takes_it_from_the_nodes_own_address(version: int) -> None:
    made = table()
    source, pod = a(NODE[version].format(2)), a(POD[version].format(1))
    assert made.decide_ingress(source, pod, key(2)).verdict.action is Action.ACCEPT
    refused = made.decide_ingress(source, pod, key(3)).verdict
    assert refused.reason is DropReason.SOURCE_NOT_ON_NODE


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_arbitrary_bytes(data: bytes, first: bytes) -> None:
    packet = first + data
    inner = carried(packet)
    if packet[:1] == b"\x45" and len(packet) >= 20 and packet[9] not in (1, 4, 41):
        assert inner is None
    if inner is not None:
        ends(inner)
        assert len(inner) < max(len(packet), 1)
