"""The loop: everybody gets a turn, and nothing is forgotten."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing

import pytest

from wgpy.dataplane.loop import LOOK_AGAIN, MAX_LOOKS, MEMORY, WRITE, Loop
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


def test_a_number_that_is_used_again_before_it_was_unwatched(loop):
    """Somebody closed a watched descriptor; the next one to get its number is served."""
    called = []
    old = os.eventfd(0)
    loop.watch(old, lambda: called.append("old"))
    os.close(old)
    assert os.eventfd(1) == old
    loop.watch(old, lambda: called.append("new"))
    loop.turn(0)
    assert called == ["new"]
    loop.unwatch(old)
    os.close(old)


def test_a_descriptor_that_stayed_in_epoll_is_taken_over(loop):
    called = []
    fd = os.eventfd(1)
    loop._epoll.register(fd)
    loop.watch(fd, lambda: called.append(fd))
    loop.turn(0)
    assert called == [fd]


def test_release_unwatches_before_it_closes(loop):
    """For the number is another's as soon as it is closed."""
    left, right = socket.socketpair()
    with closing(right):
        loop.watch(left.fileno(), lambda: None)
        number = left.fileno()
        loop.release(left)
        assert os.eventfd(1) == number
        called = []
        loop.watch(number, lambda: called.append(number))
        loop.turn(0)
        assert called == [number]
        loop.unwatch(number)
        os.close(number)


def test_stop_ends_the_round(loop):
    calls = []
    for fd in (os.eventfd(1), os.eventfd(1)):
        loop.watch(fd, lambda: (calls.append(1), loop.stop()))
    loop.run()
    assert len(calls) == 1


class Script:
    """In place of epoll: something is ready `wait` ns after the turn began.

    A look costs `cost` ns of the clock, a sleep what is left of the wait.
    """

    SOMETHING = ((-1, 1),)

    def __init__(self, loop: Loop, clock: ManualClock, cost: int = 1000) -> None:
        self._clock, self._cost = clock, cost
        self.wait = 0
        self.looks = self.sleeps = 0
        self._since = clock.monotonic()
        loop._epoll.close()
        loop._epoll = self

    def poll(self, limit: float | None, _: int) -> list[tuple[int, int]]:
        left = self._since + self.wait - self._clock.monotonic()
        if limit == 0:
            self.looks += 1
            self._clock.advance(self._cost)
            if left > 0:
                return []
        else:
            self.sleeps += 1
            self._clock.advance(max(left, 0))
        return list(self.SOMETHING)

    def turn(self, loop: Loop, wait: int, work: int = 0) -> tuple[int, int]:
        """A turn in which the next event comes after `wait` ns; looks and sleeps."""
        self._clock.advance(work)
        self._since, self.wait = self._clock.monotonic(), wait
        self.looks = self.sleeps = 0
        loop.turn()
        return self.looks, self.sleeps

    def close(self) -> None:
        pass


@pytest.fixture
def script(loop, clock):
    return Script(loop, clock)


SHORT = LOOK_AGAIN // 2


def converse(script, loop):
    """Short waits until they are the usual ones; the last turn's looks and sleeps."""
    for _ in range(5 * MEMORY):
        last = script.turn(loop, SHORT)
    return last


def test_an_idle_loop_looks_once_and_sleeps(loop, script):
    for _ in range(100):
        assert script.turn(loop, 1_000_000_000) == (1, 1)


def test_where_waits_are_short_the_loop_learns_not_to_sleep(loop, script):
    assert script.turn(loop, SHORT) == (1, 1)
    looks, sleeps = converse(script, loop)
    assert looks > 1 and sleeps == 0


def test_looking_again_ends_and_the_loop_sleeps(loop, clock, script):
    converse(script, loop)
    begin = clock.monotonic()
    looks, sleeps = script.turn(loop, 1_000_000_000)
    assert sleeps == 1 and 1 < looks <= LOOK_AGAIN // 1000 + 2
    assert clock.monotonic() - begin == 1_000_000_000


def test_looking_again_ends_though_the_clock_stands_still(loop, clock):
    script = Script(loop, clock, cost=0)
    for _ in range(5 * MEMORY):
        script.turn(loop, 0)
    assert script.turn(loop, 1) == (1 + MAX_LOOKS, 1)


def test_one_pause_is_forgiven_and_several_end_the_looking(loop, script):
    converse(script, loop)
    script.turn(loop, 1_000_000_000)
    assert script.turn(loop, SHORT)[1] == 0
    for _ in range(MEMORY):
        script.turn(loop, 1_000_000_000)
    assert script.turn(loop, SHORT) == (1, 1)


def test_after_long_work_the_loop_sleeps_at_once(loop, script):
    converse(script, loop)
    assert script.turn(loop, SHORT, work=LOOK_AGAIN) == (1, 1)
    assert script.turn(loop, SHORT)[1] == 0


def test_what_is_ready_at_once_counts_as_no_wait(loop, script):
    for _ in range(5 * MEMORY):
        assert script.turn(loop, 0) == (1, 0)
    assert script.turn(loop, SHORT)[1] == 0


def test_a_look_without_patience_never_waits(loop, script):
    converse(script, loop)
    script.wait = 1_000_000_000
    script.looks = 0
    loop.turn(0)
    assert (script.looks, script.sleeps) == (1, 0)
