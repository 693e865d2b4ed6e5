"""The benchmarks that need no network: they measure work that was really done."""

from __future__ import annotations

import gc
import itertools

import pytest

from benchmarks import micro, pipeline, profiling, scale
from benchmarks.cpu_time import Lost, cost, set_aside
from benchmarks.harness import TUNNEL_ADDRESS, Hub
from benchmarks.micro_cases import Case, cases
from benchmarks.packets import super_packet, udp_packet
from benchmarks.subjects import BATCH, TURBO, subjects, subjects_hub
from wgpy.memory.batch import BatchUdp
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint
from wgpy.protocol.packet import read_addresses


def test_a_path_that_drops_is_not_measured() -> None:
    with pytest.raises(Lost, match="1 of 2"):
        cost(lambda: 2, lambda: None, lambda: 1, 0.01)


def test_preparation_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr("time.process_time_ns", lambda: clock[0])

    def prepare() -> int:
        clock[0] += 1_000_000
        return 10

    def step() -> None:
        clock[0] += 50

    def came_out() -> int:
        clock[0] += 1_000_000
        return 10

    assert cost(prepare, step, came_out, 1e-6) == pytest.approx(5e-9)


def established() -> Hub:
    return subjects_hub()


def test_both_paths_do_the_whole_work() -> None:
    """The batch path really batches: one write for a TCP train, one send for a run."""
    hub = established()
    address = hub.members[0].address
    bulk = super_packet(TUNNEL_ADDRESS, address, 44, 1420)
    assert len(bulk.segments) == 44 and all(len(s) == 1420 for s in bulk.segments)
    back = super_packet(address, TUNNEL_ADDRESS, 44, 1420).segments
    for subject in subjects(hub):
        assert subject.offer_super(bulk) == 44
        subject.send()
        assert subject.came_out() == 44
        assert subject.arrive(pipeline.train(hub, back)) == 44
        subject.receive()
        assert subject.came_out() == 44
        single = [udp_packet(TUNNEL_ADDRESS, address, 100)] * 64
        assert subject.offer(single) == 64
        subject.send()
        assert subject.came_out() == 64
    assert not hub.engine.drops


def test_what_is_equal_and_from_one_source_arrives_as_a_train() -> None:
    one, other = Endpoint.parse("192.0.2.1:1"), Endpoint.parse("192.0.2.2:1")
    udp = BatchUdp()
    sizes = [(5, one)] * 70 + [(3, one), (3, one), (4, one), (4, other)]
    udp.arrive([Datagram(bytes(size), source) for size, source in sizes])
    found = [(train.size, train.stride, train.endpoint) for train in udp.waiting]
    assert found == [
        (320, 5, one), (33, 5, one), (3, 3, one), (4, 4, one), (4, 4, other),
    ]  # fmt: skip


def test_a_hub_talks_to_all_of_its_members() -> None:
    hub = Hub(5)
    hub.establish()
    hub.engine.send(
        [udp_packet(TUNNEL_ADDRESS, m.address, 100) for m in hub.members], now=hub.clock.now
    )
    sent = hub.engine.pull_datagrams()
    assert [d.endpoint.ip for d in sent] == [m.endpoint.ip for m in hub.members]
    assert not hub.engine.drops


def internet_sum(data: bytes) -> int:
    return sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2)) % 0xFFFF


def test_packets_are_what_they_say() -> None:
    made = udp_packet(TUNNEL_ADDRESS, bytes([10, 64, 0, 9]), 576)
    found = read_addresses(made)
    assert found is not None and found.destination == bytes([10, 64, 0, 9])
    assert len(made) == 576
    assert internet_sum(made[:20]) == 0
    assert internet_sum(made[12:20] + bytes([0, 17]) + made[24:26] + made[20:]) == 0


