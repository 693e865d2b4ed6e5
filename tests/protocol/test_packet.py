"""Reading inner packets, and padding (§5.4.6)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.packet import padded_size, read_addresses
from wgpy.sim.ping import Echo, checksum, parse

FOUR = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
SIX = (bytes(15) + b"\1", bytes(15) + b"\2")


@given(st.sampled_from([FOUR, SIX]), st.binary(max_size=100), st.binary(max_size=40))
def test_addresses_and_length(pair: tuple[bytes, bytes], payload: bytes, padding: bytes) -> None:
    packet = Echo(*pair, 7, False, payload).encode()
    assert read_addresses(packet + padding) == (*pair, len(packet))
    assert parse(packet) == Echo(*pair, 7, False, payload)
    assert read_addresses(packet[:-1]) is None


@given(st.sampled_from([FOUR, SIX]), st.binary(max_size=64), st.integers(0, 65535))
def test_echo_checksums_hold(pair: tuple[bytes, bytes], payload: bytes, sequence: int) -> None:
    packet = Echo(*pair, sequence, False, payload).encode()
    if len(pair[0]) == 4:
        assert checksum(packet[:20]) == 0
        assert checksum(packet[20:]) == 0
    else:
        icmp = packet[40:]
        pseudo = pair[0] + pair[1] + len(icmp).to_bytes(4) + (58).to_bytes(4)
        assert checksum(pseudo + icmp) == 0


@given(st.binary(max_size=80))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    found = read_addresses(data)
    if found is not None:
        assert data[0] >> 4 in (4, 6)
        assert 20 <= found.total_length <= len(data)


def test_a_header_that_claims_less_than_itself_is_malformed() -> None:
    good = bytearray(Echo(*FOUR, 0, False, b"").encode())
    for claim in (0, 19):
        good[2:4] = claim.to_bytes(2)
        assert read_addresses(good) is None
    good[2:4] = (28).to_bytes(2)
    good[0] = 0x44  # four words of header
    assert read_addresses(good) is None
    good[0] = 0x4F  # fifteen words in a packet of seven
    assert read_addresses(good) is None


@given(st.integers(0, 9000), st.integers(0, 9000))
def test_padding(size: int, mtu: int) -> None:
    padded = padded_size(size, mtu)
    assert size <= padded < size + 16
    if 0 < size <= mtu:
        assert padded <= mtu
        assert padded % 16 == 0 or padded == mtu
    if mtu == 0:
        assert padded % 16 == 0


def test_padding_at_the_edge() -> None:
    assert [padded_size(n, 1420) for n in (0, 1, 16, 17, 1408, 1409, 1420)] == [
        0, 16, 16, 32, 1408, 1420, 1420,
    ]  # fmt: skip
    assert padded_size(1299, 1299) == 1299
