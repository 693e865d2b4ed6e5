"""The traffic classes of a cluster against what happens to them: `wgpy strict explain --matrix`.

Asks the very table of the data plane, filled with two made-up nodes under the running
settings, once with the other side known and once with it not discovered.  "encrypted" and
"plaintext" are about the underlay; what stays on one node is "local".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from strict.ipcache import Entry
from strict.labels import Selector
from strict.nodes import CONTROL_PLANE_LABEL, Node
from strict.settings import Mode, TableConfig
from strict.table import StrictTable
from strict.verdicts import Decision, Rule
from wgpy.protocol.endpoint import AddressBytes, Prefix, parse_address
from wgpy.protocol.keys import PublicKey

# Documentation addresses (RFC 5737, RFC 3849), where the settings name no CIDRs.
_NODES: Final = {4: Prefix.parse("192.0.2.0/24"), 16: Prefix.parse("2001:db8:1::/64")}
_WORLD: Final = {4: parse_address("203.0.113.80"), 16: parse_address("2001:db8:ffff::80")}


@dataclass(frozen=True, slots=True)
class Row:
    """One traffic class; `rule` is the verdict table's row, 0 for the kernel's ingress check."""

    family: int
    traffic: str
    known: str
    known_rule: int
    unknown: str
    unknown_rule: int
    remark: str = ""


def matrix(config: TableConfig, opted_out: bool = False) -> list[Row]:
    """The classes for each family that has pods.  `opted_out`: this node is, of node encryption."""
    rows: list[Row] = []
    for size in (4, 16):
        pods = next((cidr for cidr in config.pod_cidrs if len(cidr.ip) == size), None)
        if pods is not None:
            rows += _family(config, pods, opted_out)
    return rows


def _family(config: TableConfig, pods: Prefix, opted_out: bool) -> Iterator[Row]:
    size = len(pods.ip)
    nodes = next((cidr for cidr in config.node_cidrs if len(cidr.ip) == size), _NODES[size])
    here, there = _at(nodes, 1), _at(nodes, 2)
    pod, neighbour, remote = _at(pods, 1), _at(pods, 2), _at(pods, 3)
    known, unknown = _tables(config, (here, there), (pod, neighbour, remote), opted_out)
    classes: list[tuple[str, AddressBytes, AddressBytes, str]] = [
        ("pod → pod, same node", pod, neighbour, ""),
        ("pod → pod", pod, remote, ""),
        ("pod → node", pod, there, ""),
        ("node → pod", here, remote, "also kubelet health checks, port-forward"),
        ("node → node", here, there, "etcd ports of control-plane nodes pass"),
        ("pod → world", pod, _WORLD[size], ""),
    ]
    family = 4 if size == 4 else 6
    for traffic, source, destination, remark in classes:
        first, second = known.decide(source, destination), unknown.decide(source, destination)
        exception = first.rule is Rule.NODE_UNKNOWN or second.rule is Rule.NODE_UNKNOWN
        yield Row(
            family, traffic, _outcome(first), int(first.rule), _outcome(second), int(second.rule),
            remark if exception or not remark.startswith("etcd") else "",
        )
    closed = config.ingress and config.mode is Mode.STRICT
    outcome = "dropped" if closed else "plaintext"
    remark = "answers to masqueraded pods pass" if closed else ""
    yield Row(family, "world → pod", outcome, 0, outcome, 0, remark)


def _tables(
    config: TableConfig,
    nodes: tuple[AddressBytes, AddressBytes],
    pods: tuple[AddressBytes, AddressBytes, AddressBytes],
    opted_out: bool,
) -> tuple[StrictTable, StrictTable]:
    """The running settings with the other node known, and with it unknown."""
    settings = TableConfig(
        node="here",
        mode=config.mode,
        pod_cidrs=config.pod_cidrs,
        node_cidrs=(*config.node_cidrs, _NODES[len(nodes[0])]),
        ingress=config.ingress,
        node_encryption=config.node_encryption,
        node_encryption_opt_out=Selector.parse(CONTROL_PLANE_LABEL if opted_out else ""),
        allow_remote_node_identities=config.allow_remote_node_identities,
    )
    labels = {CONTROL_PLANE_LABEL: ""} if opted_out else {}
    known, unknown = StrictTable(settings), StrictTable(settings)
    for table in (known, unknown):
        table.upsert_node(Node("here", (nodes[0],), _key(1), labels=labels))
        for pod in pods[:2]:
            table.upsert_entry(Entry(Prefix(pod, len(pod) * 8), "here"))
    known.upsert_node(Node("there", (nodes[1],), _key(2)))
    known.upsert_entry(Entry(Prefix(pods[2], len(pods[2]) * 8), "there"))
    return known, unknown


def _outcome(decision: Decision) -> str:
    return "local" if decision.rule is Rule.LOCAL else decision.outcome


def _at(cidr: Prefix, number: int) -> AddressBytes:
    """The `number`-th address of a CIDR; a CIDR too small for it wraps round."""
    size = len(cidr.ip)
    room = 1 << (size * 8 - cidr.length)
    return (int.from_bytes(cidr.ip) + number % room).to_bytes(size)


def _key(number: int) -> PublicKey:
    return PublicKey(bytes(31) + bytes([number]))