def test_the_pipeline_measures_every_size_both_ways() -> None:
    said: list[str] = []
    found = pipeline.measure(seconds=0.002, repetitions=1, said=lambda what, *_: said.append(what))
    figures = found.figures()
    for load in ("tcp", *(f"udp{size}" for size in pipeline.SIZES)):
        for way in ("send", "receive"):
            assert figures[f"{way}-{load}.packets"] == "1/s"
            assert figures[f"{way}-{load}.bytes"] == "B/s"
    assert found.implementations() == ["wgpy", "wgpy --turbo", "readable"]
    assert all(sample.value > 0 for sample in found.samples)
    assert said


def test_curves_and_rates() -> None:
    plan = scale.Plan(0.002, 1, most_peers=10, most_entries=100, handshakes=5)
    found = scale.measure(plan, lambda *_: None)
    for curve, places in (("peers", [1, 10]), ("entries", [10, 100])):
        for figure in ("per_packet", "per_packet_spread"):
            points = [s.x for s in found.samples if s.figure == f"{curve}.{figure}"]
            assert sorted(set(points)) == places
    for figure in ("handshakes.answered", "bad-mac1.refused", "cookies.given"):
        (value,) = found.values(figure, "wgpy")
        assert value > 0


def test_points_are_measured_forwards_and_backwards_path_by_path() -> None:
    def point(x: int) -> scale.Point:
        hub = Hub(0)
        return scale.Point("entries", x, hub, [], subjects(hub))

    points = [point(1), point(2), point(3)]
    for repetition, places in ((0, [1, 2, 3]), (1, [3, 2, 1]), (2, [1, 2, 3])):
        found = [(s.name, p.x) for s, p in scale.in_turn(points, repetition)]
        assert found == [(name, x) for name in ("wgpy", "readable") for x in places]


def test_what_is_set_aside_is_hidden_from_the_collector_until_the_end() -> None:
    kept: list[list[int]] = [[]]

    def seen() -> bool:
        return any(found is kept for found in gc.get_objects())

    with pytest.raises(ZeroDivisionError), set_aside():
        assert not seen()
        raise ZeroDivisionError
    assert seen()


def test_prefixes_are_distinct() -> None:
    stream = scale.prefixes_of_a_cluster()
    some = [next(stream) for _ in range(5_000)]
    assert len(set(some)) == len(some)


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_every_micro_case_runs(case: Case) -> None:
    exec(case.statement, case.make())


def test_micro_names_are_unique() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)


def test_pyperfs_file_becomes_samples() -> None:
    document = {
        "metadata": {"unit": "second"},
        "benchmarks": [
            {
                "metadata": {"name": "seal-64/openssl"},
                "runs": [{"metadata": {}}, {"values": [1.0, 3.0]}, {"values": [4.0]}],
            }
        ],
    }
    found = micro.samples(document)
    assert [(s.figure, s.implementation, s.value) for s in found] == [
        ("seal-64.time", "openssl", 2.0),
        ("seal-64.time", "openssl", 4.0),
    ]


def test_micro_runs_under_pyperf() -> None:
    found = micro.measure(quick=True, only="type-check", said=lambda _: None)
    assert {s.figure for s in found.samples} == {"type-check.time"}
    assert all(0 < s.value < 1 for s in found.samples)


def test_a_profile_adds_up_to_the_cost() -> None:
    found = profiling.measure(seconds=0.005, said=lambda *_: None)
    ways = ("send-tcp", "receive-tcp", "send-udp64", "receive-udp64")
    for way, path in itertools.product(ways, (BATCH, TURBO)):
        mine = [s for s in found.samples if s.implementation == path]
        parts = {s.figure: s.value for s in mine if s.figure.startswith(f"{way}.")}
        total = parts.pop(f"{way}.total")
        assert sum(parts.values()) == pytest.approx(total)
        assert len(parts) > 1


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("/a/egress.py", 9, "turn"), "egress.turn"),
        (("~", 0, "<method 'encrypt_into' of 'X' objects>"), "encrypt_into"),
        (("~", 0, "<built-in method builtins.len>"), "builtins.len"),
    ],
)
def test_functions_have_short_names(key: tuple[str, int, str], name: str) -> None:
    assert profiling.label(key) == name
