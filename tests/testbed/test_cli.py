"""The commands that the labs do not type: machines' output, captures, and mistakes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest
from click.testing import CliRunner

from testbed import catalogue
from testbed.cli import testbed as command

TOOL = [sys.executable, "-c", "from testbed.cli import testbed; testbed()"]


def test_labs_for_machines():
    found = json.loads(CliRunner().invoke(command, ["labs", "--json"]).stdout)
    assert [lab["name"] for lab in found] == [lab.name for lab in catalogue.labs()]
    assert all(lab["title"] for lab in found)


def test_a_page_and_a_topology_can_be_read():
    page = CliRunner().invoke(command, ["labs", "leak"]).stdout
    assert "pod to pod, in plaintext" in page
    text = CliRunner().invoke(command, ["labs", "leak", "--topology"]).stdout
    assert text == catalogue.find("leak").read_text()


@pytest.mark.parametrize("form", ["text", "dot", "svg"])
def test_graph_of_every_lab(form):
    for lab in catalogue.labs():
        done = CliRunner().invoke(command, ["graph", lab.name, "--format", form])
        assert done.exit_code == 0 and "alpha" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "nonsense"], "neither a lab nor a file"),
        (["labs", "nonsense"], "no lab 'nonsense'"),
        (["inspect"], "which cluster? say -c NAME (running: none)"),
        (["down", "nonsense"], "no cluster 'nonsense'"),
    ],
)
def test_mistakes_have_a_sentence(words, message):
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 1
    assert message in done.output and "Traceback" not in done.output


@pytest.mark.root
def test_capture_and_machines_output(tmp_path):
    def run(*words):
        return subprocess.run([*TOOL, *words], capture_output=True, text=True, check=True).stdout

    assert json.loads(run("up", "firstlight", "--name", "mine", "--json"))["name"] == "mine"
    try:
        capture = subprocess.Popen(
            [*TOOL, "capture", "--json", "--count", "6", "--seconds", "20", "--write",
             str(tmp_path / "wire.pcap")],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        while capture.poll() is None:
            run("exec", "alpha", "ping", "-c", "1", "-W", "1", "10.9.0.2")
        rows = [json.loads(line) for line in capture.stdout]
        assert len(rows) == 6
        assert {row["kind"] for row in rows} == {"WIREGUARD"}
        assert (tmp_path / "wire.pcap").read_bytes()[:4] == struct.pack("=I", 0xA1B23C4D)
        state = json.loads(run("inspect", "--json"))
        assert state["mode"] == "plain" and all(node["dataplane"] for node in state["nodes"])
        failed = subprocess.run(
            [*TOOL, "exec", "nowhere", "true"], capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1 and "no 'nowhere' here: underlay" in failed.stderr
    finally:
        run("down", "mine")
