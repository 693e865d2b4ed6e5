"""What may be a flood is read in a share of the time, and a peer now and then at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from wgpy.dataplane.interface import Interface
from wgpy.dataplane.spare import PART, SAVED_AT_MOST, SpareReader
from wgpy.memory.ports import ManualClock, MemoryTun, Network
from wgpy.protocol.constants import MS


class Watching:
    """A loop that only remembers what is watched."""

    def __init__(self) -> None:
        self.callbacks = {}
        self.timed = []

    def watch(self, fd, callback):
        self.callbacks[fd] = callback

    def unwatch(self, fd):
        self.callbacks.pop(fd, None)

    def add_timed(self, timed):
        self.timed.append(timed)


class Desk:
    """A reader of descriptors 7 and 8, each read of which takes `cost` ns."""

    def __init__(self, cost: int) -> None:
        self.clock, self.loop, self.cost, self.reads = ManualClock(), Watching(), cost, []
        self.pauses = []
        self.reader = SpareReader(
            self.loop, self.clock, self.read, lambda: self.pauses.append(self.clock.monotonic())
        )
        self.reader.watch((7, 8))

    def read(self, fd: int) -> None:
        self.reads.append(fd)
        self.clock.advance(self.cost)

    def flood(self, duration: int) -> int:
        """Read whenever it is watched for `duration` ns; the ns that went into reading."""
        end, before = self.clock.monotonic() + duration, len(self.reads)
        while self.clock.monotonic() < end:
            due = self.reader.next_deadline()
            if due is not None and due <= self.clock.monotonic():
                self.reader.handle_deadline()
            if 7 in self.loop.callbacks:
                self.loop.callbacks[7]()
            else:
                self.clock.advance(MS // 10)
        return (len(self.reads) - before) * self.cost


@pytest.mark.parametrize("cost", [MS // 50, MS // 2, 25 * MS])
def test_a_flood_gets_its_part_of_the_time(cost):
    duration = 4000 * MS
    took = Desk(cost).flood(duration)
    assert duration / PART * 0.8 < took <= duration / PART + SAVED_AT_MOST + cost


def test_a_handshake_now_and_then_never_waits():
    desk = Desk(MS // 10)
    for _ in range(1000):
        desk.loop.callbacks[8]()
        desk.clock.advance(MS)
    assert desk.reader.next_deadline() is None
    assert desk.reads == [8] * 1000


def test_while_it_looks_away_new_descriptors_wait_too_and_old_ones_are_forgotten():
    desk = Desk(2 * SAVED_AT_MOST)
    desk.loop.callbacks[7]()
    assert desk.loop.callbacks == {}
    desk.reader.watch((9,))
    assert desk.loop.callbacks == {}
    desk.reader.handle_deadline()
    assert list(desk.loop.callbacks) == [9]
    assert len(desk.pauses) == 1
    desk.reader.unwatch()
    assert desk.loop.callbacks == {}


def test_what_waits_says_whether_we_are_under_load(monkeypatch):
    """The kernel's rule: an eighth of the queue."""
    clock, loop = ManualClock(), Watching()
    pressed = []
    udp = Network().host("192.0.2.1").udp()
    engine = SimpleNamespace(
        press=lambda now: pressed.append(now), set_up=lambda *_, **__: None
    )
    interface = Interface(engine, MemoryTun("wg0"), udp, clock, loop)
    for backlog, expected in ((0.1, 0), (1 / 8, 1), (1.0, 2)):
        monkeypatch.setattr(udp, "handshake_backlog", lambda b=backlog: b)
        interface._handshakes_wait()
        assert len(pressed) == expected
