"""The floods are what they say they are, and arrive."""

from __future__ import annotations

import hashlib
import struct

import pytest

from benchmarks import attacks
from benchmarks.floods import KINDS, flooding, recover
from benchmarks.implementations import parse
from benchmarks.lab import preferred_congestion
from benchmarks.latency import RoundTrips
from benchmarks.tunnel import tunnel

PUBLIC = bytes(range(32))
HEARD = b"\4\0\0\0" + bytes(range(100))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"none", "icmp"}))
def test_every_kind_is_what_its_name_says(kind: str) -> None:
    made = attacks.payloads(kind, PUBLIC, lambda: HEARD)
    first = {data[:4] for data, _ in made}
    sizes = {len(data) for data, _ in made}
    match kind:
        case "mac1" | "mac1-sources" | "responses":
            size, number = (92, b"\2\0\0\0") if kind == "responses" else (148, b"\1\0\0\0")
            assert sizes == {size} and first == {number}
            key = hashlib.blake2s(b"mac1----" + PUBLIC).digest()
            for data, _ in made[:20]:
                mac = hashlib.blake2s(data[:-32], key=key, digest_size=16).digest()
                assert data[-32:-16] == mac and data[-16:] == bytes(16)
        case "cookie-replies":
            assert sizes == {64} and first == {b"\3\0\0\0"}
        case "unknown-index":
            assert sizes == {32} and first == {b"\4\0\0\0"}
        case "keepalives":
            assert sizes == {32} and {data[:8] for data, _ in made} == {HEARD[:8]}
        case "replays":
            assert made == [(HEARD, b"")]
        case "tiny":
            assert max(sizes) < 4
        case "large":
            assert sizes == {65_507}
        case _:
            assert len(first) > 500
    sources = {source for _, source in made}
    assert len(sources) == (65_000 if kind == "mac1-sources" else 1)


def test_an_icmp_error_quotes_the_tunnel_and_its_checksum_is_right() -> None:
    packet = attacks.unreachable(bytes([10, 99, 0, 2]), bytes([10, 99, 0, 1]), 51820)
    assert packet[9] == 1 and packet[20:22] == b"\3\3"
    words = struct.unpack(f"!{len(packet[20:]) // 2}H", packet[20:])
    total = sum(words)
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    quoted = packet[28:]
    assert quoted[12:20] == bytes([10, 99, 0, 2, 10, 99, 0, 1])
    assert struct.unpack("!HH", quoted[20:24]) == (51820, 51820)


def test_lost_pings_count_as_the_longest() -> None:
    trips = RoundTrips(tuple(n / 1000 for n in range(100)), 0)
    assert trips.above(0.99, 5.0) == 0.099
    assert RoundTrips(trips.ordered, 2).above(0.99, 5.0) == 5.0


@pytest.mark.root
@pytest.mark.parametrize("kind", ["mac1", "mac1-sources", "icmp", "large"])
def test_a_flood_reaches_a_tunnel_that_goes_on(kind: str) -> None:
    implementation = parse("wgpy")
    with tunnel(implementation, cores=None, congestion=preferred_congestion(), mtu=1420) as lab:
        with flooding(lab, kind, 100) as sent:
            lab.left.run("ping", "-n", "-c", "2", "-i", "0.2", lab.target)
        assert sent.count > 0
        assert recover(implementation, lab) < 30
