"""What the sniffer makes of frames that scapy builds, outside and inside."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet import IP as IPv4
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    ICMPv6ND_Redirect,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from testbed.classify import LEAKS, POD_MARK, Classifier, Kind
from testbed.sniffer import canary_frame
from testbed.topology import LISTEN_PORT

PODS = [ip_network("10.244.0.0/16"), ip_network("fd10:244::/48")]
A4, B4, N4, M4, W4 = "10.244.1.10", "10.244.2.10", "172.20.0.11", "172.20.0.12", "203.0.113.9"
A6, B6, N6 = "fd10:244:0:1::a", "fd10:244:0:2::a", "fd00:20::b"
DATA = b"\4\0\0\0" + bytes(60)
WG = {"sport": LISTEN_PORT, "dport": LISTEN_PORT}



def framed(packet):
    """With both addresses given: scapy would ask the network for them."""
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


CASES = [
    (IPv4(src=A4, dst=B4) / TCP(), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4) / UDP() / Raw(b"x"), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4) / ICMP(), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4) / SCTP(), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4, proto=253) / Raw(b"x"), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4, options=[IPOption_Router_Alert()]) / UDP(), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=B4, frag=100, proto=17) / Raw(b"x" * 8), Kind.POD_TO_POD),
    (IPv6(src=A6, dst=B6) / UDP(), Kind.POD_TO_POD),
    (IPv6(src=A6, dst=B6) / IPv6ExtHdrDestOpt() / TCP(), Kind.POD_TO_POD),
    (IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(offset=9) / Raw(b"x"), Kind.POD_TO_POD),
    # A pod that pretends to be WireGuard is still a pod.
    (IPv4(src=A4, dst=B4) / UDP(**WG) / Raw(DATA), Kind.POD_TO_POD),
    (IPv4(src=A4, dst=W4) / UDP(), Kind.POD_TO_OTHER),
    (IPv4(src=W4, dst=A4) / TCP(), Kind.POD_TO_OTHER),
    (IPv4(src=N4, dst=M4) / UDP(**WG) / Raw(DATA), Kind.WIREGUARD),
    (IPv4(src=N4, dst=M4) / UDP(**WG) / Raw(b"\1\0\0\0" + bytes(144)), Kind.WIREGUARD),
    (IPv6(src=N6, dst="fd00:20::c") / UDP(**WG) / Raw(DATA), Kind.WIREGUARD),
    # The right port, but not WireGuard's framing, or not its size.
    (IPv4(src=N4, dst=M4) / UDP(**WG) / Raw(b"hello, world" * 4), Kind.NODE),
    (IPv4(src=N4, dst=M4) / UDP(**WG) / Raw(b"\1\0\0\0" + bytes(99)), Kind.NODE),
    (IPv4(src=N4, dst=M4) / UDP(sport=53, dport=53) / Raw(DATA), Kind.NODE),
    (IPv4(src=N4, dst=M4) / TCP(), Kind.NODE),
    (ARP(), Kind.NEIGHBOUR),
    (IPv6(src=N6, dst="ff02::1:ff00:c") / ICMPv6ND_NS(), Kind.NEIGHBOUR),
    (Dot1Q(vlan=7) / IPv4(src=A4, dst=B4) / TCP(), Kind.POD_TO_POD),
    (Dot1AD(vlan=7) / Dot1Q(vlan=8) / IPv4(src=A4, dst=B4) / TCP(), Kind.POD_TO_POD),
    # A pod that speaks to everybody speaks to pods.
    (IPv4(src=A4, dst="224.0.0.251") / UDP(), Kind.POD_TO_POD),
    (IPv4(src=A4, dst="255.255.255.255") / UDP(), Kind.POD_TO_POD),
    (IPv6(src=A6, dst="ff02::fb") / UDP(), Kind.POD_TO_POD),
    (IPv4(src=N4, dst="224.0.0.251") / UDP(), Kind.NODE),
    (IPv4(src=N4, dst="224.0.0.22", proto=2) / Raw(bytes(8)), Kind.NEIGHBOUR),
]

POD4, POD6 = IPv4(src=A4, dst=B4) / UDP() / Raw(b"x"), IPv6(src=A6, dst=B6) / UDP() / Raw(b"x")
OUT4, OUT6 = IPv4(src=N4, dst=M4), IPv6(src=N6, dst="fd00:20::c")
ERROR4, ERROR6 = ICMP(type=11), ICMPv6TimeExceeded()
SHORT4 = IPv4(bytes(IPv4(src=A4, dst=B4) / UDP() / Raw(b"x" * 90))[:28])

CARRIED = [
    OUT4 / ERROR4 / POD4,
    OUT6 / ERROR6 / POD6,
    IPv4(src=N4, dst=A4) / ICMP(type=3, code=4) / POD4,
    IPv6(src=N6, dst=A6) / ICMPv6PacketTooBig() / POD6,
    OUT4 / ERROR4 / SHORT4,
    OUT4 / ICMP(type=5, gw=M4) / POD4,
    OUT6 / ICMPv6ND_Redirect(tgt=N6, dst=B6) / ICMPv6NDOptRedirectedHdr(pkt=POD6),
    OUT4 / ERROR4 / OUT4 / ERROR4 / POD4,
    OUT6 / ERROR6 / OUT6 / ERROR6 / POD6,
    OUT4 / POD4,
    OUT4 / IPv4(src=N4, dst=M4) / POD4,
    OUT4 / POD6,
    OUT6 / POD4,
    OUT6 / IPv6ExtHdrDestOpt() / POD6,
    OUT4 / GRE() / POD4,
    OUT4 / UDP(sport=9, dport=4789) / VXLAN(vni=1) / Ether(src="02:00:00:00:00:03",
                                                           dst="02:00:00:00:00:04") / POD4,
    IPv4(src=A4, dst=W4) / POD4,
    IPv4(src=A4, dst=N4) / OUT4 / POD4,
    OUT4 / ERROR4 / IPv4(src=N4, dst=A4) / POD4,
    Dot1Q(vlan=7) / OUT4 / POD4,
    IPv4(src=N4, dst=B4) / UDP() / Raw(POD_MARK * 2),
    OUT4 / TCP() / Raw(b"x" * 900 + POD_MARK),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CARRIED)))
def test_it_looks_into_packets(number):
    packet = Classifier(PODS).classify(framed(CARRIED[number]))
    assert packet.kind is Kind.CARRIED
    assert "holds " in str(packet)
    # And without those pod CIDRs nothing is wrong with the pods inside.
    other = Classifier([ip_network("10.99.0.0/16")]).classify(framed(CARRIED[number]))
    marked = POD_MARK in framed(CARRIED[number])
    assert (other.kind is Kind.CARRIED) == marked


HARMLESS = [
    (OUT4 / ERROR4 / IPv4(src=N4, dst=B4) / UDP(), Kind.NODE),
    (IPv4(src=N4, dst=A4) / ERROR4 / IPv4(src=A4, dst=W4) / UDP(), Kind.POD_TO_OTHER),
    (IPv4(src=A4, dst=W4) / IPv4(src=A4, dst=W4) / UDP(), Kind.POD_TO_OTHER),
    (OUT4 / ICMP(type=8) / Raw(bytes(POD4)), Kind.NODE),
    (OUT6 / ERROR6 / IPv6(src=N6, dst=A6) / UDP(), Kind.NODE),
]


@pytest.mark.parametrize("number", range(len(HARMLESS)))
def test_what_rows_6_and_7_allow_stays_allowed_inside(number):
    packet, kind = HARMLESS[number]
    assert Classifier(PODS).classify(framed(packet)).kind is kind


UNKNOWN = [
    OUT4 / IPv4(src=N4, dst=W4) / UDP(),
    OUT4 / GRE() / IPv4(src=N4, dst=M4) / UDP(),
    IPv4(src=N4, dst=M4, proto=50) / Raw(bytes(40)),
    Dot1Q(vlan=7) / OUT4 / UDP(),
    Raw(b"\x88\xe5" + bytes(60)),
]


@pytest.mark.parametrize("number", range(len(UNKNOWN)))
def test_what_is_of_no_class_is_a_leak(number):
    frame = framed(UNKNOWN[number])
    if number == 4:
        frame = frame[:12] + bytes(UNKNOWN[number])
    packet = Classifier(PODS).classify(frame)
    assert packet.kind is Kind.UNKNOWN and packet.kind in LEAKS


@pytest.mark.parametrize("whole", [OUT4 / ERROR4 / POD4, OUT4 / POD4, OUT4 / POD6])
def test_fragments_are_put_together(whole):
    """No fragment shows both addresses of the packet inside; the last one that comes does."""
    pieces = fragment(whole, 16)
    classifier = Classifier(PODS)
    kinds = [classifier.classify(framed(piece)).kind for piece in pieces[::-1]]
    assert kinds[-1] is Kind.CARRIED
    assert set(kinds[:-1]) == {Kind.NODE}


@pytest.mark.parametrize(("packet", "kind"), CASES, ids=lambda v: getattr(v, "name", None))
def test_every_kind(packet, kind):
    assert Classifier(PODS).classify(framed(packet)).kind is kind


def test_ports_and_words():
    options = [IPOption_Router_Alert()]
    frame = framed(IPv4(src=A4, dst=B4, options=options) / TCP(sport=1234, dport=80))
    packet = Classifier(PODS).classify(frame)
    assert (packet.source_port, packet.destination_port) == (1234, 80)
    assert str(packet) == f"TCP {A4}:1234 > {B4}:80"


def test_later_fragments_have_no_ports():
    whole = IPv4(src=A4, dst=B4) / UDP(sport=1, dport=2) / Raw(bytes(2000))
    first, *rest = fragment(whole, 600)
    classifier = Classifier(PODS)
    assert classifier.classify(framed(first)).source_port == 1
    for piece in rest:
        packet = classifier.classify(framed(piece))
        assert (packet.kind, packet.source_port) == (Kind.POD_TO_POD, 0)


def test_canary():
    assert Classifier(PODS).classify(canary_frame(bytes(16))).kind is Kind.CANARY


@pytest.mark.parametrize("size", range(80))
def test_truncated_frames_never_raise(size):
    frame = framed(IPv6(src=A6, dst=B6) / IPv6ExtHdrDestOpt() / TCP())
    Classifier(PODS).classify(frame[:size])
