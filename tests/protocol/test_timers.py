"""Every deadline of §6: when it is set, moved and cleared, and its reason for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.constants import DEFAULT_PARAMETERS, MS, NS
from wgpy.protocol.timers import Timer, Timers


@pytest.fixture
def timers() -> Timers:
    return Timers(DEFAULT_PARAMETERS)


def pending(timers: Timers) -> dict[Timer, int]:
    return dict(timers._at)


def test_numbers_of_the_paper() -> None:
    p = DEFAULT_PARAMETERS
    assert (p.rekey_after_messages, p.reject_after_messages) == (2**60, 2**64 - 2**13 - 1)
    seconds = [p.rekey_after_time, p.reject_after_time, p.rekey_attempt_time, p.rekey_timeout,
               p.keepalive_timeout, p.receive_rekey_time, p.zero_after_time, p.dead_peer_time,
               p.cookie_lifetime]  # fmt: skip
    assert [s // NS for s in seconds] == [120, 180, 90, 5, 10, 165, 540, 15, 120]


def test_nothing_to_do_at_first(timers: Timers) -> None:
    assert timers.earliest() is None and timers.earliest_at() is None
    assert timers.due(10**20) == []


def test_keepalive_answers_data_once(timers: Timers) -> None:
    """§6.5: ten seconds after the first data that nobody answered; more data does not delay it."""
    timers.data_received(0)
    timers.data_received(9 * NS)
    assert pending(timers) == {Timer.KEEPALIVE: 10 * NS}
    timers.authenticated_sent(9 * NS)
    assert not timers.is_set(Timer.KEEPALIVE)


def test_a_received_keepalive_sets_nothing(timers: Timers) -> None:
    timers.authenticated_received(0)
    assert pending(timers) == {}


def test_silence_after_our_data(timers: Timers) -> None:
    """§6.5: fifteen seconds after the first data without an answer."""
    timers.data_sent(0, 100 * MS)
    timers.data_sent(14 * NS, 200 * MS)
    assert pending(timers) == {Timer.NEW_HANDSHAKE: 15 * NS + 100 * MS}
    timers.authenticated_received(14 * NS)
    assert pending(timers) == {}


def test_retry(timers: Timers) -> None:
    """§6.4: five seconds and the jitter after each initiation."""
    timers.handshake_initiated(0, 333 * MS)
    assert pending(timers) == {Timer.RETRY_HANDSHAKE: 5 * NS + 333 * MS}
    timers.handshake_initiated(6 * NS, 0)
    assert pending(timers) == {Timer.RETRY_HANDSHAKE: 11 * NS}
    timers.handshake_complete()
    assert pending(timers) == {}


def test_zeroing_starts_anew_with_each_session(timers: Timers) -> None:
    timers.session_derived(0)
    timers.session_derived(100 * NS)
    assert pending(timers) == {Timer.ZERO_KEYS: 640 * NS}
    timers.handshake_given_up(200 * NS)
    assert pending(timers) == {Timer.ZERO_KEYS: 640 * NS}


def test_giving_up_owes_nothing(timers: Timers) -> None:
    timers.data_received(0)
    timers.handshake_given_up(5 * NS)
    assert pending(timers) == {Timer.ZERO_KEYS: 545 * NS}


def test_persistent_keepalive_restarts_with_any_packet(timers: Timers) -> None:
    timers.set_persistent(25, 0)
    assert pending(timers) == {Timer.PERSISTENT_KEEPALIVE: 25 * NS}
    timers.authenticated_sent(10 * NS)
    timers.authenticated_received(20 * NS)
    assert pending(timers) == {Timer.PERSISTENT_KEEPALIVE: 45 * NS}
    timers.set_persistent(0, 20 * NS)
    timers.authenticated_sent(21 * NS)
    assert pending(timers) == {}


def test_due_in_order_and_only_once(timers: Timers) -> None:
    timers.data_sent(0, 0)
    timers.data_received(0)
    timers.session_derived(0)
    timers.handshake_initiated(0, 0)
    reasons = []
    while (deadline := timers.earliest()) is not None:
        assert timers.due(deadline.at - 1) == []
        (timer,) = timers.due(deadline.at)
        assert deadline.reason == timer.value
        reasons.append(timer)
    assert reasons == [
        Timer.RETRY_HANDSHAKE, Timer.KEEPALIVE, Timer.NEW_HANDSHAKE, Timer.ZERO_KEYS,
    ]  # fmt: skip


def happen(timers: Timers, action: int, now: int) -> None:
    """One of the eight things that timers are told."""
    [
        lambda: timers.data_sent(now, 0),
        lambda: timers.data_received(now),
        lambda: timers.authenticated_sent(now),
        lambda: timers.authenticated_received(now),
        lambda: timers.handshake_initiated(now, 0),
        timers.handshake_complete,
        lambda: timers.handshake_given_up(now),
        lambda: timers.session_derived(now),
    ][action]()


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 60 * NS)), max_size=40))
def test_no_deadline_is_ever_set_in_the_past(steps: list[tuple[int, int]]) -> None:
    timers = Timers(DEFAULT_PARAMETERS)
    timers.persistent_interval = 25
    now = 0
    for action, pause in steps:
        now += pause
        timers.due(now)
        before = pending(timers)
        happen(timers, action, now)
        assert all(at > now for timer, at in pending(timers).items() if before.get(timer) != at)
        earliest = timers.earliest_at()
        assert earliest == (min(pending(timers).values()) if pending(timers) else None)


def test_every_timer_says_why() -> None:
    assert all(len(timer.value) > 20 for timer in Timer)
