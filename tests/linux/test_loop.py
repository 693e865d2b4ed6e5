"""The loop: everybody gets a turn, and nothing is forgotten."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing

import pytest

from wgpy.dataplane.loop import WRITE, Loop
from wgpy.memory.ports import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def loop(clock):
    made = Loop(clock)
    with closing(made):
        yield made


class Always:
    """A descriptor that is always ready, and how often it was served."""

    def __init__(self, loop: Loop) -> None:
        self.count = 0
        self.fd = os.eventfd(1)
        loop.watch(self.fd, self.serve)

    def serve(self) -> None:
        self.count += 1


class Alarm:
    """A deadline, and when it was handled."""

    def __init__(self, clock: ManualClock, *at: int) -> None:
        self._clock = clock
        self._at = list(at)
        self.handled = []

    def next_deadline(self) -> int | None:
        return self._at[0] if self._at else None

    def handle_deadline(self) -> None:
        self.handled.append(self._clock.monotonic())
        self._at.pop(0)


def test_busy_descriptors_get_the_same_number_of_turns(loop):
    busy = [Always(loop) for _ in range(5)]
    for _ in range(100):
        loop.turn(0)
    assert {each.count for each in busy} == {100}


def test_deadlines_and_calls_do_not_starve_beside_a_busy_descriptor(loop, clock):
    busy = Always(loop)
    alarm = Alarm(clock, 10, 20)
    loop.add_timed(alarm)
    called = []
    loop.call(lambda: called.append(busy.count))
    for _ in range(3):
        clock.advance(10)
        loop.turn(0)
    assert alarm.handled == [10, 20]
    assert called and called[0] <= 1


def test_a_deadline_is_never_handled_early(loop, clock):
    alarm = Alarm(clock, 1_000_000)
    loop.add_timed(alarm)
    loop.turn(0)
    clock.advance(999_999)
    loop.turn(0)
    assert alarm.handled == []
    clock.advance(1)
    loop.turn(0)
    assert alarm.handled == [1_000_000]


def test_calls_from_another_thread_wake_the_loop_and_keep_their_order(loop):
    called = []

    def caller() -> None:
        for number in range(1000):
            loop.call(lambda n=number: called.append(n))
        loop.call(loop.stop)

    thread = threading.Thread(target=caller)
    thread.start()
    loop.run()
    thread.join()
    assert called == list(range(1000))


def test_a_call_that_calls_again_does_not_hold_the_loop(loop):
    rounds = []

    def again() -> None:
        rounds.append(1)
        loop.call(again)

    loop.call(again)
    for _ in range(5):
        loop.turn(0)
    assert len(rounds) == 5


def test_what_an_earlier_callback_unwatched_is_not_called(loop):
    called = []
    fds = [os.eventfd(1) for _ in range(2)]

    def serve(own: int, other: int) -> None:
        called.append(own)
        loop.unwatch(other)

    loop.watch(fds[0], lambda: serve(fds[0], fds[1]))
    loop.watch(fds[1], lambda: serve(fds[1], fds[0]))
    loop.turn(0)
    assert len(called) == 1


def test_watch_again_replaces_and_unwatch_of_a_stranger_is_nothing(loop):
    left, right = socket.socketpair()
    with closing(left), closing(right):
        called = []
        loop.watch(left.fileno(), lambda: called.append("read"))
        loop.watch(left.fileno(), lambda: called.append("write"), WRITE)
        loop.turn(0)
        assert called == ["write"]
        loop.unwatch(left.fileno())
        loop.unwatch(left.fileno())
        loop.turn(0)
        assert called == ["write"]


def test_stop_ends_the_round(loop):
    calls = []
    for fd in (os.eventfd(1), os.eventfd(1)):
        loop.watch(fd, lambda: (calls.append(1), loop.stop()))
    loop.run()
    assert len(calls) == 1
