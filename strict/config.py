"""The configuration file of one node: `wgpy strict run --config FILE`.

Reads the sections described in docs/strict-mode.md into frozen values; all mistakes in the
file are reported at once (`strict.document`).  Reading the cluster's nodes is
left to `strict.discovery.static`, opening devices to `strict.agent`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strict.discovery.etcd.settings import EtcdSettings, read_settings
from strict.discovery.static import AGENT_SECTIONS, CLUSTER_SECTIONS, exact_prefix
from strict.document import DocumentRefused, Section, load
from strict.labels import Selector
from strict.nodes import CONTROL_PLANE_LABEL
from strict.settings import ETCD_PORTS, Mode, TableConfig

DEFAULT_PORT: Final = 51871
DEFAULT_MARK: Final = 0x0E00
INTERFACE: Final = re.compile(r"[A-Za-z0-9_=+.-]{1,15}\Z")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Section ``agent`` of this node: device, key and where the other nodes are reached."""

    name: str
    interface: str
    underlay: tuple[str, ...]
    private_key_file: Path
    listen_port: int = DEFAULT_PORT
    fwmark: int = DEFAULT_MARK


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Host-wide numbers that other programs might use too, and the masquerade of pods."""

    masquerade: bool = True
    table: int = DEFAULT_PORT
    priority: int = 100
    """First of four consecutive policy rules."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """All of one node's file."""

    path: Path
    node: NodeConfig
    table: TableConfig
    routing: RoutingConfig
    cluster: Path
    """The file of nodes and endpoints; may be `path` itself."""
    start: bool = True
    """Whether to start `wireguard-py` and restart it when it dies."""
    arguments: tuple[str, ...] = ()
    """Added to `wireguard-py`'s command line."""
    etcd: EtcdSettings | None = None
    """The store that nodes publish themselves in, besides the file."""


def read_config(path: Path) -> AgentConfig:
    """Raises `DocumentRefused` with every mistake of the file."""
    document = load(path)
    node = _node(document.section("agent"), path.parent)
    section = document.section("strict")
    table, routing = _table(section, node.name), _routing(section)
    section.done()
    cluster, etcd = _discovery(document.section("discovery"), path)
    dataplane = document.section("dataplane")
    start = dataplane.flag("start", True)
    arguments = dataplane.many("arguments", str)
    dataplane.done()
    own_cluster = cluster == path
    for name in document.data:
        if name not in AGENT_SECTIONS and not (own_cluster and name in CLUSTER_SECTIONS):
            known = ", ".join(AGENT_SECTIONS)
            document.problem((name,), f"unknown section; known here: {known}")
    if etcd is not None and table is not None and not table.pod_cidrs:
        document.problem(("strict",), "etcd needs pod_cidrs: what others publish is held to them")
    document.check()
    if table is None:
        raise DocumentRefused(document.problems)
    return AgentConfig(path, node, table, routing, cluster, start, arguments, etcd)


def _node(section: Section, folder: Path) -> NodeConfig:
    name = section.text("name", required=True)
    interface = section.text("interface", "wgs0")
    if not INTERFACE.match(interface):
        section.problem("interface", "must be 1 to 15 letters, digits, or one of _=+.-")
    underlay = section.many("underlay", str)
    if not underlay:
        section.problem("", "'underlay' is missing: the devices that lead to the other nodes")
    node = NodeConfig(
        name,
        interface,
        underlay,
        folder / section.text("private_key_file", f"{interface}.key"),
        section.number("listen_port", DEFAULT_PORT, 1, 65535),
        section.number("fwmark", DEFAULT_MARK, 1, 2**32 - 1),
    )
    section.done()
    return node


def _table(section: Section, node: str) -> TableConfig | None:
    """None when the settings contradict each other, which is recorded as a problem."""
    try:
        return TableConfig(
            node=node,
            mode=section.parsed("mode", Mode.STRICT, _mode),
            pod_cidrs=section.many("pod_cidrs", exact_prefix),
            node_cidrs=section.many("node_cidrs", exact_prefix),
            ingress=section.flag("ingress", True),
            node_encryption=section.flag("node_encryption", False),
            node_encryption_opt_out=section.parsed(
                "node_encryption_opt_out", Selector.parse(CONTROL_PLANE_LABEL), Selector.parse
            ),
            control_plane=section.many("control_plane", exact_prefix),
            etcd_ports=section.numbers("etcd_ports", ETCD_PORTS, 1, 65535),
            allow_remote_node_identities=section.flag("allow_remote_node_identities", False),
        )
    except ValueError as error:
        if not section.document.problems:
            section.problem("node_cidrs" if "node_cidrs" in section else "", str(error))
        return None


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise ValueError(f'{text!r} is not a mode: use "strict" or "default"') from None


def _routing(section: Section) -> RoutingConfig:
    return RoutingConfig(
        section.flag("masquerade", True),
        section.number("routing_table", DEFAULT_PORT, 256, 2**32 - 1),
        section.number("rule_priority", 100, 1, 30000),
    )


def _discovery(section: Section, path: Path) -> tuple[Path, EtcdSettings | None]:
    if section.text("type", "static") != "static":
        section.problem("type", 'the only one is "static": etcd has a table [discovery.etcd]')
    cluster = path.parent / section.text("file", path.name)
    etcd = section.section("etcd")
    section.done()
    return cluster, read_settings(etcd, path.parent) if etcd is not None else None
