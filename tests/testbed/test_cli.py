"""The commands that the labs do not type: machines' output, captures, and mistakes."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed import catalogue
from testbed.capture import VNET, split
from testbed.cli import _show
from testbed.cli import testbed as command

WGPY = Path(sys.executable).with_name("wgpy")
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
        (["inspect"], "no cluster is running: start one with `"),
        (["down", "nonsense"], "no cluster 'nonsense'"),
    ],
)
def test_mistakes_have_a_sentence(words, message):
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 1
    assert message in done.output and "Traceback" not in done.output


def explained(file):
    """`wgpy decrypt`; and tshark agrees that the pings can be read."""
    shown = subprocess.run(["tshark", "-r", file, "-Y", "icmp"], capture_output=True, text=True,
                           check=True).stdout  # fmt: skip
    assert "Echo (ping) request" in shown and "Echo (ping) reply" in shown
    done = subprocess.run([WGPY, "decrypt", file, "--json"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows.pop()["type"] == "summary"
    return rows


def test_a_cluster_can_be_named_with_c_wherever_one_is_named():
    for name in ("down", "inspect", "graph", "exec", "capture", "publish", "withdraw", "mode",
                 "kill", "start"):  # fmt: skip
        flags = {flag for option in command.commands[name].params for flag in option.opts}
        assert "-c" in flags, name
        assert "--json" in flags, name
    done = CliRunner().invoke(command, ["inspect", "-c", "nonsense"])
    assert "no cluster 'nonsense'" in done.output


def test_super_datagrams_are_cut_as_the_device_would():
    scapy = pytest.importorskip("scapy.all")
    pieces = [bytes([4, 0, 0, 0]) + bytes(60) for _ in range(3)]
    for ip, kind in ((scapy.IP(src="10.0.0.1", dst="10.0.0.2", id=7), scapy.IP),
                     (scapy.IPv6(src="fd00::1", dst="fd00::2"), scapy.IPv6)):  # fmt: skip
        whole = bytes(scapy.Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / ip
                      / scapy.UDP(sport=1, dport=2) / b"".join(pieces)[:-9])  # fmt: skip
        cut = list(split(VNET.pack(0, 5, 0, 64, 0, 0), whole))
        assert [bytes(scapy.Ether(frame)[scapy.UDP].payload) for frame in cut] == [
            pieces[0], pieces[1], pieces[2][:-9]]  # fmt: skip
        for frame in cut:
            again = scapy.Ether(frame)
            for layer in (kind, scapy.UDP):
                if hasattr(again[layer], "chksum"):
                    del again[layer].chksum
            assert bytes(again) == frame
        assert list(split(VNET.pack(0, 0, 0, 0, 0, 0), whole)) == [whole]


@pytest.mark.root
def test_modes_are_those_in_force_and_exec_stays_in_the_folder(tmp_path):
    def run(*words, check=True):
        return subprocess.run([*TOOL, *words], capture_output=True, text=True, check=check,
                              cwd=tmp_path)  # fmt: skip

    run("up", "leak", "--json")
    try:
        assert json.loads(run("inspect", "--json").stdout)["mode"] == "default"
        changed = json.loads(run("mode", "strict", "--on", "alpha", "--json").stdout)
        assert changed == {"nodes": ["alpha"], "mode": "strict"}
        found = json.loads(run("inspect", "--json").stdout)
        assert found["mode"] == "mixed"
        assert [node["mode"] for node in found["nodes"]] == ["strict", "default"]
        run("mode", "strict")
        shown = run("inspect", "leak").stdout
        assert "leak (strict)" in shown and "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80
        assert "strict mode" in run("graph", "leak").stdout
        assert json.loads(run("graph", "-c", "leak", "--json").stdout)["mode"] == "strict"
        mode = run("mode", "strict", "--on", "nobody", check=False)
        assert mode.returncode == 1 and "no node 'nobody' here: alpha, beta" in mode.stderr
        killed = json.loads(run("kill", "beta", "agent", "--json").stdout)
        assert killed["role"] == "agent" and killed["signal"] == "SIGKILL"
        assert json.loads(run("start", "beta", "agent", "--json").stdout)["node"] == "beta"
        told = json.loads(run("publish", "beta", "--json").stdout)
        assert told["unknown"]["alpha"] == []
        ran = run("exec", "--json", "alpha", "sh", "-c", "pwd; echo no >&2; exit 3", check=False)
        assert ran.returncode == 3
        assert json.loads(ran.stdout) == {
            "where": "alpha", "command": ["sh", "-c", "pwd; echo no >&2; exit 3"], "status": 3,
            "stdout": f"{tmp_path}\n", "stderr": "no\n",
        }  # fmt: skip
    finally:
        run("down", "-c", "leak")


@pytest.mark.root
def test_captures_land_in_the_callers_folder_and_open_sessions_that_live(tmp_path):
    def run(*words):
        return subprocess.run([*TOOL, *words], capture_output=True, text=True, check=True,
                              cwd=tmp_path).stdout  # fmt: skip

    def opened(file):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
        done = subprocess.run([WGPY, "decrypt", file, "--json"], cwd=tmp_path, text=True,
                              capture_output=True, check=True)  # fmt: skip
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert {row["type"] for row in rows} == {"transport", "summary"}
        return [row["inner"] for row in rows[:-1] if not row["keepalive"]]

    run("up", "firstlight", "--name", "lives")
    try:
        ping = ("exec", "-c", "lives", "alpha", "ping", "-c", "2", "-W", "5", "10.9.0.2")
        run(*ping)  # The handshake is over before anybody listens.
        # By its bare name, as a person types it; the exit status says that it is complete.
        for words, file in (
            (("exec", "alpha", "wgpy", "capture", "wg0", "in.pcapng"), "in.pcapng"),
            (("capture", "-o", "on-the-wire.pcapng"), "on-the-wire.pcapng"),
        ):
            with subprocess.Popen([*TOOL, *words], cwd=tmp_path, text=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as capture:
                assert "secret key" in capture.stderr.readline()
                run(*ping)
                capture.send_signal(signal.SIGINT)
                assert capture.wait() == 0
            assert len(opened(file)) == 4 and all(opened(file)), file
    finally:
        run("down", "lives")


@pytest.mark.root
def test_capture_and_machines_output(tmp_path):
    def run(*words):
        return subprocess.run([*TOOL, *words], capture_output=True, text=True, check=True).stdout

    assert json.loads(run("up", "firstlight", "--name", "mine", "--json"))["name"] == "mine"
    try:
        capture = subprocess.Popen(
            [*TOOL, "capture", "--json", "--count", "6", "--seconds", "20", "-o",
             "wire.pcapng"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert "wire.pcapng will contain secret keys" in capture.stderr.readline()
        while capture.poll() is None:
            run("exec", "alpha", "ping", "-c", "1", "-W", "1", "10.9.0.2")
        rows = [json.loads(line) for line in capture.stdout]
        assert len(rows) == 6
        assert {row["kind"] for row in rows} == {"WIREGUARD"}
        capture.wait()
        assert rows[0]["detail"] == "initiation" and rows[0]["counter"] is None
        data = [row for row in rows if row["detail"] == "data"]
        assert data and all(row["receiver_index"] for row in data)
        assert [r["counter"] for r in data if r["port"] == "alpha.0"][:2] == [0, 1]
        opened = explained(tmp_path / "wire.pcapng")
        assert len(opened) == 6 and all(row["authenticated_by"] for row in opened)
        state = json.loads(run("inspect", "--json"))
        assert state["mode"] == "plain" and all(node["dataplane"] for node in state["nodes"])
        failed = subprocess.run(
            [*TOOL, "exec", "nowhere", "true"], capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1 and "no 'nowhere' here: underlay" in failed.stderr
    finally:
        run("down", "mine")


def test_a_cluster_with_long_names_is_shown_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    name = "ip-10-0-133-207.eu-central-1.compute.internal"
    node = {"name": name, "mode": "strict", "addresses": ["2001:db8:1234:5678:9abc:def0:1:56"],
            "agent": 1234567, "dataplane": 7654321, "peers": 100000, "handshakes": 9}  # fmt: skip
    link = {"link": f"{name}.0", "frames": 10**9, "lost": 10**6, "overflowed": 10**6}
    _show({"name": name, "mode": "mixed", "nodes": [node], "links": [link],
           "sentinel": {"kinds": {"POD_TO_POD": 10**9}, "missed": 0}})  # fmt: skip
    shown = capsys.readouterr().out
    cells = [line.split("│")[1:-1] for line in shown.splitlines() if "│" in line]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*cells, strict=True)]
    assert columns[0] == name and columns[2] == node["addresses"][0]
    assert columns[5] == "100000" and f"  {name}.0: 1000000000 frames" in shown
