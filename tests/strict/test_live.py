"""The real agent, data plane and command line on one node in a namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.strict.helpers import key
from tests.support.netns import SOCKET_FOLDER, Lab, wait_until

WGPY = [sys.executable, "-c", "from wgpy.cli.main import main; main()"]
PATIENCE = 30


class Station:
    """One node: its files, its namespace and its agent."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.node, self.far = lab.namespace("node"), lab.namespace("far")
        self.underlay, _ = lab.veth(
            self.node, self.far, "192.168.5.1/24 fd00:5::1/64", "192.168.5.2/24 fd00:5::2/64")
        self.interface = lab.interface("wgs")
        self.config, self.cluster = folder / "node.toml", folder / "cluster.toml"
        self.log = folder / "log"
        self.agent: subprocess.Popen[str] | None = None
        self.write("strict")
        self.publish()

    def write(self, mode: str) -> None:
        self.config.write_text(
            f'[agent]\nname = "here"\ninterface = "{self.interface}"\n'
            f'underlay = ["{self.underlay}"]\n[strict]\nmode = "{mode}"\n'
            'pod_cidrs = ["10.244.0.0/16", "fd00:10::/48"]\nnode_cidrs = ["192.168.5.0/24"]\n'
            '[discovery]\nfile = "cluster.toml"\n'
        )

    def publish(self, *pods: str) -> None:
        text = ('[[node]]\nname = "here"\naddresses = ["192.168.5.1", "fd00:5::1"]\n'
                'pod_cidrs = ["10.244.1.0/24", "fd00:10:0:1::/64"]\n'
                f'[[node]]\nname = "there"\naddresses = ["192.168.5.2"]\n'
                f'public_key = "{key(2).base64}"\n')
        text += "".join(f'[[endpoint]]\nip = "{pod}"\nnode = "there"\n' for pod in pods)
        part = self.cluster.with_suffix(".part")
        part.write_text(text)
        part.replace(self.cluster)

    def start(self, *words: str) -> None:
        before = self.log.exists() and self.said("joined")
        with self.log.open("a") as log:
            self.agent = subprocess.Popen(
                self.node.command(*WGPY, "strict", "run", "--config", str(self.config), *words),
                stderr=log, text=True)
        self.wait(lambda: self.said("joined") > before)

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def wait(self, condition: Any) -> None:
        assert wait_until(condition, PATIENCE), self.log.read_text()

    def strict(self, *words: str, check: bool = True) -> str:
        done = self.node.run(*WGPY, "strict", *words, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def ask(self, *words: str) -> Any:
        return json.loads(self.strict(*words, "--json"))

    def dataplane(self) -> int:
        """The data plane's process."""
        mark = f"--policy\0strict\0{self.interface}".encode()
        found = [pid for pid in self.node.pids()
                 if mark in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return found[0] if found else 0

    def kill_agent(self, number: int) -> None:
        assert self.agent is not None
        self.agent.send_signal(number)
        self.agent.wait(PATIENCE)


@pytest.fixture
def station(lab: Lab, tmp_path: Path) -> Iterator[Station]:
    made = Station(lab, tmp_path)
    yield made
    if made.agent is not None and made.agent.poll() is None:
        made.kill_agent(signal.SIGKILL)


@pytest.mark.root
def test_life_of_a_node(station: Station) -> None:
    station.start()
    status = station.ask("status")
    assert status["policy"]["config"]["mode"] == "strict" and status["agent"]["joined"]
    assert status["peers"] == 1 and status["mtu"] == 1420
    flow = ("explain", "10.244.1.5", "10.244.2.5")
    assert station.ask(*flow)["reason"] == "UNENCRYPTED_TRAFFIC"

    # Discovery, and the refusal of a bad file.
    station.publish("10.244.2.5")
    station.wait(lambda: station.ask(*flow)["outcome"] == "encrypted")
    station.publish("10.244.2.500")
    station.wait(lambda: station.said("cluster.toml:10: endpoint[0].ip: not an IP address"))
    assert station.ask(*flow)["outcome"] == "encrypted"
    station.publish("10.244.2.5")
    station.wait(lambda: station.said("resolved"))

    # The agent dies: nothing changes.  Another one adopts what runs.
    dataplane = station.dataplane()
    rules = station.node.run("nft", "list", "ruleset").stdout
    station.kill_agent(signal.SIGKILL)
    assert station.dataplane() == dataplane and station.ask(*flow)["outcome"] == "encrypted"
    assert station.node.run("nft", "list", "ruleset").stdout == rules
    assert "is not running" in station.strict("status")
    station.start()
    assert station.said("attached to the running data plane") == 1
    assert station.dataplane() == dataplane

    # The rules are removed by hand; the data plane dies.
    station.node.run("nft", "flush", "ruleset")
    station.node.ip("route flush table 51871")
    station.wait(lambda: station.said("nftables were removed or changed: restored"))
    station.wait(lambda: station.said("route unreachable 10.244.0.0/16"))
    os.kill(dataplane, signal.SIGKILL)
    station.wait(lambda: station.said("started the data plane") == 2)
    station.wait(lambda: station.ask(*flow)["outcome"] == "encrypted")
    assert station.dataplane() != dataplane

    # Another mode, and the end.
    station.write("default")
    flow = ("explain", "10.244.1.5", "10.244.9.9")
    station.wait(lambda: station.ask(*flow)["outcome"] == "plaintext")
    station.kill_agent(signal.SIGTERM)
    assert station.dataplane() and "wgpy_" in station.node.run("nft", "list", "ruleset").stdout
    station.strict("down", "--config", str(station.config))
    assert not station.dataplane()
    assert station.node.run("nft", "list", "ruleset").stdout == ""
    assert "51871" not in station.node.ip("rule") + station.node.ip("route show table all")
    assert not list(SOCKET_FOLDER.glob(f"{station.interface}.*"))


@pytest.mark.root
def test_questions_and_metrics(station: Station) -> None:
    station.publish("10.244.2.5", "fd00:10:0:2::5")
    station.start("--metrics-port", "9465")
    listed = json.loads(station.strict("ipcache", "list", "--json"))
    assert {item["prefix"] for item in listed} == {"10.244.2.5/32", "fd00:10:0:2::5/128"}
    assert "there" in station.strict("ipcache", "get", "10.244.2.5")
    assert "no entry for 10.244.2.6" in station.strict("ipcache", "get", "10.244.2.6", check=False)
    assert station.ask("ipcache", "match", "10.244.1.9")["pod_cidr"] == ["10.244.1.0/24", "here"]
    assert "kind          pod" in station.strict("ipcache", "match", "10.244.1.9")
    nodes = {item["name"]: item for item in station.ask("node", "list")["nodes"]}
    assert nodes["here"]["local"] and nodes["there"]["public_key"] == key(2).base64
    assert "this node" in station.strict("node", "list")
    text = station.strict("explain", "10.244.1.5", "10.244.9.9")
    assert "dropped (UNENCRYPTED_TRAFFIC)" in text and "missing  an ipcache entry" in text
    classes = {(row["family"], row["traffic"]): row
               for row in station.ask("explain", "--matrix")["classes"]}
    row = classes[6, "pod → pod"]
    assert (row["known"], row["unknown"]) == ("encrypted", "dropped")
    assert classes[4, "pod → node"]["known"] == "plaintext"
    assert classes[4, "world → pod"]["known"] == "dropped"
    assert "strict mode, node encryption off" in station.strict("explain", "--matrix")
    assert "give SOURCE and DESTINATION" in station.strict("explain", "10.0.0.1", check=False)
    assert "no control socket" in station.strict("status", "-i", "wgnone", check=False)

    # A drop on the way from a local pod is seen by the monitor and counted.
    station.node.ip("address add 10.244.1.5/32 dev lo")
    monitor = subprocess.Popen(
        station.node.command(*WGPY, "strict", "monitor", "--seconds", "20", "--verdicts"),
        stdout=subprocess.PIPE, text=True)
    send = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "s.bind(('10.244.1.5', 4000)); s.sendto(b'x', ('10.244.9.9', 53))")
    seen: list[str] = []
    try:
        assert monitor.stdout is not None
        for _ in range(100):
            station.node.run(sys.executable, "-c", send)
            if station.ask("status")["drops"].get("UNENCRYPTED_TRAFFIC", 0) > 3:
                break
            time.sleep(0.1)
        seen = [monitor.stdout.readline() for _ in range(2)]
    finally:
        monitor.terminate()
        monitor.wait()
    assert any("DROP UNENCRYPTED_TRAFFIC egress udp 10.244.1.5:4000 → 10.244.9.9:53" in line
               for line in seen), seen
    with station.node.entered():
        text = urllib.request.urlopen("http://127.0.0.1:9465/metrics", timeout=20).read().decode()
    assert 'wgpy_strict_drops_total{direction="egress",reason="UNENCRYPTED_TRAFFIC"}' in text
    for sample in ("wgpy_strict_up 1.0", "wgpy_strict_ipcache_entries 2.0", "wgpy_strict_peers 1.0",
                   'wgpy_strict_peer_bytes_total{direction="egress",node="there"}',
                   'wgpy_strict_forwarded_packets_total{verdict="encrypted"} 0.0',
                   'wgpy_strict_backstop_packets_total{rule="egress_pods"} 0.0',
                   "wgpy_strict_discovery_lag_seconds_count", "wgpy_strict_joined 1.0"):
        assert sample in text, sample


@pytest.mark.root
def test_what_cannot_work_is_said(station: Station) -> None:
    station.config.write_text(station.config.read_text().replace(station.underlay, "nowhere0"))
    text = station.strict("run", "--config", str(station.config), check=False)
    assert "no such underlay device: nowhere0" in text
    station.config.write_text("[agent]\n")
    text = station.strict("run", "--config", str(station.config), check=False)
    assert f"{station.config}:1: agent: 'name' is missing" in text
    assert "no interface of this network namespace" in station.strict("status", check=False)
