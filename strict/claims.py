"""Who may claim what, where the claims come from a store that others write to.

A node's own file is written by its administrator and is believed.  A shared store is
written by every node, and one of them may be broken or taken over.  The rules keep what
it writes from taking another node's traffic:

* an address, a pod CIDR and a key belong to the first that claimed them, until it goes;
  this node's own are never anybody else's;
* a node's pod CIDRs lie inside the cluster's and are smaller than those;
* an address inside a node's pod CIDR is on that node; a longer range is only ever one
  inside the pod CIDR of its own node;
* an entry cannot forbid encryption to a node that has a key.

Compare `strict.nodes`, where the latest claim holds: that is for people, who know why.
Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from strict.ipcache import Entry
from strict.nodes import Node
from strict.settings import TableConfig
from strict.table import StrictTable
from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address


class ClaimRefused(ValueError):
    """It would take what is another's; says whose."""


class Claims:
    """Addresses and pod CIDRs of the nodes that are in force."""

    def __init__(self) -> None:
        self._addresses: dict[AddressBytes, str] = {}
        self._ranges: dict[int, list[tuple[bytes, int, str]]] = {4: [], 16: []}
        self._nodes: dict[str, Node] = {}

    def hold(self, node: Node) -> None:
        """What this node claims is its own now, also if another held it."""
        self.release(node.name)
        self._nodes[node.name] = node
        for address in node.addresses:
            self._addresses[address] = node.name
        for cidr in set(node.pod_cidrs):
            insort(self._ranges[len(cidr.ip)], (cidr.ip, cidr.length, node.name))

    def release(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is None:
            return
        for address in node.addresses:
            if self._addresses.get(address) == name:
                del self._addresses[address]
        for cidr in set(node.pod_cidrs):
            self._ranges[len(cidr.ip)].remove((cidr.ip, cidr.length, name))

    def check_node(self, node: Node, config: TableConfig) -> None:
        """Raises `ClaimRefused`; for a node out of a shared store."""
        for address in node.addresses:
            holder = self._addresses.get(address, node.name)
            if holder != node.name:
                raise _refused(node, f"address {format_address(address)}", holder, config)
        for cidr in node.pod_cidrs:
            if not any(_holds(whole, cidr) for whole in config.pod_cidrs):
                inside = ", ".join(map(str, config.pod_cidrs))
                raise ClaimRefused(
                    f"node {node.name!r} claims the pod CIDR {cidr}, which is not a part of the "
                    f"cluster's pod CIDRs ({inside})"
                )
            for holder, held in self._overlapping(cidr):
                if holder != node.name:
                    raise _refused(node, f"pod CIDR {cidr}, which overlaps {held}", holder, config)
        if node.allowed_ips:
            raise ClaimRefused(f"node {node.name!r}: allowed_ips come from files only")

    def _overlapping(self, cidr: Prefix) -> Iterable[tuple[str, Prefix]]:
        """Prefixes are nested or apart: those around it, and those that begin inside."""
        ranges, bits = self._ranges[len(cidr.ip)], len(cidr.ip) * 8
        for length in range(cidr.length + 1):
            ip = Prefix.masked(cidr.ip, length).ip
            for index in range(bisect_left(ranges, (ip, length, "")), len(ranges)):
                if ranges[index][:2] != (ip, length):
                    break
                yield ranges[index][2], Prefix(ip, length)
        last = (int.from_bytes(cidr.ip) | (1 << bits - cidr.length) - 1).to_bytes(len(cidr.ip))
        for ip, length, name in ranges[bisect_left(ranges, (cidr.ip, cidr.length, "")) :]:
            if ip > last:
                return
            yield name, Prefix(ip, length)


def check_entry(entry: Entry, table: StrictTable, fixed: str | None) -> None:
    """Raises `ClaimRefused`; for an entry out of a shared store.

    `fixed` is the node that this host's own files give the prefix to.
    """
    config = table.config
    if config is None:
        return
    node = table.resolve(entry.node)
    name = node.name if node else entry.node
    what = f"{entry.prefix} is said to be on {name!r}"
    if fixed not in (None, name, entry.node):
        raise ClaimRefused(f"{what}, but a file of this node says {fixed!r}")
    if name == config.node:
        raise ClaimRefused(f"{what}, this node, which knows nothing of it")
    if table.nodes.at(entry.prefix.ip) is not None:
        raise ClaimRefused(f"{what}, but it is a node's address")
    whole = entry.prefix.length == len(entry.prefix.ip) * 8
    covering = table.nodes.covering(entry.prefix.ip)
    if covering is None and not (whole and entry.prefix.ip in config.pods):
        raise ClaimRefused(f"{what}, but it is not an address of a pod")
    if covering is not None:
        cidr, owner = covering
        if owner.name != name:
            raise ClaimRefused(f"{what}, but it is in the pod CIDR {cidr} of {owner.name!r}")
        if not _holds(cidr, entry.prefix, equal=True):
            raise ClaimRefused(f"{what}, but it is larger than that node's pod CIDR {cidr}")
    if not entry.encrypt and node is not None and node.public_key is not None:
        raise ClaimRefused(f"{what} without encryption, although that node has a key")


def _holds(whole: Prefix, part: Prefix, equal: bool = False) -> bool:
    longer = part.length >= whole.length if equal else part.length > whole.length
    return longer and part.ip in whole


def _refused(node: Node, what: str, holder: str, config: TableConfig) -> ClaimRefused:
    whose = "this node" if holder == config.node else f"node {holder!r}"
    return ClaimRefused(
        f"node {node.name!r} claims {what} of {whose}: refused until that one is gone"
    )
