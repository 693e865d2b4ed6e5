"""Graphs, discovery files and captures: text that other programs read."""

from __future__ import annotations

import tomllib
import xml.etree.ElementTree as ET

from testbed import catalogue, graph
from testbed.capture import CaptureFile, Frame
from testbed.dataplane import new_key, public_key
from testbed.demo_view import marked
from testbed.discovery import View, agent_config, view_of
from testbed.topology import parse_topology
from wgpy.capture import pcapng

TEXT = """\
name: sketch
world: true
underlays: {lan: {networks: [192.0.2.0/24]}, wan: {networks: [198.51.100.0/24]}}
nodes:
  alpha: {pods: [client], control_plane: true}
  beta: {pods: [server], underlays: [lan, wan]}
unknown: {alpha: [beta]}
"""


def described():
    topology = parse_topology(TEXT)
    keys = {node.name: public_key(new_key()) for node in topology.nodes}
    return topology, {node.name: view_of(topology, node.name, keys) for node in topology.nodes}


def test_text_names_everybody_and_who_is_unknown():
    topology, views = described()
    text = graph.as_text(topology, views)
    for word in ("alpha control plane", "beta/server", "world 203.0.113.9", "MTU 1500"):
        assert word in text
    assert "alpha has not discovered beta" in text
    assert "beta has not discovered" not in text


def test_dot_and_svg_are_well_formed():
    topology, views = described()
    dot = graph.as_dot(topology, views)
    assert dot.startswith('graph "sketch" {') and dot.endswith("}")
    assert '"alpha" -- "beta" [style=dashed' in dot
    root = ET.fromstring(graph.as_svg(topology, views))
    words = " ".join(element.text or "" for element in root.iter())
    assert "alpha has not discovered beta" in words and "beta" in words


def test_discovery_file_follows_the_view():
    topology, views = described()
    found = tomllib.loads(views["alpha"].render())
    assert [node["name"] for node in found["node"]] == ["alpha"]
    assert {entry["ip"] for entry in found["endpoint"]} == {"10.244.1.10", "fd10:244:0:1::a"}
    views["alpha"].show("beta")
    views["alpha"].keyless.add("beta")
    again = tomllib.loads(views["alpha"].render())
    assert [node["name"] for node in again["node"]] == ["alpha", "beta"]
    assert "public_key" not in again["node"][1] and "public_key" in again["node"][0]
    assert again["node"][0]["labels"] == {"node-role.kubernetes.io/control-plane": ""}
    assert len(again["endpoint"]) == 4
    assert View.from_json(views["alpha"].to_json()) == views["alpha"]
    config = tomllib.loads(agent_config(topology, topology.node("beta")))
    assert config["agent"]["underlay"] == ["eth0", "eth1"]
    assert config["strict"]["node_cidrs"] == ["192.0.2.0/24", "198.51.100.0/24"]


def test_a_capture_file_is_read_back(tmp_path):
    path = tmp_path / "x.pcapng"
    file = CaptureFile(path, ["alpha.0", "beta.0"])
    file.write(Frame(1_500_000_000_123_456_789, "beta.0", b"abcd"))
    file.close(["PRIVATE"])
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("rb") as written:
        secrets, frame = pcapng.read(written, path.name)
    assert secrets.key_log == "PRIVATE"
    assert (frame.at, frame.data, frame.interface) == (1_500_000_000_123_456_789, b"abcd", 1)


def test_marks():
    assert marked(b"..ab..ab", b"ab") == [False, False, True, True, False, False, True, True]
    assert not any(marked(b"......", b"ab"))


def test_every_lab_has_a_page_and_a_readable_topology():
    found = catalogue.labs()
    assert [lab.topology for lab in found] == sorted(catalogue.FOLDER.glob("*.yaml"))
    for lab in found:
        assert catalogue.topology_of(lab.name).name == lab.name
        assert lab.title and f"wgpy testbed up {lab.name}" in lab.page.read_text()
