"""The benchmarks that need no network: they measure work that was really done."""

from __future__ import annotations

import pytest

from benchmarks import micro, pipeline, scale
from benchmarks.cpu_time import Lost, cost
from benchmarks.harness import TUNNEL_ADDRESS, Hub, packet
from benchmarks.micro_cases import Case, cases
from wgpy.protocol.packet import read_addresses


def test_a_path_that_drops_is_not_measured() -> None:
    with pytest.raises(Lost, match="1 of 2"):
        cost(lambda: [1, 2], lambda items: len(items) - 1, 0.01)


def test_preparation_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr("time.process_time_ns", lambda: clock[0])

    def prepare() -> list[int]:
        clock[0] += 1_000_000
        return [0] * 10

    def step(items: list[int]) -> int:
        clock[0] += 50
        return len(items)

    assert cost(prepare, step, 1e-6) == pytest.approx(5e-9)


def test_a_hub_talks_to_all_of_its_members() -> None:
    hub = Hub(5)
    hub.establish()
    hub.engine.send(
        [packet(TUNNEL_ADDRESS, m.address, 100) for m in hub.members], now=hub.clock.now
    )
    sent = hub.engine.pull_datagrams()
    assert [d.endpoint.ip for d in sent] == [m.endpoint.ip for m in hub.members]
    assert not hub.engine.drops


def test_packets_are_what_they_say() -> None:
    made = packet(TUNNEL_ADDRESS, bytes([10, 64, 0, 9]), 576)
    found = read_addresses(made)
    assert found is not None and found.destination == bytes([10, 64, 0, 9])
    words = [int.from_bytes(made[i : i + 2]) for i in range(0, 20, 2)]
    assert sum(words) % 0xFFFF == 0 and len(made) == 576


def test_the_pipeline_measures_every_size_both_ways() -> None:
    said: list[str] = []
    found = pipeline.measure(seconds=0.002, repetitions=1, said=lambda what, *_: said.append(what))
    figures = found.figures()
    for size in pipeline.SIZES:
        for way in ("send", "receive"):
            assert figures[f"{way}-{size}.packets"] == "1/s"
            assert figures[f"{way}-{size}.bytes"] == "B/s"
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
