"""Tiny whole-system runs: everything works and nothing is left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import iperf
from benchmarks.cli import bench
from benchmarks.flood import flooding, udp_drops
from benchmarks.implementations import parse
from benchmarks.lab import (
    Lab,
    LabError,
    allowed_congestion,
    preferred_congestion,
    veth_pair,
)
from benchmarks.meter import metered
from benchmarks.tunnel import tunnel
from testbed import namespaces
from wgpy.sockets import socket_path

pytestmark = pytest.mark.root


def assert_gone(lab: Lab) -> None:
    for end in lab.ends:
        assert not end.namespace.alive()
        assert namespaces.inside([end.namespace.inode]) == []
        assert not socket_path(end.tunnel).exists()
    assert all(daemon.poll() is not None for daemon in lab.daemons)


def test_a_run_over_the_bare_link(tmp_path: Path) -> None:
    arguments = ["system", "--impl", "none", "--quick", "--load", "tcp1-up", "--load", "ping"]
    done = CliRunner().invoke(bench, [*arguments, "-o", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "result.json").read_text())
    values = {sample["figure"]: sample["value"] for sample in document["samples"]}
    assert values["tcp1-up.goodput"] > 0
    assert 0 < values["ping.p50"] <= values["ping.p99"] <= values["ping.max"]
    assert "tcp1-up.cpu_per_gb" not in values
    assert document["environment"]["devices"]["veth"]["mtu"] == 1500
    assert document["notes"] == []
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_a_tunnel_of_ours_is_metered_end_by_end() -> None:
    with tunnel(parse("wgpy"), cores=None, congestion=preferred_congestion(), mtu=1420) as lab:
        with metered(lab) as usage:
            result = iperf.tcp(lab, flows=2, reverse=True, seconds=1)
        assert result.received_bytes > 0
        assert all(end.total > 0 for end in usage.ends)
        assert all(peak > 1_000_000 for peak in usage.peaks)
        assert usage.machine >= 0
    assert_gone(lab)


def test_pinning_reaches_the_daemon() -> None:
    core = min(os.sched_getaffinity(0))
    congestion = preferred_congestion()
    with tunnel(parse("wgpy"), cores=(core, core), congestion=congestion, mtu=1420) as lab:
        assert all(os.sched_getaffinity(daemon.pid) == {core} for daemon in lab.daemons)


def test_a_flood_arrives_and_is_counted() -> None:
    with tunnel(parse("wgpy"), cores=None, congestion=preferred_congestion(), mtu=1420) as lab:
        with flooding(lab, 500, "bad-mac1") as sent:
            iperf.udp(lab, size=64, rate=100, seconds=1)
        assert sent.count > 0
        assert udp_drops(lab.daemons[1].pid) >= 0


def test_nothing_is_left_after_an_interruption() -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        tunnel(parse("wgpy"), cores=None, congestion=preferred_congestion(), mtu=1420) as lab,
    ):
        raise KeyboardInterrupt
    assert_gone(lab)


def test_nothing_is_left_after_a_program_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[namespaces.Namespace] = []
    make = namespaces.make

    def noted(names: list[str]) -> dict[str, namespaces.Namespace]:
        found = make(names)
        made.extend(found.values())
        return found

    monkeypatch.setattr(namespaces, "make", noted)
    context = tunnel(parse("bad=false"), cores=None, congestion=preferred_congestion(), mtu=1420)
    with pytest.raises(LabError, match="the program ended"), context:
        pass
    assert len(made) == 2
    assert namespaces.inside(space.inode for space in made) == []


def test_processes_in_a_lab_end_with_their_context() -> None:
    with veth_pair(None, preferred_congestion()) as lab:
        lab.daemons.append(lab.left.start("sleep", "600"))
        with pytest.raises(LabError, match="no-such-device"):
            lab.left.run("ip", "link", "show", "no-such-device")
        lab.daemons[0].terminate()
        lab.daemons[0].communicate()
    assert_gone(lab)


def test_the_congestion_control_is_the_one_asked_for() -> None:
    for name in allowed_congestion():
        with veth_pair(None, name) as lab:
            assert iperf.tcp(lab, flows=1, reverse=False, seconds=1).congestion == name
