"""Property test: two engines, any order of events, and what must never happen.

Invariants (checked in `machine.Pair` after every step): nothing is delivered twice, no
nonce is used twice, the inner source is always allowed, a refused message changes nothing
but counters, no deadline is left in the past, memory stays bounded, initiations keep
their distance, and when everything heals traffic flows again.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.state.machine import ADMINISTRATION, Flight, Pair, Side
from wgpy.protocol.constants import MS, NS
from wgpy.protocol.endpoint import Endpoint

SIDE = st.integers(0, 1)
PICK = st.integers(0, 2**16)
PAUSE = st.sampled_from(
    [0, 1, MS, 19 * MS, 20 * MS, 333 * MS, NS, 5 * NS, 10 * NS, 15 * NS, 90 * NS, 119 * NS,
     120 * NS, 165 * NS, 179 * NS, 180 * NS, 540 * NS, 4000 * NS]
)  # fmt: skip


class TwoEngines(RuleBasedStateMachine):
    """The rules; each is one thing that can happen."""

    pair: Pair

    @initialize(
        seed=st.integers(0, 3),
        talking=st.booleans(),
        batched=st.sampled_from([(False, False), (True, True), (True, False)]),
    )
    def begin(self, seed: int, talking: bool, batched: tuple[bool, bool]) -> None:
        self.pair = Pair(seed, batched)
        if talking:
            self.pair.send(self.side(0))
            self.pair.settle()

    def side(self, number: int) -> Side:
        return self.pair.sides[number]

    def take(self, pick: int, *, keep: bool = False) -> Flight:
        index = pick % len(self.pair.flying)
        return self.pair.flying[index] if keep else self.pair.flying.pop(index)

    @rule(side=SIDE, size=st.integers(0, 40), count=st.sampled_from([1, 1, 1, 5, 25]))
    def send(self, side: int, size: int, count: int) -> None:
        self.pair.send(self.side(side), size=size, count=count)

    @rule(side=SIDE)
    def send_with_a_foreign_source(self, side: int) -> None:
        self.pair.send(self.side(side), spoof=True)

    @precondition(lambda self: self.pair.flying)
    @rule()
    def deliver_the_oldest(self) -> None:
        self.pair.arrive(self.take(0))

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK, count=st.integers(2, 8), shuffled=st.randoms(use_true_random=False))
    def deliver_some_at_once(self, pick: int, count: int, shuffled: Random) -> None:
        """What a receiver finds waiting: in any order, perhaps one of them twice."""
        taken = [self.take(pick) for _ in range(min(count, len(self.pair.flying)))]
        taken.append(taken[0])
        shuffled.shuffle(taken)
        self.pair.arrive(*taken)

    @precondition(lambda self: self.pair.flying)
    @rule()
    def deliver_everything(self) -> None:
        self.pair.settle()

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK)
    def deliver_out_of_order(self, pick: int) -> None:
        self.pair.arrive(self.take(pick))

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        self.take(pick)

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK)
    def duplicate(self, pick: int) -> None:
        self.pair.flying.append(self.take(pick, keep=True))

    @precondition(lambda self: self.pair.history)
    @rule(age=st.integers(1, 40), count=st.integers(1, 12), stolen=st.booleans())
    def replay(self, age: int, count: int, stolen: bool) -> None:
        old = self.pair.history[-age:][:count]
        if stolen:
            thief = Endpoint(bytes([203, 0, 113, 7]), 7)
            old = [replace(flight, source=thief) for flight in old]
        self.pair.arrive(*old)

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK, bit=PICK)
    def corrupt(self, pick: int, bit: int) -> None:
        flight = self.take(pick)
        data = bytearray(flight.data)
        bit %= len(data) * 8
        data[bit // 8] ^= 1 << bit % 8
        self.pair.arrive(replace(flight, data=bytes(data)))

    @precondition(lambda self: self.pair.flying)
    @rule(pick=PICK)
    def reflect(self, pick: int) -> None:
        flight = self.take(pick)
        self.pair.arrive(replace(flight, source=flight.destination, destination=flight.source))

    @rule(side=SIDE, data=st.binary(max_size=160))
    def garbage(self, side: int, data: bytes) -> None:
        self.pair.arrive(Flight(data, Endpoint(bytes(4), 9), self.side(side).address))

    @rule(pause=PAUSE, asleep=st.booleans())
    def advance_time(self, pause: int, asleep: bool) -> None:
        if asleep:
            self.pair.jump(pause)
        else:
            self.pair.advance(pause)

    @rule(side=SIDE)
    def rekey(self, side: int) -> None:
        self.pair.advance(121 * NS)
        self.pair.send(self.side(side))
        self.pair.settle()

    @rule(side=SIDE, step=st.integers(-(10**12), 10**12))
    def step_the_wall_clock(self, side: int, step: int) -> None:
        wall = max(0, self.pair.wall + step)
        self.side(side).engine.set_wall_clock(now=self.pair.now, wall=wall)

    @rule(side=SIDE, port=st.integers(1024, 1030))
    def roam(self, side: int, port: int) -> None:
        old = self.side(side).address
        self.side(side).address = Endpoint(old.ip, port)

    # One rule for everything an administrator does, or nothing would ever stay set up.
    @rule(side=SIDE, action=st.sampled_from(ADMINISTRATION))
    def administer(self, side: int, action: str) -> None:
        self.pair.administer(self.side(side), action)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.heal()


TwoEngines.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestTwoEngines: Any = TwoEngines.TestCase
