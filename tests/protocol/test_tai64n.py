"""TAI64N: layout, granularity, and growth whatever the wall clock does (§5.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.constants import NS
from wgpy.protocol.tai64n import GRAIN, TimestampSource, decode, encode


def test_known_value() -> None:
    """2^62 + 10 seconds of offset, big-endian, low 24 bits of the nanoseconds zero."""
    assert encode(0).hex() == "400000000000000a00000000"
    assert encode(1_500_000_000 * NS + 999_999_999).hex() == "4000000059682f0a3b000000"


@given(st.integers(0, 2**62))
def test_decodes_to_the_grain(wall: int) -> None:
    stamp = encode(wall)
    assert len(stamp) == 12
    assert 0 <= wall - decode(stamp) < GRAIN
    assert stamp[9:] == bytes(3)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_bytes_compare_as_time(a: int, b: int) -> None:
    if a < b:
        assert encode(a) <= encode(b)


@given(
    st.integers(0, 2**61),
    st.lists(st.tuples(st.integers(0, 100 * NS), st.integers(-(10**15), 10**15)), max_size=30),
)
def test_issued_stamps_strictly_grow(wall: int, steps: list[tuple[int, int]]) -> None:
    """Same instant, stepped back, stepped forward: always greater than all before."""
    now, source = 0, TimestampSource(now=0, wall=wall)
    last = b""
    for pause, step in steps:
        now += pause
        if step % 3 == 0:
            source.anchor(now=now, wall=max(0, source.wall(now) + step))
        stamp = source.issue(now)
        assert stamp > last
        last = stamp


def test_a_clock_before_1970_does_no_harm() -> None:
    source = TimestampSource(now=10**18, wall=0)
    source.anchor(now=10**18, wall=-5 * NS)
    assert source.wall(10**18) == 0
    assert source.issue(10**18) == encode(0)
