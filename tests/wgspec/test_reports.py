"""Transcripts, captures and reports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from wgspec import report
from wgspec.case import Mismatch, all_cases
from wgspec.cli import spec
from wgspec.runner import Options, Result, Runner, exit_status
from wgspec.targets.engine import EngineTarget
from wgspec.verdict import Verdict

CASES = {c.id: c for c in all_cases()}


async def impossible(lab) -> None:
    """A case that no target can pass, after a real exchange."""
    peer = await lab.peer(psk=True)
    session = await peer.handshake()
    await peer.delivers(session)
    raise Mismatch("the <impossible>", "the real & true")


@pytest.fixture(scope="module")
def failure() -> Result:
    import dataclasses

    case = dataclasses.replace(CASES["R-01"], run=impossible)
    runner = Runner(EngineTarget(), Options("engine", seed=9), {})
    (result,) = asyncio.run(runner.run([case]))
    return result


def test_a_failure_tells_everything(failure: Result, tmp_path: Path) -> None:
    assert failure.verdict is Verdict.FAIL
    assert exit_status([failure]) == 1
    console = Console(record=True, width=200, file=(tmp_path / "out").open("w"))
    report.print_failure(console, failure, tmp_path / "R-01.pcapng")
    text = console.export_text()
    for part in (
        "§5.4.3",
        CASES["R-01"].text,
        "the <impossible>",
        "the real & true",
        "ephemeral",
        "mac1",
        "R-01.pcapng",
        "wgpy spec run --sut engine R-01 --seed 9",
    ):
        assert part in text


def test_the_capture_opens_decrypted(failure: Result, tmp_path: Path) -> None:
    path = report.write_capture(tmp_path, failure, "engine")
    command = [
        "tshark",
        "-r",
        str(path),
        "-T",
        "fields",
        "-e",
        "frame.comment",
        "-e",
        "udp.dstport",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "initiation" in lines[0]
    assert lines[-1].split(",")[-1] == "9", "the inner packet's port: it was decrypted"


def test_a_seed_repeats_keys_and_packets() -> None:
    async def once() -> list[bytes]:
        (result,) = await Runner(EngineTarget(), Options("engine", seed=4)).run([CASES["R-10"]])
        return [e.data[8:40] for e in result.transcript.entries if e.data[:1] == b"\x01"]

    assert asyncio.run(once()) == asyncio.run(once())


def test_reports_for_machines(failure: Result, tmp_path: Path) -> None:
    passed = Result(CASES["R-02"], Verdict.PASS)
    excused = Result(CASES["R-03"], Verdict.XFAIL, "because \x00 of it")
    results = [failure, passed, excused]
    report.write_json(tmp_path / "r.json", results, "engine", 9)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["seed"] == 9
    assert [r["verdict"] for r in written["results"]] == ["FAIL", "PASS", "XFAIL"]
    assert written["summary"]["FAIL"] == 1
    report.write_junit(tmp_path / "r.xml", results, "engine")
    suite = ET.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    report.write_html(tmp_path / "html", results, "engine")
    page = (tmp_path / "html" / "index.html").read_text()
    assert "the &lt;impossible&gt;" in page and "R-01.pcapng" in page
    assert (tmp_path / "html" / "R-02.pcapng").stat().st_size > 0


def run(*arguments: str):
    return CliRunner().invoke(spec, list(arguments))


def test_no_case_matched_is_status_2() -> None:
    result = run("run", "--sut", "engine", "R-999")
    assert result.exit_code == 2
    assert "no case matches R-999" in result.output


def test_nothing_ran_is_status_2() -> None:
    assert exit_status([]) == 2


def test_list_and_dry_run() -> None:
    listed = json.loads(run("list", "--json").output)
    assert len(listed) == 105
    assert listed[12]["known"]["B"]
    assert "R-89" in run("list").output
    dry = run("run", "--sut", "engine", "--dry-run", "G")
    assert dry.exit_code == 0
    assert [line.split()[0] for line in dry.output.splitlines()] == [
        f"R-{n}" for n in range(87, 93)
    ]


def test_an_unknown_target_is_told_what_there_is() -> None:
    result = run("run", "--sut", "windmill", "R-01")
    assert result.exit_code == 1
    assert "windmill" in result.output and "wireguard-go" in result.output
