"""From the known cluster to WireGuard peers: which peer gets which allowed IPs.

A peer's allowed IPs are its node's pod CIDRs and `allowed_ips`, the single pods outside
those, and the node's addresses.  `difference` turns two such
states into the smallest change: a prefix that moves is only added at its new owner, which
moves it at once, so no unrelated prefix and no moving one is ever without an owner.

Pure.  Talking to the device is left to `strict.dataplane`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from strict.nodes import Node, NodeRegistry
from strict.table import StrictTable
from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.endpoint import Endpoint, Prefix
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import AllowedIp, DeviceChange, DeviceSnapshot, PeerChange


@dataclass(slots=True)
class Desired:
    """Every peer's endpoint and every prefix's owner."""

    endpoints: dict[PublicKey, Endpoint | None] = field(default_factory=dict)
    owners: dict[Prefix, PublicKey] = field(default_factory=dict)

    @classmethod
    def of_device(cls, snapshot: DeviceSnapshot) -> Desired:
        """What a running device has."""
        desired = cls()
        for peer in snapshot.peers:
            endpoint = peer.endpoint
            desired.endpoints[peer.public_key] = endpoint.without_source() if endpoint else None
            desired.owners.update(dict.fromkeys(peer.allowed_ips, peer.public_key))
        return desired

    def part(self, prefixes: Iterable[Prefix]) -> Desired:
        """Only the owners of these prefixes."""
        owners = {prefix: self.owners[prefix] for prefix in prefixes if prefix in self.owners}
        return Desired(self.endpoints, owners)

    def replace_part(self, prefixes: Iterable[Prefix], part: Desired) -> None:
        """These prefixes have the owners of `part` now, or none."""
        for prefix in prefixes:
            self.owners.pop(prefix, None)
        self.owners.update(part.owners)


class PeerPlan:
    """Computes `Desired` from a table, whole or for single prefixes."""

    def __init__(self, table: StrictTable, port: int) -> None:
        """`port` is the endpoint's where a node does not say."""
        self._table = table
        self._port = port
        self._ranges: PrefixTable[str] = PrefixTable()
        self._fixed: dict[Prefix, PublicKey] = {}
        self._endpoints: dict[PublicKey, Endpoint | None] = {}
        self.refresh()

    def refresh(self) -> None:
        """The nodes or the settings have changed."""
        nodes = self._table.nodes
        self._ranges, self._fixed, self._endpoints = PrefixTable(), {}, {}
        for node in nodes:
            for prefix in _ranges(nodes, node):
                self._ranges.insert(prefix, node.name)
            if node.public_key is not None and not self._is_local(node):
                self._endpoints[node.public_key] = _endpoint(node, self._port)
                own = [*_ranges(nodes, node), *self._addresses(node)]
                self._fixed.update(dict.fromkeys(own, node.public_key))

    def whole(self) -> Desired:
        """Everything, entries included."""
        owners = dict(self._fixed)
        for entry in self._table.ipcache:
            owner = self._owner_of(entry.prefix, entry.node)
            if owner is not None:
                owners.setdefault(entry.prefix, owner)
        return Desired(dict(self._endpoints), owners)

    def part(self, prefixes: Iterable[Prefix]) -> Desired:
        """Which peers now need exactly these prefixes in their allowed IPs."""
        part = Desired(dict(self._endpoints))
        for prefix in prefixes:
            owner = self._fixed.get(prefix)
            found = self._table.ipcache.get(prefix)
            if owner is None and found:
                owner = self._owner_of(prefix, found[0].node)
            if owner is not None:
                part.owners[prefix] = owner
        return part

    def _owner_of(self, prefix: Prefix, reference: str) -> PublicKey | None:
        node = self._table.resolve(reference)
        if node is None or node.public_key is None or self._is_local(node):
            return None
        if prefix.length == len(prefix.ip) * 8 and self._ranges.lookup(prefix.ip) == node.name:
            return None
        return node.public_key

    def _addresses(self, node: Node) -> Iterator[Prefix]:
        """Also without node encryption: a node's errors about pods' packets come encrypted."""
        for address in node.addresses:
            if self._table.nodes.at(address) == node:
                yield Prefix(address, len(address) * 8)

    def _is_local(self, node: Node) -> bool:
        return self._table.config is not None and node.name == self._table.config.node


def difference(old: Desired, new: Desired) -> tuple[DeviceChange, DeviceChange]:
    """What to add (and move), to be applied before the table changes, and what to remove after."""
    adds: dict[PublicKey, list[AllowedIp]] = {}
    removes: dict[PublicKey, list[AllowedIp]] = {}
    for prefix in new.owners.keys() | old.owners.keys():
        before, after = old.owners.get(prefix), new.owners.get(prefix)
        if before == after:
            continue
        if after is not None:
            adds.setdefault(after, []).append(AllowedIp(prefix))
        elif before in new.endpoints and before is not None:
            removes.setdefault(before, []).append(AllowedIp(prefix, remove=True))
    changed = [
        PeerChange(
            key,
            endpoint=endpoint if old.endpoints.get(key) != endpoint else None,
            allowed_ips=tuple(adds.get(key, ())),
        )
        for key, endpoint in new.endpoints.items()
        if key not in old.endpoints or old.endpoints[key] != endpoint or key in adds
    ]
    gone = [PeerChange(key, remove=True) for key in old.endpoints if key not in new.endpoints]
    gone += [
        PeerChange(key, update_only=True, allowed_ips=tuple(found))
        for key, found in removes.items()
    ]
    return DeviceChange(peers=tuple(changed)), DeviceChange(peers=tuple(gone))


def _ranges(nodes: NodeRegistry, node: Node) -> Iterator[Prefix]:
    """What a node's tunnel carries as a whole: pod CIDRs it owns, and its `allowed_ips`."""
    for cidr in node.pod_cidrs:
        if nodes.owns_cidr(node.name, cidr):
            yield cidr
    yield from node.allowed_ips


def _endpoint(node: Node, port: int) -> Endpoint | None:
    if node.endpoint is not None:
        return node.endpoint
    return Endpoint(node.addresses[0], port) if node.addresses else None
