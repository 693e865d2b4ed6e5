"""The node registry: who is in the cluster, at which addresses, with which key.

Nodes come and go in any order and say inconsistent things for a while; the rules here
keep that from ever sending a packet to the wrong key:

* a node may be known before its key is: `public_key` is None until then;
* one key belongs to one node: a second claim is refused, naming both;
* an all-zero key is refused;
* an address or pod CIDR claimed by two nodes belongs to the one that claimed it last (a
  new machine reuses a dead one's address); it falls back when that one goes.

Pure, no I/O, generation-counted by its owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from wgpy.protocol.endpoint import AddressBytes, Endpoint, Prefix, format_address
from wgpy.protocol.keys import PublicKey

CONTROL_PLANE_LABEL: Final = "node-role.kubernetes.io/control-plane"


class NodeRefused(ValueError):
    """The node contradicts another one or itself; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node as its source describes it; `public_key` None: not published yet.

    `endpoint` None: the first address, at the port the cluster uses.
    """

    name: str
    addresses: tuple[AddressBytes, ...] = ()
    public_key: PublicKey | None = None
    pod_cidrs: tuple[Prefix, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    boot_id: str = ""
    endpoint: Endpoint | None = None
    allowed_ips: tuple[Prefix, ...] = ()
    """What its tunnel may carry besides its known pods, without making that known."""

    @property
    def control_plane(self) -> bool:
        """Whether it carries Kubernetes' control-plane label."""
        return CONTROL_PLANE_LABEL in self.labels


K = TypeVar("K", AddressBytes, Prefix)


class _Claims(Generic[K]):
    """Who claims what; the latest claimant owns it."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[K, list[str]] = {}

    def change(self, name: str, old: Iterable[K], new: Iterable[K]) -> None:
        """Repeating a claim does not renew it: only a fresh one outranks the others."""
        before, after = set(old), set(new)
        for claim in before - after:
            names = self._names[claim]
            names.remove(name)
            if not names:
                del self._names[claim]
        for claim in after - before:
            self._names.setdefault(claim, []).append(name)

    def owner(self, claim: K) -> str | None:
        names = self._names.get(claim)
        return names[-1] if names else None

    def contested(self) -> Iterator[tuple[K, list[str]]]:
        return ((claim, names) for claim, names in self._names.items() if len(names) > 1)


class NodeRegistry:
    """All known nodes by name, address, pod CIDR and key."""

    __slots__ = ("_addresses", "_by_key", "_cidrs", "_counts", "_lengths", "_nodes")

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._by_key: dict[PublicKey, str] = {}
        self._addresses: _Claims[AddressBytes] = _Claims()
        self._cidrs: _Claims[Prefix] = _Claims()
        self._counts: Counter[tuple[int, int]] = Counter()
        self._lengths: dict[int, tuple[int, ...]] = {4: (), 16: ()}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def upsert(self, node: Node) -> bool:
        """Add or replace the node of this name; True when anything changed.

        Raises `NodeRefused` and leaves everything as it was.
        """
        self._check(node)
        old = self._nodes.get(node.name)
        if old == node:
            return False
        if old is not None and old.public_key is not None:
            del self._by_key[old.public_key]
        if node.public_key is not None:
            self._by_key[node.public_key] = node.name
        # The last claim comes last: a table loaded in this order has the same owners.
        self._nodes.pop(node.name, None)
        self._nodes[node.name] = node
        self._claim(node.name, old, node)
        return True

    def delete(self, name: str) -> bool:
        """Forget a node; True when it was known."""
        old = self._nodes.pop(name, None)
        if old is None:
            return False
        if old.public_key is not None:
            del self._by_key[old.public_key]
        self._claim(name, old, None)
        return True

    def get(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def resolve(self, reference: str, address: AddressBytes | None = None) -> Node | None:
        """The node of this name, or else the one that owns `address` (its packed form)."""
        node = self._nodes.get(reference)
        return node if node is not None or address is None else self.at(address)

    def at(self, address: AddressBytes) -> Node | None:
        """The node that owns an address."""
        owner = self._addresses.owner(address)
        return None if owner is None else self._nodes[owner]

    def with_key(self, key: PublicKey) -> Node | None:
        name = self._by_key.get(key)
        return None if name is None else self._nodes[name]

    def covering(self, address: AddressBytes) -> tuple[Prefix, Node] | None:
        """The longest pod CIDR of any node that holds `address`, and its node."""
        for length in self._lengths[len(address)]:
            prefix = Prefix.masked(address, length)
            owner = self._cidrs.owner(prefix)
            if owner is not None:
                return prefix, self._nodes[owner]
        return None

    def owns_cidr(self, name: str, cidr: Prefix) -> bool:
        """Whether this node is the latest to claim the pod CIDR."""
        return self._cidrs.owner(cidr) == name

    def warnings(self) -> list[str]:
        """Description of what several nodes claim at once."""
        contested = [(format_address(ip), names) for ip, names in self._addresses.contested()]
        contested += [(str(cidr), names) for cidr, names in self._cidrs.contested()]
        return [
            f"{what} is claimed by {', '.join(names)}: it belongs to {names[-1]}, the latest"
            for what, names in sorted(contested)
        ]

    def _check(self, node: Node) -> None:
        if not node.name:
            raise NodeRefused("a node needs a name")
        key = node.public_key
        if key is None:
            return
        if key.is_zero:
            raise NodeRefused(
                f"node {node.name!r} has the all-zero key: no node can own it; "
                "leave the key out until it is known"
            )
        holder = self._by_key.get(key)
        if holder is not None and holder != node.name:
            raise NodeRefused(
                f"nodes {holder!r} and {node.name!r} both claim the key {key.base64}: "
                f"{node.name!r} is refused; give it its own key or remove {holder!r}"
            )

    def _claim(self, name: str, old: Node | None, new: Node | None) -> None:
        self._addresses.change(
            name, old.addresses if old else (), new.addresses if new else ()
        )
        self._cidrs.change(name, old.pod_cidrs if old else (), new.pod_cidrs if new else ())
        before, after = old.pod_cidrs if old else (), new.pod_cidrs if new else ()
        if before == after:
            return
        self._counts.update((len(cidr.ip), cidr.length) for cidr in set(after))
        self._counts.subtract((len(cidr.ip), cidr.length) for cidr in set(before))
        self._lengths = {
            width: tuple(
                sorted((n for (w, n), count in self._counts.items() if count and w == width),
                       reverse=True)
            )
            for width in (4, 16)
        }
