"""The simulator's parts: clock, links, translators, and that a seed decides everything."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgpy.protocol.constants import MS, NS
from wgpy.protocol.endpoint import Endpoint
from wgpy.sim.clock import Scheduler, VirtualClock
from wgpy.sim.link import Fate, Link, Pipe
from wgpy.sim.nat import Nat
from wgpy.sim.world import SimulationError, World

OUTSIDE = bytes([203, 0, 113, 1])
INSIDE = Endpoint(bytes([192, 168, 0, 2]), 5000)
REMOTE = Endpoint(bytes([192, 0, 2, 1]), 51820)


def carried(link: Link, count: int = 2000, size: int = 100, gap: int = MS) -> list[list[Fate]]:
    pipe = Pipe(link, Random(1))
    return [[a.fate for a in pipe.carry(bytes(size), 4, n * gap)] for n in range(count)]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5)), max_size=30))
def test_actions_run_in_order_of_time_then_of_planning(plan: list[tuple[int, int]]) -> None:
    clock = VirtualClock()
    scheduler = Scheduler(clock)
    ran: list[tuple[int, int]] = []
    for number, (when, _) in enumerate(plan):
        scheduler.at(when, lambda n=number: ran.append((clock.monotonic(), n)))  # type: ignore[misc]
    scheduler.run_until(100)
    assert ran == sorted((when, number) for number, (when, _) in enumerate(plan))
    assert clock.monotonic() == 100 and len(scheduler) == 0


def test_time_never_goes_back_but_the_wall_clock_may() -> None:
    clock = VirtualClock()
    clock.advance_to(NS)
    wall = clock.wall()
    clock.step_wall(-10 * NS)
    assert (clock.monotonic(), clock.wall()) == (NS, wall - 10 * NS)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance_to(0)


def test_a_perfect_link_delivers_everything_in_order() -> None:
    assert set(map(tuple, carried(Link()))) == {(Fate.DELIVERED,)}


@pytest.mark.parametrize(
    ("link", "fate"),
    [
        (Link(loss=0.25), Fate.LOST),
        (Link(duplicate=0.25), Fate.DUPLICATED),
        (Link(reorder=0.25), Fate.HELD_BACK),
        (Link(corrupt=0.25), Fate.CORRUPTED),
    ],
)
def test_probabilities(link: Link, fate: Fate) -> None:
    seen = Counter(f for fates in carried(link) for f in fates)
    assert 400 < seen[fate] < 600


def test_corruption_flips_one_bit() -> None:
    pipe = Pipe(Link(corrupt=1), Random(1))
    for _ in range(50):
        (arrival,) = pipe.carry(bytes(64), 4, 0)
        assert sum(byte.bit_count() for byte in arrival.data) == 1


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    for link, ordered in ((Link(jitter=50 * MS), True), (Link(reorder=0.3), False)):
        pipe = Pipe(link, Random(1))
        times = [a.at for n in range(500) for a in pipe.carry(b"x", 4, n * MS) if a.at is not None]
        assert (times == sorted(times)) == ordered
        assert all(at >= n * MS + link.delay for n, at in enumerate(times))


def test_mtu_counts_the_outer_headers() -> None:
    pipe = Pipe(Link(mtu=1500), Random(1))
    fates = [next(pipe.carry(bytes(n), ip, 0)).fate for n, ip in ((1472, 4), (1473, 4), (1452, 16), (1453, 16))]  # fmt: skip  # noqa: E501
    assert fates == [Fate.DELIVERED, Fate.TOO_BIG] * 2


def test_rate_and_queue() -> None:
    """1000 bytes on the wire at 8 Mb/s take a millisecond; ten wait in the queue."""
    pipe = Pipe(Link(delay=0, rate=8_000_000, queue=10_000), Random(1))
    arrivals = [next(pipe.carry(bytes(972), 4, 0)) for _ in range(15)]
    assert [a.at for a in arrivals[:10]] == [(n + 1) * MS for n in range(10)]
    assert [a.fate for a in arrivals[10:]] == [Fate.QUEUE_FULL] * 5
    assert next(pipe.carry(bytes(972), 4, 10 * MS)).at == 11 * MS


def test_a_cut_link_delivers_nothing() -> None:
    pipe = Pipe(Link(), Random(1))
    pipe.cut = True
    assert next(pipe.carry(b"x", 4, 0)).fate is Fate.CUT


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"delay": -1}, {"mtu": 20}, {"corrupt": -0.1}])
def test_impossible_links_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "mtu" not in wrong else "MTU"):
        Link(**wrong)  # type: ignore[arg-type]


class TestNat:
    def nat(self) -> Nat:
        return Nat(OUTSIDE, Random(1), timeout=30 * NS)

    def test_answers_come_back_and_strangers_do_not(self) -> None:
        nat = self.nat()
        outside = nat.leave(INSIDE, REMOTE, 0)
        assert outside.ip == OUTSIDE
        assert nat.enter(outside.port, REMOTE, NS) == INSIDE
        for stranger in (REMOTE._replace(port=1), REMOTE._replace(ip=bytes(4))):
            assert nat.enter(outside.port, stranger, NS) is None
        assert nat.enter(outside.port ^ 1, REMOTE, NS) is None

    def test_one_port_for_one_socket_whoever_it_writes_to(self) -> None:
        nat = self.nat()
        other = REMOTE._replace(port=9)
        assert nat.leave(INSIDE, REMOTE, 0) == nat.leave(INSIDE, other, NS)
        assert nat.leave(INSIDE._replace(port=1), REMOTE, 0) != nat.leave(INSIDE, REMOTE, 0)

    def test_only_outgoing_traffic_keeps_a_mapping(self) -> None:
        nat = self.nat()
        port = nat.leave(INSIDE, REMOTE, 0).port
        assert nat.enter(port, REMOTE, 29 * NS) == INSIDE
        assert nat.enter(port, REMOTE, 30 * NS) is None
        assert nat.leave(INSIDE, REMOTE, 31 * NS).port != port

    def test_a_restart_changes_the_port(self) -> None:
        nat = self.nat()
        port = nat.leave(INSIDE, REMOTE, 0).port
        nat.forget()
        assert nat.enter(port, REMOTE, 0) is None


def story(seed: int) -> list[str]:
    """A lossy run with everything in it, as its time-line."""
    world = World(seed=seed)
    link = Link(loss=0.1, jitter=20 * MS, duplicate=0.1, reorder=0.1, corrupt=0.02)
    a, b = world.add("a", link=link), world.add("b", link=link)
    world.join(a, b)
    for number in range(50):
        world.at(number * 5 * NS, lambda n=number: a.ping(b, n))  # type: ignore[misc]
    world.run_for(600 * NS)
    return list(world.trace.lines())


def test_a_seed_is_a_run() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


def test_another_node_changes_nothing_for_the_others() -> None:
    def pair(extra: bool) -> list[str]:
        world = World(seed=3)
        a, b = world.add("a", link=Link(loss=0.2)), world.add("b")
        world.join(a, b)
        if extra:
            world.add("c")
        for number in range(20):
            world.at(number * NS, lambda n=number: a.ping(b, n))  # type: ignore[misc]
        world.run_for(60 * NS)
        return list(world.trace.lines())

    assert pair(False) == pair(True)


def test_names_and_addresses_are_taken_once() -> None:
    world = World()
    node = world.add("a")
    with pytest.raises(ValueError, match="already"):
        world.add("a")
    with pytest.raises(ValueError, match="taken"):
        world.add("b", address=node.address)


def test_an_engine_that_leaves_a_deadline_in_the_past_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    a, b = world.add("a"), world.add("b")
    world.join(a, b)
    a.ping(b)
    monkeypatch.setattr(a.engine, "handle_deadline", lambda **_: None)
    with pytest.raises(SimulationError, match="still due"):
        world.run_for(20 * NS)


def test_ipv6_inside_and_outside() -> None:
    world = World()
    a = world.add("a", inner=bytes(15) + b"\1", address=Endpoint(b"\xfd" + bytes(14) + b"\1", 1))
    b = world.add("b", inner=bytes(15) + b"\2", address=Endpoint(b"\xfd" + bytes(14) + b"\2", 2))
    world.join(a, b)
    a.ping(b, 5)
    world.run_for(NS)
    assert list(a.answered) == [5]


def test_nothing_secret_is_in_a_time_line() -> None:
    world = World(seed=1)
    a, b = world.add("a"), world.add("b")
    world.join(a, b)
    a.ping(b)
    world.run_for(NS)
    text = repr([e.as_json() for e in world.trace.entries])
    for node in (a, b):
        assert node.private_key.hex() not in text and node.private_key.base64 not in text
