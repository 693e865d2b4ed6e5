"""What stands around a datagram: crafted by scapy, judged by tshark, read by us."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.layers.dot11 import Dot11, Dot11QoS, RadioTap
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN

from tests.capture.test_decrypt import inner_of, tshark
from tests.capture.traffic import WALL, Tunnel, busy_tunnel
from wgpy.capture.decrypt import Explainer
from wgpy.capture.dissect import BROKEN, CUT, Dissector
from wgpy.capture.frames import Frame
from wgpy.capture.link import ETHERNET, RAW, Udp, udp_packet
from wgpy.capture.pcap import read_capture, write_pcap
from wgpy.capture.seen import Seen

OUTER = IP(src="198.51.100.1", dst="198.51.100.2")
OUTER6 = IPv6(src="2001:db8::1", dst="2001:db8::2")
E = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
Wrap = Callable[[Any], Any]

WRAPPINGS: dict[str, tuple[int, Wrap]] = {
    "vlan": (ETHERNET, lambda p: E / Dot1Q(vlan=5) / p),
    "qinq": (ETHERNET, lambda p: E / Dot1AD(vlan=5) / Dot1Q(vlan=6) / p),
    "mpls": (ETHERNET, lambda p: Ether(type=0x8847) / MPLS(s=0) / MPLS(s=1) / p),
    "pppoe": (ETHERNET, lambda p: Ether(type=0x8864) / PPPoE(sessionid=1) / PPP() / p),
    "ipip": (ETHERNET, lambda p: E / OUTER / p),
    "4in6": (ETHERNET, lambda p: E / OUTER6 / p),
    "options": (ETHERNET, lambda p: E / OUTER6 / IPv6ExtHdrDestOpt() / p),
    "gre": (ETHERNET, lambda p: E / OUTER / GRE() / p),
    "gre-key": (
        ETHERNET,
        lambda p: E / OUTER / GRE(key_present=1, key=7, seqnum_present=1, chksum_present=1) / p,
    ),
    "gretap": (ETHERNET, lambda p: E / OUTER / GRE(proto=0x6558) / E / p),
    "vxlan": (ETHERNET, lambda p: E / OUTER / UDP(dport=4789) / VXLAN(vni=9) / E / p),
    "vxlan6": (ETHERNET, lambda p: E / OUTER6 / UDP(dport=4789) / VXLAN(vni=9) / E / p),
    "geneve": (
        ETHERNET,
        lambda p: E / OUTER / UDP(sport=50000, dport=6081) / GENEVE(proto=0x6558) / E / p,
    ),
    "gtp": (ETHERNET, lambda p: E / OUTER / UDP(dport=2152) / GTP_U_Header(teid=1) / p),
    "gtp-extension": (
        ETHERNET,
        lambda p: E / OUTER / UDP(dport=2152)
        / GTP_U_Header(teid=1, E=1, next_ex=0x85) / GTPPDUSessionContainer(QFI=1) / p,
    ),
    "vlan-gre-vxlan": (
        ETHERNET,
        lambda p: E / Dot1Q() / OUTER / GRE() / OUTER / UDP(dport=4789) / VXLAN() / E / p,
    ),
    "ppp": (9, lambda p: PPP() / p),
    "wifi": (105, lambda p: Dot11(type=2, subtype=0, FCfield=1) / LLC() / SNAP() / p),
    "wifi-qos": (
        127,
        lambda p: RadioTap() / Dot11(type=2, subtype=8, FCfield=1) / Dot11QoS()
        / LLC() / SNAP() / p,
    ),
}  # fmt: skip


def read_frames(path: Path, key_log: str) -> tuple[list[Seen], Explainer]:
    explainer = Explainer()
    explainer.keys.read(key_log)
    return list(explainer.explain(read_capture(path), "x")), explainer


@pytest.mark.parametrize("name", WRAPPINGS)
def test_every_wrapping_is_read_as_tshark_reads_it(tmp_path: Path, name: str) -> None:
    link_type, wrap = WRAPPINGS[name]
    tunnel, inner = busy_tunnel()
    frames = [(WALL + at, bytes(wrap(IP(udp_packet(udp))))) for at, udp in tunnel.frames]
    path = tmp_path / "x.pcap"
    write_pcap(path, link_type, frames)
    seen, explainer = read_frames(path, tunnel.key_log(0))
    assert inner_of(seen) == inner and explainer.unread == {}
    rows = tshark(path, "wg.type", "wg.counter")
    assert [row[0] for row in rows] == [str(s.kind) for s in seen]
    assert [row[1] for row in rows] == [str(s.counter if s.kind == 4 else "") for s in seen]


def test_ipv6_in_ipv4(tmp_path: Path) -> None:
    tunnel = Tunnel()
    tunnel.places = tuple(map(partial(_endpoint), ("2001:db8::1", "2001:db8::2")))  # type: ignore[assignment]
    inner = [tunnel.send(0)]
    path = tmp_path / "x.pcap"
    frames = [(WALL + at, bytes(E / OUTER / IPv6(udp_packet(udp)))) for at, udp in tunnel.frames]
    write_pcap(path, ETHERNET, frames)
    assert inner_of(read_frames(path, tunnel.key_log(0))[0]) == inner


def _endpoint(address: str) -> Any:
    from wgpy.protocol.endpoint import Endpoint

    return Endpoint.parse(f"[{address}]:51820")


@pytest.mark.parametrize(
    ("link_type", "data", "reason"),
    [
        (195, b"x" * 60, "link type 195 (802.15.4)"),
        (9999, b"x" * 60, "link type 9999"),
        (ETHERNET, bytes(E) [:12] + b"\x88\xe5" + bytes(60), "MACsec (EtherType 0x88e5)"),
        (ETHERNET, bytes(E)[:12] + b"\x77\x77" + bytes(60), "EtherType 0x7777"),
        (RAW, bytes(IP(proto=50) / bytes(40)), "ESP (IPsec)"),
        (105, b"\x08\x40" + bytes(60), "encrypted 802.11"),
        (RAW, b"\x41" + bytes(60), BROKEN),
        (RAW, bytes(IP(src="1.1.1.1", flags=1) / UDP() / bytes(16)),
         "IP fragments whose other parts are missing"),
        (RAW, bytes(OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (
            OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (OUTER / (
                OUTER / UDP()))))))))))))))))), "more than 16 layers"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_counted(link_type: int, data: bytes, reason: str) -> None:
    dissector = Dissector()
    for number in (1, 2):
        frame = Frame(number, 0, link_type, data + bytes([number]), len(data) + 1)
        assert dissector.datagram(frame) is None
    assert dissector.unread in ({reason: 2}, {reason: 1})


@pytest.mark.parametrize(
    "packet", [E / ARP(), E / IP(proto=6) / bytes(20), Ether(type=40) / LLC() / bytes(37)]
)
def test_what_cannot_hold_wireguard_is_not_counted(packet: Any) -> None:
    dissector = Dissector()
    data = bytes(packet)
    assert dissector.datagram(Frame(1, 0, ETHERNET, data, len(data))) is None
    assert dissector.unread == {}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_frame_cut_anywhere_never_gives_a_shorter_datagram(name: str) -> None:
    """Cut at every byte: nothing, a reason, or the datagram with what is missing told."""
    link_type, wrap = WRAPPINGS[name]
    tunnel, _ = busy_tunnel()
    udp = tunnel.frames[2][1]
    data = bytes(wrap(IP(udp_packet(udp))))
    for size in range(len(data) + 1):
        dissector = Dissector()
        found = dissector.datagram(Frame(1, 0, link_type, data[:size], len(data)))
        if found is None:
            assert size <= len(data) - len(udp.payload) and dissector.unread in ({CUT: 1}, {})
            continue
        if (found.source, found.destination) == (udp.source, udp.destination):
            assert udp.payload.startswith(found.payload)
            assert len(found.payload) + found.missing == len(udp.payload)


@given(
    st.sampled_from([0, 1, 9, 50, 51, 101, 104, 105, 108, 109, 113, 127, 276]),
    st.binary(max_size=200),
)
def test_garbage_is_a_value(link_type: int, data: bytes) -> None:
    Dissector().datagram(Frame(1, 0, link_type, data, len(data)))


@given(st.sampled_from(sorted(WRAPPINGS)), st.data())
def test_a_damaged_frame_is_a_value(name: str, data: st.DataObject) -> None:
    link_type, wrap = WRAPPINGS[name]
    frame = bytearray(bytes(wrap(IP() / UDP(dport=51820) / bytes(32))))
    for _ in range(data.draw(st.integers(1, 5))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    Dissector().datagram(Frame(1, 0, link_type, bytes(frame), len(frame)))


def test_fragments_are_bounded_and_repeated_ones_change_nothing() -> None:
    dissector = Dissector()
    tunnel, _ = busy_tunnel()
    packet = udp_packet(tunnel.frames[2][1])
    head, body = packet[:20], packet[20:]

    def part(offset: int, more: bool, data: bytes, identity: int = 1) -> Frame:
        field = (0x2000 if more else 0) | offset // 8
        ip = head[:2] + struct.pack("!HHH", 20 + len(data), identity, field) + head[8:] + data
        return Frame(1, 0, RAW, ip, len(ip))

    assert dissector.datagram(part(0, True, body[:48])) is None
    assert dissector.datagram(part(0, True, body[:48])) is None
    assert dissector.datagram(part(48, False, body[48:])) == tunnel.frames[2][1]
    for identity in range(3000):
        for offset in range(0, 16 * 1400, 1400):
            dissector.datagram(part(offset, True, bytes(1400), identity))
    held = dissector._fragments._held
    assert held <= 1 << 24 and dissector.unread


def test_a_cut_fragment_is_a_cut_datagram() -> None:
    dissector = Dissector()
    tunnel = Tunnel()
    tunnel.send(0, 1200)
    udp = tunnel.frames[2][1]
    packet = udp_packet(udp)
    head, body = packet[:20], packet[20:]
    first = head[:2] + struct.pack("!HHH", 20 + 480, 1, 0x2000) + head[8:] + body[:480]
    rest = body[480:]
    second = head[:2] + struct.pack("!HHH", 20 + len(rest), 1, 60) + head[8:] + rest
    assert dissector.datagram(Frame(1, 0, RAW, first[:100], len(first))) is None
    found = dissector.datagram(Frame(2, 0, RAW, second, len(second)))
    assert found == Udp(udp.source, udp.destination, udp.payload[:72], len(udp.payload) - 72)
