"""Transcripts, captures and reports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from wgspec import report, terminal
from wgspec.case import LEVELS
from wgspec.cases import all_cases
from wgspec.check import Mismatch
from wgspec.cli import spec
from wgspec.pcapng import capture
from wgspec.run import Run
from wgspec.runner import Options, Result, Runner, exit_status
from wgspec.target import Address
from wgspec.targets.engine import EngineTarget
from wgspec.transcript import Transcript
from wgspec.verdict import MEANING, Expected, Verdict

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
    runner = Runner(EngineTarget(), Options("engine", seed=9), lambda _: Expected(Path("x"), ()))
    (result,) = asyncio.run(runner.run([case]))
    return result


def finished(*results: Result, expected: Expected | None = None) -> Run:
    """A run with these results."""
    began = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    options = Options("engine", seed=9)
    return Run(options, "engine", "eng 1.0", "quick", began, 2.0, expected, list(results))


def test_a_failure_tells_everything(
    failure: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failure.verdict is Verdict.FAIL
    assert exit_status([failure]) == 1
    terminal.print_failure(failure, tmp_path / "R-01.pcapng")
    text = capsys.readouterr().out
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
    done = finished(failure, passed, excused)
    for suffix in report.FORMATS:
        report.write(tmp_path / "deep" / f"r.{suffix}", done)
    written = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert written["seed"] == 9 and written["version"] == "eng 1.0"
    assert written["date"] == "2026-03-04T05:06:00+00:00"
    assert written["suite"].startswith("wgspec ")
    assert [r["verdict"] for r in written["results"]] == ["FAIL", "PASS", "XFAIL"]
    assert written["summary"]["FAIL"] == 1
    suite = ET.parse(tmp_path / "deep" / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert suite.get("timestamp") == "2026-03-04T05:06:00"
    names = [(node.get("classname"), node.get("name")) for node in suite.iter("testcase")]
    assert names == [("wgspec.A", "R-01"), ("wgspec.A", "R-02"), ("wgspec.A", "R-03")]
    page = (tmp_path / "deep" / "r.html").read_text()
    assert "the &lt;impossible&gt;" in page and "R-01.pcapng" in page
    assert report.write_capture(tmp_path / "c", passed, "engine").stat().st_size > 0


def test_the_page_says_what_was_tested_when_and_how(failure: Result) -> None:
    page = report.as_html(finished(failure, Result(CASES["R-02"], Verdict.PASS)))
    for part in ("2026-03-04 05:06 UTC", "eng 1.0", report.suite_version(), "<dd>9</dd>", "quick",
                 *(text for text in MEANING.values()), *LEVELS.values(),
                 "no expected results for eng 1.0"):  # fmt: skip
        assert part in page, part
    assert page.index('id="R-01"') < page.index('id="R-02"')
    assert "http://" not in page and "src=" not in page


def test_a_transcript_is_in_order_of_time(tmp_path: Path) -> None:
    """Ports are read one after the other, so entries do not come as they happened."""
    transcript = Transcript(start=100.0)
    here, there = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    for at in (103.0, 101.0, 102.0):
        transcript.datagram(at, True, b"\x01\0\0\0" + bytes(144), here, there)
    transcript.note(101.5, "half past")
    assert [line.split()[0] for line in transcript.lines()] == ["1.000", "1.500", "2.000", "3.000"]
    path = tmp_path / "t.pcapng"
    path.write_bytes(capture(transcript, "x"))
    times = subprocess.run(
        ["tshark", "-r", str(path), "-T", "fields", "-e", "frame.time_relative"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert [round(float(time)) for time in times] == [0, 1, 2]


def test_the_terminal_shows_every_title_in_order_and_cuts_nothing() -> None:
    result = run("run", "--sut", "engine", "R-105", "R-62", "R-04", "--seed", "1")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    shown = [line for line in lines if line.startswith("R-")]
    assert [line.split()[:2] for line in shown] == [
        ["R-04", "PASS"], ["R-62", "PASS"], ["R-105", "UNSUPPORTED"],
    ]  # fmt: skip
    assert all(CASES[line.split()[0]].text in line for line in shown)
    assert "wgpy engine" in lines[-2] and "seed 1" in lines[-2]
    assert lines[-1] == "expected results: engine.toml"


def test_json_is_a_flag_and_alone_on_standard_output(tmp_path: Path) -> None:
    words = ["run", "--sut", "engine", "R-01", "--seed", "1", "--json"]
    result = run(*words, "--captures", str(tmp_path))
    assert json.loads(result.stdout)["results"][0]["id"] == "R-01"
    assert (tmp_path / "R-01.pcapng").exists()
    dry = run(*words, "--dry-run")
    assert [case["id"] for case in json.loads(dry.stdout)] == ["R-01"]


@pytest.mark.parametrize("name", ["x.pdf", "x", "/dev/null/x.json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_run(name: str) -> None:
    result = run("run", "--sut", "engine", "R-01", "--report", name)
    assert result.exit_code == 2 and "running" not in result.output
    assert name in result.output and "Traceback" not in result.output


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
