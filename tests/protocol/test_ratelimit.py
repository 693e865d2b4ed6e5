"""Token buckets per source, and the meter that says "under load"."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.constants import MS, NS
from wgpy.protocol.ratelimit import PRESSING, LoadMeter, RateLimiter, ReplyLimiter

HOST = bytes([192, 0, 2, 1])
OTHER = bytes([192, 0, 2, 2])


def test_five_at_once_then_twenty_a_second() -> None:
    limiter = RateLimiter(20, 5)
    assert [limiter.allow(HOST, 0) for _ in range(8)] == [True] * 5 + [False] * 3
    assert not limiter.allow(HOST, 50 * MS - 1)
    assert limiter.allow(HOST, 50 * MS)
    served = sum(limiter.allow(HOST, 50 * MS + n * MS) for n in range(1, 1001))
    assert served == 20


def test_sources_do_not_disturb_each_other() -> None:
    limiter = RateLimiter(20, 5)
    while limiter.allow(HOST, 0):
        pass
    assert limiter.allow(OTHER, 0)


def test_an_ipv6_source_is_its_slash_64() -> None:
    limiter = RateLimiter(20, 5)
    network = bytes.fromhex("20010db8000000aa")
    hosts = [network + number.to_bytes(8) for number in range(10)]
    assert sum(limiter.allow(host, 0) for host in hosts) == 5
    assert limiter.allow(bytes.fromhex("20010db8000000ab") + bytes(8), 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300 * MS)), max_size=200))
def test_never_more_than_burst_and_rate(calls: list[tuple[int, int]]) -> None:
    limiter = RateLimiter(20, 5)
    now = 0
    allowed: Counter[int] = Counter()
    for source, pause in calls:
        now += pause
        allowed[source] += limiter.allow(bytes([192, 0, 2, source]), now)
        assert allowed[source] <= 5 + now * 20 / NS


def test_forgets_sources_that_are_quiet() -> None:
    limiter = RateLimiter(20, 5)
    for number in range(5000):
        limiter.allow(number.to_bytes(4), number * 10 * MS)
    assert len(limiter) < 200


def test_replies_are_bounded_for_one_source_and_for_all() -> None:
    replies = ReplyLimiter(10, 25)
    assert sum(replies.allow(HOST, 0) for _ in range(100)) == 10
    forged = [bytes([10, 0, n, 1]) for n in range(256)]
    assert sum(replies.allow(source, 0) for source in forged) == 15
    assert len(replies) <= 25 + 1, "what the common bound refuses is not remembered"
    assert not replies.allow(OTHER, NS // 25 - 1)
    assert sum(replies.allow(OTHER, NS // 25) for _ in range(9)) == 1


def test_one_source_does_not_use_up_the_replies_of_all() -> None:
    replies = ReplyLimiter(10, 25)
    for _ in range(1000):
        replies.allow(HOST, 0)
    assert sum(replies.allow(OTHER, 0) for _ in range(100)) == 10


def test_who_sees_the_queue_may_say_that_we_are_under_load() -> None:
    meter = LoadMeter(128, 1000, NS)
    for now, count in ((0, PRESSING - 1), (9 * NS, PRESSING)):  # One less: garbage fills it.
        assert not any(meter.note(now) for _ in range(count))
        meter.press(now)
        assert meter.note(now + NS) is (count == PRESSING)
        meter.press(now + NS)
    assert not meter.note(10 * NS + 1)


def test_load_begins_at_the_backlog_and_holds() -> None:
    meter = LoadMeter(128, 1000, NS)
    notes = [meter.note(0) for _ in range(200)]
    assert notes == [False] * 127 + [True] * 73
    assert meter.note(NS)
    assert not meter.note(3 * NS)


def test_a_steady_trickle_is_no_load() -> None:
    meter = LoadMeter(128, 1000, NS)
    assert not any(meter.note(n * 2 * MS) for n in range(5000))


def test_load_ends_soon_after_the_pressure() -> None:
    """However hard it was: within the hold and what the capped level takes to drain."""
    meter = LoadMeter(128, 1000, NS)
    for n in range(100_000):
        meter.note(n * MS // 100)
    end = 100_000 * MS // 100
    assert not meter.note(end + NS + 2 * 128 * MS + MS)


def test_a_backlog_of_nothing_is_always_load() -> None:
    meter = LoadMeter(0, 1000, NS)
    assert all(meter.note(n * 60 * NS) for n in range(5))
