"""The strict table: what happens to a packet, from mode, CIDRs, ipcache and nodes.

Pure and generation-counted.  `decide` and `decide_ingress` are the verdict table of
docs/strict-mode.md read from top to bottom, the same for IPv4 and IPv6; they judge
addresses, not protocols, with two exceptions: row 9 reads TCP ports for etcd, and what
would leave in plaintext is looked into for a packet that it quotes or wraps.  The kernel's
ICMP errors about pods' packets come from a node's address, with up to a whole packet of a
pod inside.

Invariants: no row gives PLAINTEXT to a packet from the pod CIDRs to the pod CIDRs in
strict mode, unless it stays on this node or goes to a known node's own address that
`allow_remote_node_identities` lets live there.  A table without settings drops everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from strict import headers
from strict.ipcache import Entry, Ipcache, Source
from strict.nodes import Node, NodeRegistry
from strict.settings import Mode, TableConfig
from strict.verdicts import (
    ENCRYPT_THIS_TIME,
    MALFORMED,
    NOT_LOADED,
    NOT_ON_NODE,
    PLAINTEXT_THIS_TIME,
    UNENCRYPTED,
    UNENCRYPTED_THIS_TIME,
    Decision,
    Rule,
)
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.endpoint import (
    AddressBytes,
    AddressFormatError,
    Prefix,
    format_address,
    parse_address,
)
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.policy import ACCEPT, ENCRYPT, PLAINTEXT, Action, Verdict

NESTED: Final = 4
"""Packets within packets that are looked at; deeper ones count as a pod's."""


