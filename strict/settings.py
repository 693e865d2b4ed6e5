"""Settings of the strict table (all but nodes and entries), and the check of overlaps.

A frozen value: every change creates a new one, which replaces the table's settings as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from strict.labels import Selector
from strict.nodes import CONTROL_PLANE_LABEL, Node
from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address

ETCD_PORTS: Final = (2379, 2380)


class Mode(Enum):
    """What happens to pod traffic with an unknown destination."""

    DEFAULT = "default"
    """It leaves in plaintext, as in Cilium."""
    STRICT = "strict"
    """It is dropped."""


class OverlapRefused(ValueError):
    """Node addresses inside the pod CIDRs: strict mode would cut the node off."""


class PrefixSet:
    """A few prefixes, optimised for frequent lookups of an address."""

    __slots__ = ("_by_size",)

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._by_size: dict[int, list[tuple[int, int]]] = {4: [], 16: []}
        for prefix in prefixes:
            shift = len(prefix.ip) * 8 - prefix.length
            self._by_size[len(prefix.ip)].append((shift, int.from_bytes(prefix.ip) >> shift))

    def __contains__(self, address: AddressBytes) -> bool:
        value = int.from_bytes(address)
        # A plain loop: any() with a generator takes twice as long.
        for shift, number in self._by_size[len(address)]:  # noqa: SIM110
            if value >> shift == number:
                return True
        return False


@dataclass(frozen=True, slots=True)
class TableConfig:
    """The settings of one node's table; validated when built."""

    node: str
    """This node's own name."""
    mode: Mode = Mode.STRICT
    pod_cidrs: tuple[Prefix, ...] = ()
    node_cidrs: tuple[Prefix, ...] = ()
    ingress: bool = True
    node_encryption: bool = False
    node_encryption_opt_out: Selector = field(default_factory=Selector)
    control_plane: tuple[Prefix, ...] = ()
    """Control-plane addresses besides the nodes that carry the label."""
    etcd_ports: tuple[int, ...] = ETCD_PORTS
    allow_remote_node_identities: bool = False
    pods: PrefixSet = field(init=False, repr=False, compare=False)
    """The pod CIDRs, for lookups."""
    nodes: PrefixSet = field(init=False, repr=False, compare=False)
    """The node CIDRs, for lookups."""

    def __post_init__(self) -> None:
        """Raises `OverlapRefused`; ValueError when strict mode has no pod CIDRs."""
        object.__setattr__(self, "pods", PrefixSet(self.pod_cidrs))
        object.__setattr__(self, "nodes", PrefixSet(self.node_cidrs))
        if self.mode is Mode.STRICT and not self.pod_cidrs:
            raise ValueError(
                "strict mode needs pod_cidrs to distinguish pods from the world"
            )
        if self.allow_remote_node_identities or self.mode is Mode.DEFAULT:
            return
        for cidr in self.node_cidrs:
            if cidr.overlaps(self.pod_cidrs):
                raise OverlapRefused(_overlap(f"node CIDR {cidr}", self.pod_cidrs))

    def check_node(self, node: Node) -> None:
        """Raises `OverlapRefused` for a node that lives inside the pod CIDRs."""
        if self.allow_remote_node_identities or self.mode is Mode.DEFAULT:
            return
        for address in node.addresses:
            if self.is_pod(address):
                what = f"address {format_address(address)} of node {node.name!r}"
                raise OverlapRefused(_overlap(what, self.pod_cidrs))
        if node.endpoint is not None and self.is_pod(node.endpoint.ip):
            raise OverlapRefused(
                _overlap(f"endpoint {node.endpoint} of node {node.name!r}", self.pod_cidrs)
            )

    def is_pod(self, address: AddressBytes) -> bool:
        """Whether the pod CIDRs contain a packed address."""
        return address in self.pods

    def is_control_plane(self, address: AddressBytes, node: Node | None) -> bool:
        """By label or by address."""
        if node is not None and CONTROL_PLANE_LABEL in node.labels:
            return True
        return any(address in prefix for prefix in self.control_plane)


def _overlap(what: str, pod_cidrs: tuple[Prefix, ...]) -> str:
    pods = ", ".join(map(str, pod_cidrs))
    return (
        f"{what} overlaps the pod CIDRs ({pods}). This will cause the node to drop all traffic "
        "to and from its fellow nodes: strict mode cannot tell nodes from pods. Choose other "
        "CIDRs, or set allow_remote_node_identities to let known node addresses through in "
        "plaintext"
    )
