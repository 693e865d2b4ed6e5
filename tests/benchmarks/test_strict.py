"""The cost of the strict table: curves in memory, and a table on a real tunnel."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks import strict, system
from benchmarks.cli import bench, strict_options
from benchmarks.harness import TUNNEL_ADDRESS
from benchmarks.implementations import parse
from benchmarks.lab import preferred_congestion
from benchmarks.loads import Effort
from benchmarks.model import Recording, Sample
from benchmarks.progress import Progress
from benchmarks.targets import Verdict, findings
from strict.client import StrictClient
from wgpy.protocol.endpoint import parse_address
from wgpy.protocol.policy import ENCRYPT, Action


def test_the_measured_table_lets_the_flow_through_and_stops_others() -> None:
    (point,) = strict.points(strict.Plan(most_entries=10), lambda *_: None)
    policy = point.hub.engine.policy
    assert policy.egress(TUNNEL_ADDRESS, point.hub.members[0].address, b"") == ENCRYPT
    unknown = parse_address("10.64.9.9")
    assert policy.egress(parse_address("10.64.9.8"), unknown, b"").action is Action.DROP
    assert len(point.table.ipcache) == 10


def test_curves_in_memory() -> None:
    plan = strict.Plan(0.002, 1, most_entries=100)
    recording = strict.new_recording(plan)
    strict.measure_in_memory(plan, recording, lambda *_: None)
    for figure in ("table.load", "table.memory", "path.per_packet", "flow.lookup", "table.decide"):
        places = [
            s.x for s in recording.samples if (s.figure, s.implementation) == (figure, strict.WITH)
        ]
        assert places == [10, 100], figure


def test_targets_behind_the_table() -> None:
    recording = Recording("strict", {})
    for name, value in ((strict.WITHOUT, 100.0), (strict.WITH, 96.0)):
        recording.samples.append(Sample("tcp1-up.goodput", "bit/s", name, value, "free"))
    recording.samples += [
        Sample("flow.lookup", "s", strict.WITH, 90e-9, "", 0, 10.0),
        Sample("flow.lookup", "s", strict.WITH, 120e-9, "", 0, 512_000.0),
        Sample("full-table.load", "s", strict.WITH, 4.0),
    ]
    found = {f.figure: f.verdict for f in findings([recording]) if f.target.kind == "strict"}
    assert found["tcp1-up.goodput"] is Verdict.HIT
    assert found["flow.lookup"] is Verdict.MISSED
    assert found["full-table.load"] is Verdict.HIT
    assert found["full-table.memory"] is Verdict.UNMEASURED
    assert all(
        f.verdict is Verdict.UNMEASURED for f in findings([recording]) if f.target.kind != "strict"
    )


def test_with_and_without_are_measured_side_by_side_in_turn() -> None:
    recording = strict.new_recording(strict.Plan())
    strict.measure_in_memory(strict.Plan(0.002, 2, most_entries=10), recording, lambda *_: None)
    order = [s.implementation for s in recording.samples if s.figure == "path.per_packet"]
    assert order == [strict.WITHOUT, strict.WITH, strict.WITH, strict.WITHOUT]


def test_a_curve_with_and_without_the_table_is_compared_at_its_end() -> None:
    recording = Recording("strict", {})
    for repetition in range(3):
        for name, few, many in ((strict.WITHOUT, 1.0, 2.0), (strict.WITH, 9.0, 2.08)):
            for x, value in ((10.0, few), (512_000.0, many)):
                recording.samples.append(
                    Sample("path.per_packet", "s", name, value, "", repetition, x)
                )
    (found,) = [f for f in findings([recording]) if f.figure == "path.per_packet"]
    assert found.value == pytest.approx(1.04)
    assert found.verdict is Verdict.HIT


def test_the_plan_of_a_command_line() -> None:
    full = strict_options(False, None, None, 1.0, (), None)
    assert [i.name for i in full.implementations] == [strict.WITHOUT, strict.WITH]
    assert full.passes % 2 == 0, "so that each is the first one as often as the other"
    assert full.steps == full.repetitions * full.passes * 2 * len(strict.LOADS)
    short = strict_options(False, 1, 3, 2.0, ("ping",), 1)
    assert (short.steps, short.effort.seconds, short.tries) == (6, 2.0, 1)


def test_a_wrong_load_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strict, "measure_in_memory", lambda *_: pytest.fail("too late"))
    done = CliRunner().invoke(bench, ["strict", "--no-tunnels", "--load", "tcp9"])
    assert done.exit_code == 2 and "'tcp9' is none of" in done.output


@pytest.mark.root
def test_a_tunnel_with_the_table_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is loaded before the first packet; a small one will do here."""
    seen: list[int] = []
    whole = strict.load_full_table

    def small(lab: strict.Lab, repetition: int) -> list[Sample]:
        samples = whole(lab, repetition, entries=500)
        with StrictClient(lab.right.tunnel) as client:
            seen.append(client.hello["policy"]["entries"])
        return samples

    monkeypatch.setattr(strict, "load_full_table", small)
    options = system.Options(
        (parse(strict.WITHOUT), parse(strict.WITH)), Effort(1, 1, 1, 100), repetitions=1,
        settings=(system.FREE,), loads=("ping",), tries=1, congestion=preferred_congestion(),
    )  # fmt: skip
    recording = strict.new_recording(strict.Plan())
    recording.environment["devices"] = {}
    with Progress(options.steps, quiet=True) as progress:
        strict.measure_tunnels(options, recording, progress)
    assert recording.notes == []
    assert seen == [500]
    assert {s.implementation for s in recording.samples if s.figure == "ping.mean"} == {
        strict.WITHOUT, strict.WITH,
    }  # fmt: skip
    assert recording.values("full-table.load", strict.WITH)
