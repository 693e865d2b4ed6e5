"""Cutting: vectorised against the naive oracle, byte for byte."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataplane.oracle import Packet, internet_checksum
from tests.dataplane.strategies import packets
from tests.dataplane.toolbox import current, kit  # noqa: F401
from wgpy.dataplane import offload, offload_segment
from wgpy.protocol.packet import padded_size

START = 16
GSO = {(4, 6): 1, (6, 6): 4, (4, 17): 5, (6, 17): 5}


def cut_up(vnet: tuple[int, ...], packet: bytes, mtu: int, capacity: int | None = None):
    """The plaintexts, padding included, as the fast path makes them."""
    buffer = bytearray(os.urandom(START)) + packet + os.urandom(66_000)
    whole = offload.describe(memoryview(buffer)[START : START + len(packet)], vnet)
    assert whole is not None
    rows = current().slab.rows(padded_size(whole.shape.length + whole.width, mtu) + 32)
    out = []
    for cut in offload_segment.cuts(whole, capacity or rows.capacity):
        current().segmenter.segment(rows, buffer, START, whole, cut)
        out += [bytes(view) for view in rows.plaintexts[: cut.segments - 1]]
        last = padded_size(whole.shape.length + cut.last, mtu)
        out.append(bytes(rows.message(cut.segments - 1, last)[0]))
    return out


@given(packets(), st.integers(1, 1500), st.integers(1, 64), st.sampled_from((576, 1420, 9000)))
def test_segments_are_what_the_kernel_would_make(
    packet: Packet, width: int, capacity: int, mtu: int
) -> None:
    width = max(width, len(packet.payload) // 200)
    vnet, data = packet.offloaded(GSO[packet.version, packet.protocol], width)
    expected = [piece.build() for piece in packet.segments(width)]
    padded = [p.ljust(padded_size(len(p), mtu), b"\0") for p in expected]
    assert cut_up(vnet, data, mtu, capacity) == padded


def test_a_full_super_packet() -> None:
    packet = Packet(payload=os.urandom(44 * 1368 + 5), options=b"\1\1\x08\x0a" + bytes(8))
    vnet, data = packet.offloaded(1, 1368)
    expected = [piece.build() for piece in packet.segments(1368)]
    assert [p[: len(e)] for p, e in zip(cut_up(vnet, data, 1420), expected, strict=True)] == (
        expected
    )


def test_ecn_type_is_understood() -> None:
    packet = Packet(payload=bytes(3000), flags=0x90)
    vnet, data = packet.offloaded(1 | 0x80, 1000)
    assert [p[33] & 0x80 for p in cut_up(vnet, data, 1420)] == [0x80, 0, 0]


def test_a_zero_udp_checksum_is_written_as_ffff() -> None:
    """RFC 768: a computed zero is transmitted as all ones."""
    packet = Packet(protocol=17, payload=bytes(4))
    value = int.from_bytes(packet.build()[26:28], "big")
    # A payload word that makes the sum come out as zero.
    packet.payload = value.to_bytes(2, "big") + bytes(2)
    assert packet.build()[26:28] == b"\xff\xff"
    packet.payload += packet.payload
    vnet, data = packet.offloaded(5, 4)
    assert [p[26:28] for p in cut_up(vnet, data, 1420)] == [b"\xff\xff"] * 2


BASE = Packet(payload=bytes(3000))


@pytest.mark.parametrize(
    "change",
    [
        {"gso_type": 4},
        {"gso_type": 3},
        {"gso_type": 0x7F},
        {"width": 0},
        {"start": 24},
        {"start": 0},
        {"start": 65535},
        {"at": 6},
        {"size": 40},
        {"size": 30},
        {"size": 0},
    ],
)
def test_a_header_that_contradicts_the_packet_is_refused(change: dict[str, int]) -> None:
    (flags, gso_type, hint, width, start, at), data = BASE.offloaded(1, 1000)
    vnet = (
        flags,
        change.get("gso_type", gso_type),
        hint,
        change.get("width", width),
        change.get("start", start),
        change.get("at", at),
    )
    assert offload.describe(data[: change.get("size", len(data))], vnet) is None


@given(
    st.binary(min_size=20, max_size=40),
    st.tuples(*[st.integers(0, 255)] * 2, *[st.integers(0, 70)] * 4),
)
def test_any_header_is_read_or_refused_but_never_raises(
    data: bytes, vnet: tuple[int, ...]
) -> None:
    found = offload.describe(data, vnet)
    if found is not None:
        assert found.shape.length < len(data)
        assert (found.segments - 1) * found.width + found.last == len(data) - found.shape.length


@given(packets())
def test_a_lone_checksum_is_completed(packet: Packet) -> None:
    (_, _, _, _, start, at), data = packet.offloaded(0, 0)
    filled = bytearray(data)
    assert offload.complete_checksum(filled, start, at)
    assert filled == packet.build()


def test_a_checksum_outside_the_packet_is_refused() -> None:
    data = bytearray(30)
    assert not offload.complete_checksum(data, 20, 9)
    assert data == bytes(30)


@given(
    st.lists(st.binary(min_size=64, max_size=64), min_size=1, max_size=9),
    st.integers(28, 64),
    st.sampled_from((16, 6)),
)
def test_a_run_of_single_packets_is_gathered_and_completed(
    bodies: list[bytes], size: int, at: int
) -> None:
    buffer = bytearray(b"".join(b"head" + body for body in bodies))
    slab = current().tools.slab()
    slab.buffer[:] = b"\xee" * len(slab.buffer)
    rows = slab.rows((size + 15 & ~15) + 32)
    start = 8
    current().segmenter.gather(rows, buffer, 4, 68, len(bodies), size, (start, at))
    for body, view in zip(bodies, rows.plaintexts, strict=False):
        packet = body[:size]
        value = internet_checksum(packet[start:])
        if packet[start:].strip(b"\0") and (value or at == 16):
            expected = packet[: start + at] + value.to_bytes(2, "big") + packet[start + at + 2 :]
            assert bytes(view) == expected.ljust(rows.plain, b"\0")
