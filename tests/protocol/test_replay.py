"""The replay window: numbered one-line cases, and a naive oracle beside it.

A case is a line of counters; `+` is accepted, `!` a replay, `<` too old.  Case by case
on a window of 16, then the same edges on the real size.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.constants import DEFAULT_PARAMETERS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.replay import ReplayWindow

VERDICTS = {"+": None, "!": DropReason.REPLAYED, "<": DropReason.COUNTER_TOO_OLD}
TOP = 2**64 - 2**13 - 2  # the last counter that is ever received (§6.1)

CASES = {
    1: "0+",
    2: "0+ 0!",
    3: "0+ 1+ 2+ 3+",
    4: "0+ 1+ 1! 0!",
    5: "1+ 0+ 0! 1!",
    6: "5+ 3+ 4+ 1+ 2+ 0+",
    7: "5+ 3+ 3! 5! 4+",
    8: "15+ 0+",
    9: "16+ 0< 1+",
    10: "16+ 0< 0<",
    11: "15+ 0+ 16+ 0< 1+ 1!",
    12: "0+ 15+ 0! 16+ 0<",
    13: "100+ 84< 85+ 85!",
    14: "100+ 101+ 85< 86+",
    15: "7+ 23+ 7< 8+ 8!",
    16: "7+ 22+ 7! 23+ 7<",
    17: "0+ 31+ 15< 16+ 30+ 31!",
    18: "0+ 32+ 16< 17+",
    19: "10+ 1000+ 10< 984< 985+ 999+ 985!",
    20: "1000+ 1016+ 1000< 1001+",
    21: "1000+ 1015+ 1000! 1001+",
    22: f"0+ {2**32}+ 0< {2**32 - 15}+ {2**32 - 16}<",
    23: f"{2**32 - 1}+ {2**32}+ {2**32 - 1}! {2**32 + 1}+",
    24: f"{2**63}+ {2**63 - 1}+ {2**63}! {2**63 - 1}!",
    25: f"{TOP}+ {TOP}! {TOP - 1}+ {TOP - 15}+ {TOP - 16}<",
    26: f"0+ {TOP}+ 0<",
    27: "3+ 2+ 1+ 0+ 3! 2! 1! 0! 4+",
    28: "0+ 2+ 4+ 6+ 8+ 1+ 3+ 5+ 7+ 0! 8!",
    29: "16+ 15+ 14+ 1+ 17+ 1< 2+ 16! 14!",
    30: "20+ 19+ 35+ 19< 20! 21+",
    31: "20+ 36+ 20< 21+ 36! 37+ 21<",
    32: "0+ 16+ 32+ 48+ 33+ 32< 48! 47+",
    33: "40+ 25+ 24< 41+ 25< 26+",
    34: "9+ 9! 9! 8+ 8! 10+ 9! 10!",
    35: f"0+ 1+ {TOP}+ 1< {TOP - 1}+ {TOP - 1}!",
    36: "255+ 256+ 511+ 495< 496+ 512+ 496<",
}


@pytest.mark.parametrize("number", CASES)
def test_case(number: int) -> None:
    window = ReplayWindow(16)
    for step in CASES[number].split():
        assert window.accept(int(step[:-1])) is VERDICTS[step[-1]], step


def test_edges_of_the_real_window() -> None:
    size = DEFAULT_PARAMETERS.replay_window
    assert size == 8192
    window = ReplayWindow(size)
    assert window.accept(size) is None
    assert window.accept(1) is None
    assert window.accept(1) is DropReason.REPLAYED
    assert window.accept(0) is DropReason.COUNTER_TOO_OLD
    every_other = range(size + 2, 3 * size, 2)
    assert all(window.accept(n) is None for n in every_other)
    front = every_other[-1]
    assert all(window.accept(n) is None for n in range(front - size + 1, front, 2))
    assert window.accept(front - size) is DropReason.COUNTER_TOO_OLD


class Oracle:
    """Remembers every counter."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, set[int]()

    def accept(self, counter: int) -> DropReason | None:
        if self.seen and max(self.seen) - counter >= self.size:
            return DropReason.COUNTER_TOO_OLD
        if counter in self.seen:
            return DropReason.REPLAYED
        self.seen.add(counter)
        return None


COUNTERS = st.integers(0, 80) | st.integers(0, 2**64 - 1) | st.sampled_from([2**32, TOP])


@given(st.sampled_from([1, 2, 16, 63, 64, 65]), st.lists(COUNTERS, max_size=80))
def test_as_the_oracle(size: int, counters: list[int]) -> None:
    window, oracle = ReplayWindow(size), Oracle(size)
    for counter in counters:
        assert window.accept(counter) == oracle.accept(counter), counter


@given(
    st.sampled_from([1, 16, 64]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 80)), max_size=20),
)
def test_a_run_is_its_counters_one_by_one(size: int, runs: list[tuple[int, int]]) -> None:
    """`accept_run` either refuses and changes nothing, or does what single steps would."""
    window, single = ReplayWindow(size), ReplayWindow(size)
    for first, count in runs:
        if window.accept_run(first, count):
            assert count > 0
            assert all(single.accept(n) is None for n in range(first, first + count))
        else:
            assert count <= 0 or first <= window.greatest
        assert (window.greatest, window._bitmap) == (single.greatest, single._bitmap)
