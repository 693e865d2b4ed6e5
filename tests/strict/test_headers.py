"""TCP ports out of raw packets: read through every header, and never guessed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)

from strict.headers import tcp_ports
from tests.strict.helpers import tcp

PORTS = (40000, 2379)


def test_plain() -> None:
    assert tcp_ports(bytes(IP() / TCP(sport=1, dport=2))) == (1, 2)
    assert tcp_ports(bytes(IPv6() / TCP(sport=1, dport=2, options=[("MSS", 1)]))) == (1, 2)
    assert tcp_ports(tcp("10.0.0.1", "10.0.0.2", *PORTS) + b"\0" * 7) == PORTS, "padding behind"


@pytest.mark.parametrize(
    ("extension", "readable"),
    [
        (IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]), True),
        (IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]), True),
        (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(), True),
        (IPv6ExtHdrFragment(offset=0, m=1), True),
        (IPv6ExtHdrFragment(offset=1, m=0), False),
        (IPv6ExtHdrRouting(segleft=0, addresses=["::1"]), True),
        (IPv6ExtHdrRouting(segleft=1, addresses=["::1"]), False),
    ],
)
def test_extension_headers(extension: IPv6, readable: bool) -> None:
    made = bytes(IPv6() / extension / TCP(sport=40000, dport=2379))
    assert tcp_ports(made) == (PORTS if readable else None)


def test_an_authentication_header() -> None:
    inner = bytes(IPv6() / TCP(sport=40000, dport=2379))[40:]
    header = struct.pack(">BBHII", 6, 4, 0, 1, 1) + bytes(12)
    made = bytes(IPv6(nh=51, plen=len(header + inner))) + header + inner
    assert tcp_ports(made) == PORTS
    assert tcp_ports(bytes(IPv6(nh=50, plen=20)) + bytes(20)) is None, "ESP hides it"


@pytest.mark.parametrize("form", ["10.0.0.{}", "fd00::{}"])
def test_every_way_of_being_cut_off(form: str) -> None:
    made = tcp(form.format(1), form.format(2), *PORTS)
    for size in range(len(made)):
        assert tcp_ports(made[:size]) is None
    wrong = bytearray(made)
    wrong[-8] = 4 << 4  # the TCP header says it has 16 bytes
    assert tcp_ports(bytes(wrong)) is None
    wrong[-8] = 15 << 4  # or more than there are
    assert tcp_ports(bytes(wrong)) is None


bases = st.sampled_from([
    tcp("10.0.0.1", "10.0.0.2", *PORTS, options=b"\x07\x07\x04\x00\x00\x00\x00\x00"),
    tcp("fd00::1", "fd00::2", *PORTS),
    bytes(IPv6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment() / TCP(sport=40000, dport=2379)),
])


@settings(max_examples=500, deadline=None)
@given(bases, st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4),
       st.integers(0, 120))
def test_bent_packets_are_answered(base: bytes, bends: list[tuple[int, int]], size: int) -> None:
    """Never an exception; and ports only where TCP's are, all of its header in the packet."""
    bent = bytearray(base)
    for at, value in bends:
        bent[at % len(bent)] = value
    found = tcp_ports(bytes(bent[:size]))
    if found is not None:
        assert struct.pack(">HH", *found) in bent[:size]
        assert bent[0] >> 4 in (4, 6) and size >= 40
        if bent[0] >> 4 == 4:
            header = (bent[0] & 15) * 4
            assert bent[9] == 6 and not (bent[6] << 8 | bent[7]) & 0x1FFF
            assert found == struct.unpack_from(">HH", bent, header)
            assert header + (bent[header + 12] >> 4) * 4 <= size


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_noise(noise: bytes) -> None:
    tcp_ports(noise)
    tcp_ports(b"\x45" + noise)
    tcp_ports(b"\x60" + noise)
