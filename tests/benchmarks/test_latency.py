"""Flood ping's output."""

from __future__ import annotations

import pytest

from benchmarks.latency import WARM_UP, PingError, parse


def output(times: list[str], sent: int) -> str:
    lines = [
        f"64 bytes from 10.98.0.2: icmp_seq={n} ttl=64 time={time} ms"
        for n, time in enumerate(times, start=1)
    ]
    total = f"{sent} packets transmitted, {len(times)} received, 0% packet loss, time 9ms"
    return "\n".join(["PING 10.98.0.2 56(84) bytes of data.", *lines, "", total])


def test_round_trips_are_sorted_seconds_without_the_warm_up() -> None:
    result = parse(output(["99"] * WARM_UP + ["0.300", "0.100", "0.200"], WARM_UP + 5))
    assert result.ordered == pytest.approx((1e-4, 2e-4, 3e-4))
    assert result.mean == pytest.approx(2e-4)
    assert result.lost == 2


def test_only_warm_up_is_no_result() -> None:
    with pytest.raises(PingError):
        parse(output(["0.1"] * WARM_UP, WARM_UP))


def test_unreachable_is_no_result() -> None:
    with pytest.raises(PingError, match="Unreachable"):
        parse("From 10.98.0.1 icmp_seq=1 Destination Host Unreachable\n")
