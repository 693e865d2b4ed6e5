"""What each node has been told: the agent's configuration and discovery files, from a topology.

Every node gets a discovery file of its own, so that nodes may know different things: that
is how a discovery race, a missing reply entry or a stale node is made.  A `View` is that
file as data; `hide` and `show` take names as people write them (`beta`, `beta/server`).

The formats are the ones of docs/strict-mode.md; the agent reads them, nothing else here does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.dataplane import DEVICE
from testbed.topology import LISTEN_PORT, Node, Topology
from wgpy.protocol.keys import PublicKey

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
IDENTITY = 20_000
"""Identities of pods count from here, in the order of the file."""


@dataclass
class View:
    """The whole cluster, and the part that one node does not know.

    `nodes` and `endpoints` are entries of the discovery file by name (a pod's several
    addresses are several entries); `hidden` names what is left out; `keyless` nodes are
    announced without their public key.
    """

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    endpoints: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    keyless: set[str] = field(default_factory=set)

    def show(self, *names: str) -> None:
        """Make known; for a node, its key and its pods that are not hidden themselves."""
        self.hidden.difference_update(names)
        self.keyless.difference_update(names)

    def hide(self, *names: str) -> None:
        """Make unknown; for a node, its pods too."""
        self.hidden.update(names)

    def visible(self, name: str) -> bool:
        """Whether the node or pod is in the file."""
        return name not in self.hidden and name.partition("/")[0] not in self.hidden

    def render(self) -> str:
        """The discovery file."""
        lines = ["# Written by the testbed: what this node has discovered.", ""]
        for name, node in self.nodes.items():
            if self.visible(name):
                leave = {"public_key"} if name in self.keyless else set()
                lines += _table("node", {k: v for k, v in node.items() if k not in leave})
        for name, entries in self.endpoints.items():
            if self.visible(name):
                for entry in entries:
                    lines += _table("endpoint", entry)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `from_json`."""
        return {
            "nodes": self.nodes,
            "endpoints": self.endpoints,
            "hidden": sorted(self.hidden),
            "keyless": sorted(self.keyless),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> View:
        """The inverse of `to_json`."""
        return cls(
            dict(data["nodes"]), dict(data["endpoints"]), set(data["hidden"]), set(data["keyless"])
        )


def view_of(topology: Topology, viewer: str, keys: Mapping[str, PublicKey]) -> View:
    """What `viewer` knows at start."""
    nodes = {node.name: node_entry(topology, node, keys.get(node.name)) for node in topology.nodes}
    endpoints = {
        pod.path: [
            {"ip": str(address), "node": pod.node, "identity": IDENTITY + index}
            for address in pod.addresses
        ]
        for index, pod in enumerate(topology.pods)
    }
    return View(nodes, endpoints, set(topology.unknown_to(viewer)))


def node_entry(topology: Topology, node: Node, key: PublicKey | None) -> dict[str, Any]:
    """A node's entry in the discovery file."""
    labels = dict(node.labels)
    if node.control_plane:
        labels.setdefault(CONTROL_PLANE_LABEL, "")
    entry: dict[str, Any] = {
        "name": node.name,
        "addresses": [str(address) for address in node.addresses],
    }
    if key is not None:
        entry["public_key"] = key.base64
    # Without slices a pod is known by its own entry alone, but its node may send for it.
    kind = "pod_cidrs" if topology.slices else "allowed_ips"
    entry[kind] = [str(cidr) for cidr in node.pod_cidrs]
    if labels:
        entry["labels"] = labels
    return entry


def agent_config(topology: Topology, node: Node, *, mode: str | None = None) -> str:
    """The agent's own file for `node`; paths in it are relative to where it lies."""
    networks = [n for underlay in topology.underlays for n in underlay.networks]
    lines = ["# Written by the testbed.", ""]
    lines += _section("agent", {
        "name": node.name,
        "interface": DEVICE,
        "underlay": [f"eth{index}" for index in range(len(node.underlays))],
        "private_key_file": f"{node.name}.key",
        "listen_port": LISTEN_PORT,
    })  # fmt: skip
    strict: dict[str, Any] = {
        "mode": mode or topology.mode,
        "pod_cidrs": [str(cidr) for cidr in topology.pod_cidrs],
        "node_cidrs": [str(network) for network in networks],
        "node_encryption": node.node_encryption,
        "masquerade": topology.masquerade,
        "allow_remote_node_identities": topology.allow_remote_node_identities,
    }
    if topology.opt_out is not None:
        strict["node_encryption_opt_out"] = topology.opt_out
    lines += _section("strict", strict)
    lines += _section("discovery", {"type": "static", "file": "cluster.toml"})
    return "\n".join(lines)


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically: its reader sees the old or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(mode)
    os.replace(part, path)  # noqa: PTH105


def _section(name: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[{name}]", *_lines(values), ""]


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return [f"[[{name}]]", *_lines(values), ""]


def _lines(values: Mapping[str, Any]) -> Iterable[str]:
    for key, value in values.items():
        yield f"{key} = {_toml(value)}"


def _toml(value: Any) -> str:
    """TOML's strings, numbers, booleans and lists are JSON's; its inline tables are not."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items())
        return "{ " + inner + " }"
    return json.dumps(value)