class Kind(Enum):
    """What an address is to the cluster."""

    POD = "pod"
    NODE = "node"
    WORLD = "world"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an address is: its node (None: unknown) and the source of this knowledge."""

    node: Node | None
    reference: str = ""
    entry: Entry | None = None
    cidr: Prefix | None = None


class StrictTable:
    """One node's table; implements `wgpy.protocol.policy.PacketPolicy`."""

    __slots__ = ("config", "generation", "ipcache", "nodes")

    def __init__(self, config: TableConfig | None = None, generation: int = 0) -> None:
        self.config = config
        self.ipcache = Ipcache()
        self.nodes = NodeRegistry()
        self.generation = generation

    # Changes.  Each increments the generation only if an answer may have changed.

    def configure(self, config: TableConfig) -> None:
        """Take new settings; raises `OverlapRefused` when a known node does not fit them."""
        for node in self.nodes:
            config.check_node(node)
        self.config = config
        self.generation += 1

    def upsert_entry(self, entry: Entry) -> None:
        """Raises `IpcacheFull` or ValueError."""
        if self.ipcache.upsert(entry):
            self.generation += 1

    def delete_entry(self, prefix: Prefix, source: Source) -> None:
        if self.ipcache.delete(prefix, source):
            self.generation += 1

    def upsert_node(self, node: Node) -> None:
        """Raises `NodeRefused` or `OverlapRefused`."""
        if self.config is not None:
            self.config.check_node(node)
        if self.nodes.upsert(node):
            self.generation += 1

    def delete_node(self, name: str) -> None:
        if self.nodes.delete(name):
            self.generation += 1

    # The policy port.

    def egress(self, source: bytes, destination: bytes, packet: Buffer) -> Verdict:
        """See `decide`."""
        return self.decide(source, destination, packet).verdict

    def ingress(
        self, source: bytes, destination: bytes, peer: PublicKey, packet: Buffer  # noqa: ARG002
    ) -> Verdict:
        """See `decide_ingress`."""
        return self.decide_ingress(source, destination, peer).verdict

    def malformed(self, packet: Buffer) -> Verdict:  # noqa: ARG002
        """Row 1."""
        return self.decide_malformed().verdict

    # The verdict table.

    def decide_malformed(self) -> Decision:
        """Row 1: Cilium fails open, strict mode fails closed."""
        if self.config is None:
            return Decision(Rule.NOT_LOADED, NOT_LOADED)
        open_ = self.config.mode is Mode.DEFAULT
        return Decision(Rule.MALFORMED, PLAINTEXT if open_ else MALFORMED)

    def decide(
        self, source: AddressBytes, destination: AddressBytes, packet: Buffer = b""
    ) -> Decision:
        """Rows 2 to 9.

        Without `packet` neither the etcd exception of row 9 applies nor the look inside.
        """
        config = self.config
        if config is None:
            return Decision(Rule.NOT_LOADED, NOT_LOADED, "the table: no settings were loaded yet")
        kind = self.kind(destination)
        place = self._place(destination, kind)
        if config.node in (place.reference, place.node and place.node.name):
            return _decision(Rule.LOCAL, PLAINTEXT, place)
        decision = self._decide_addresses(config, source, destination, place, packet)
        strict = config.mode is Mode.STRICT and decision.verdict.action is Action.PLAINTEXT
        if strict and packet and self._carries_pods(packet):
            known = place.node is not None and place.node.public_key is not None
            if known and _encrypts(place):
                return _decision(Rule.CARRIED, ENCRYPT_THIS_TIME, place)
            missing = _missing(destination, place)
            return _decision(Rule.CARRIED, UNENCRYPTED_THIS_TIME, place, missing)
        return decision

    def _decide_addresses(
        self,
        config: TableConfig,
        source: AddressBytes,
        destination: AddressBytes,
        place: _Place,
        packet: Buffer,
    ) -> Decision:
        """Rows 3 to 9."""
        kind, source_kind = self.kind(destination), self.kind(source)
        if kind is Kind.NODE or (source_kind is Kind.NODE and _is_inside(kind, place)):
            if source_kind is Kind.WORLD:
                return _decision(Rule.OUTSIDE, PLAINTEXT, place)
            return self._decide_node(config, source, destination, place, packet)
        if place.node is not None and place.node.public_key is not None and _encrypts(place):
            rule = Rule.KNOWN_ENDPOINT if place.entry is not None else Rule.KNOWN_POD_CIDR
            return _decision(rule, ENCRYPT, place)
        if _is_inside(kind, place):
            verdict = UNENCRYPTED if config.mode is Mode.STRICT else PLAINTEXT
            return _decision(Rule.UNKNOWN_POD, verdict, place, _missing(destination, place))
        return _decision(Rule.OUTSIDE, PLAINTEXT, place)

    def _carries_pods(self, packet: Buffer) -> bool:
        """Whether a packet quotes or wraps a pod-to-pod packet, or an unreadable one."""
        for _ in range(NESTED):
            inner = headers.carried(packet)
            if inner is None:
                return False
            ends = headers.ends(inner)
            if ends is None or all(map(self._is_pod, ends)):
                return True
            packet = inner
        return True

    def _is_pod(self, address: AddressBytes) -> bool:
        kind = self.kind(address)
        return _is_inside(kind, self._place(address, kind))

    def _decide_node(
        self,
        config: TableConfig,
        source: AddressBytes,
        destination: AddressBytes,
        place: _Place,
        packet: Buffer,
    ) -> Decision:
        """Rows 7 to 9: at least one side is a node, the other a node or a pod."""
        source_node = self._place(source, self.kind(source)).node
        if not config.node_encryption or any(
            self.opted_out(node) for node in (self.nodes.get(config.node), source_node, place.node)
        ):
            return _decision(Rule.NODE_PLAINTEXT, PLAINTEXT, place)
        if place.node is not None and place.node.public_key is not None and _encrypts(place):
            return _decision(Rule.NODE_ENCRYPTED, ENCRYPT, place)
        missing = _missing(destination, place)
        if config.mode is Mode.DEFAULT:
            return _decision(Rule.NODE_UNKNOWN, PLAINTEXT, place, missing)
        ours = config.is_control_plane(source, self.nodes.at(source))
        theirs = config.is_control_plane(destination, self.nodes.at(destination))
        if not (ours or theirs):
            return _decision(Rule.NODE_UNKNOWN, UNENCRYPTED, place, missing)
        ports = headers.tcp_ports(packet)
        etcd = ports is not None and (
            (ours and ports[0] in config.etcd_ports) or (theirs and ports[1] in config.etcd_ports)
        )
        verdict = PLAINTEXT_THIS_TIME if etcd else UNENCRYPTED_THIS_TIME
        return _decision(Rule.NODE_UNKNOWN, verdict, place, missing)

    def decide_ingress(
        self, source: AddressBytes, destination: AddressBytes, peer: PublicKey
    ) -> Decision:
        """The inner source must be on the node whose key authenticated the packet.

        And the destination must be here: a packet for a pod that is known to be elsewhere would be
        forwarded by the underlay, in plaintext.
        """
        config = self.config
        if config is None:
            return Decision(Rule.NOT_LOADED, NOT_LOADED, "the table: no settings were loaded yet")
        place = self._place(source, self.kind(source))
        if config.mode is Mode.DEFAULT:
            return _decision(Rule.INGRESS, ACCEPT, place)
        target = self._place(destination, self.kind(destination))
        here = config.node in (target.reference, target.node and target.node.name)
        if destination in config.pods and target.node is not None and not here:
            missing = f"{format_address(destination)} is not here but on {target.node.name!r}"
            return _decision(Rule.INGRESS, UNENCRYPTED, target, missing)
        sender = self.nodes.with_key(peer)
        if place.node is None and not place.reference and sender is not None:
            carried = next((p for p in sender.allowed_ips if source in p), None)
            if carried is not None:
                return Decision(Rule.INGRESS, ACCEPT, cidr=carried, node=sender)
        if place.node is not None and place.node.public_key == peer:
            return _decision(Rule.INGRESS, ACCEPT, place)
        if place.node is None:
            missing = _missing(source, place)
        else:
            found = "an unknown node" if sender is None else f"node {sender.name!r}"
            missing = f"{format_address(source)} is on {place.node.name!r}; it came from {found}"
        return _decision(Rule.INGRESS, NOT_ON_NODE, place, missing)

    # What an address is.

    def kind(self, address: AddressBytes) -> Kind:
        """Pod, node or world.  Inside the pod CIDRs only a node's own known address is a node."""
        config = self.config
        if config is None:
            return Kind.WORLD
        pod = address in config.pods
        if self.nodes.at(address) is not None and (
            not pod or config.allow_remote_node_identities or config.mode is Mode.DEFAULT
        ):
            return Kind.NODE
        if pod:
            return Kind.POD
        return Kind.NODE if address in config.nodes else Kind.WORLD

    def opted_out(self, node: Node | None) -> bool:
        """Whether a node keeps its own traffic (not its pods') out of the tunnel."""
        config = self.config
        return (
            node is not None
            and config is not None
            and config.node_encryption_opt_out.selects(node.labels)
        )

    def _place(self, address: AddressBytes, kind: Kind) -> _Place:
        """The ipcache and the nodes' pod CIDRs, whichever has the longer prefix."""
        if kind is Kind.NODE:
            return _Place(self.nodes.at(address))
        entry = self.ipcache.lookup(address)
        covering = self.nodes.covering(address)
        if entry is not None and (covering is None or entry.prefix.length >= covering[0].length):
            return _Place(self.resolve(entry.node), entry.node, entry)
        if covering is not None:
            return _Place(covering[1], covering[1].name, None, covering[0])
        return _Place(None)

    def resolve(self, reference: str) -> Node | None:
        """The node of an entry, by name or by one of its addresses."""
        node = self.nodes.get(reference)
        if node is None and reference:
            try:
                return self.nodes.at(parse_address(reference))
            except AddressFormatError:
                return None
        return node


def _is_inside(kind: Kind, place: _Place) -> bool:
    """A pod: by the pod CIDRs, or because the ipcache puts it on a node."""
    return kind is Kind.POD or bool(place.reference)


def _encrypts(place: _Place) -> bool:
    return place.entry is None or place.entry.encrypt


def _missing(address: AddressBytes, place: _Place) -> str:
    """What would have to be published for this packet to be encrypted."""
    if place.node is not None:
        if place.node.public_key is None:
            return f"the WireGuard key of node {place.node.name!r}"
        return f"encryption: the ipcache entry {place.entry and place.entry.prefix} forbids it"
    if place.reference:
        return f"node {place.reference!r}, which the ipcache entry names"
    return f"an ipcache entry for {format_address(address)}, or a node whose pod CIDR covers it"


def _decision(rule: Rule, verdict: Verdict, place: _Place, missing: str = "") -> Decision:
    return Decision(rule, verdict, missing, place.entry, place.cidr, place.node)
