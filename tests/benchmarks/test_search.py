"""The search for the highest rate with at most 1 % loss, on links with known limits."""

from __future__ import annotations

import pytest

from benchmarks import loads
from benchmarks.iperf import Udp
from benchmarks.lab import End, Lab
from benchmarks.loads import LOSS_LIMIT, highest_rate
from testbed.namespaces import Namespace


class Link:
    """Loses what is above `capacity`; the sender cannot offer more than `offer`."""

    def __init__(self, capacity: float, offer: float, overload: float) -> None:
        self.capacity, self.offer, self.overload = capacity, offer, overload
        self.asked: list[float] = []

    def trial(self, rate: float) -> Udp:
        self.asked.append(rate)
        sent = min(rate or self.offer, self.offer)
        # A flooded receiver does worse than one at its limit: the usual collapse.
        got = sent if sent <= self.capacity else min(self.capacity, self.overload)
        return Udp(1.0, round(sent), round(sent - got))


@pytest.mark.parametrize("capacity", [900, 50_000, 81_000, 300_000])
@pytest.mark.parametrize("collapse", [0.3, 1.0])
def test_it_finds_the_capacity(capacity: float, collapse: float) -> None:
    link = Link(capacity, offer=1_000_000, overload=capacity * collapse)
    best = highest_rate(link.trial, 16)
    assert best is not None
    assert best.loss <= LOSS_LIMIT
    assert capacity * 0.9 <= best.rate <= capacity


def test_a_link_faster_than_the_sender_needs_one_trial() -> None:
    link = Link(capacity=1e9, offer=250_000, overload=1e9)
    best = highest_rate(link.trial, 12)
    assert best is not None and best.rate == 250_000
    assert link.asked == [0]


def test_a_dead_link_has_no_rate() -> None:
    link = Link(capacity=0, offer=1000, overload=0)
    assert highest_rate(link.trial, 6) is None
    assert len(link.asked) == 6


def test_one_hiccup_does_not_decide() -> None:
    link = Link(50_000, offer=1_000_000, overload=30_000)

    def trial(rate: float) -> Udp:
        first = bool(rate) and rate not in link.asked
        result = link.trial(rate)
        return Udp(1.0, result.sent, result.sent // 2) if first else result

    best = highest_rate(trial, 24)
    assert best is not None and 45_000 <= best.rate <= 50_000


def test_no_rate_is_a_failure_and_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Link(capacity=0, offer=1000, overload=0)
    monkeypatch.setattr(loads.iperf, "udp", lambda *_, rate, **__: dead.trial(rate))
    lab = Lab(*(End(Namespace("", 0, 0, 0), "", "", "", "") for _ in range(2)))
    with pytest.raises(loads.iperf.IperfError, match="in each of 3 trials"):
        loads.udp_highest(lab, loads.Effort(1, 3, 1, 1), size=64)
