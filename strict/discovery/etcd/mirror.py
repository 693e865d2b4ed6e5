"""What the store holds of one cluster, as far as differences need it: pure.

Pairs and events go in, `Update`s come out.  A whole listing is compared with what is known
already, so that after a lost connection or a compaction only differences come out and
nothing is forgotten and learned again in between.

A key that cannot be read is refused alone, and the last good value of it stays in force
until the key is deleted: spoiling another node's key does not cut it off.
One node has at most `MAX_PER_NODE` addresses, and addresses of unknown nodes have as many
together: the store can hold millions of keys, this process cannot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from strict.discovery import (
    EntryDelete,
    EntryUpsert,
    NodeDelete,
    NodeUpsert,
    Refused,
    Update,
)
from strict.discovery.etcd.layout import Layout, read_entry, read_node
from strict.discovery.etcd.store import Pair
from strict.ipcache import Source
from wgpy.protocol.endpoint import AddressBytes, Prefix

MAX_PER_NODE: Final = 4096
MAX_NODES: Final = 20_000
NOBODY: Final = ""
"""Whose entries are counted together: their node is unknown."""


@dataclass(frozen=True, slots=True)
class Touched:
    """A key that speaks for this node is there, was changed, or is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node wants to hear when all that was said before this is in the table."""

    name: str


Said = Update | Touched | Leaving


class Mirror:
    """The nodes and addresses of a cluster but for this node's own."""

    def __init__(self, layout: Layout, own_name: str) -> None:
        self._layout = layout
        self._own_name = own_name
        self._nodes: dict[str, int] = {}
        self._node_addresses: dict[str, tuple[AddressBytes, ...]] = {}
        self._hosts: dict[AddressBytes, str] = {}
        self._own_addresses: frozenset[AddressBytes] = frozenset()
        self._entries: dict[str, tuple[int, str]] = {}
        self._counts: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._own_keys: set[str] = set()
        """Addresses in the store that speak for this node, whoever wrote them."""
        self.overfull = False
        """Addresses of nodes that were not known were left out."""
        self.relist = False
        """And then a node has come: those left out may be its own."""

    def own(self, addresses: Iterable[AddressBytes]) -> None:
        """This node's own addresses: entries on them are its own business."""
        self._own_addresses = frozenset(addresses)

    # A whole listing: first all nodes, then the addresses page by page.

    def list_nodes(self, pairs: Iterable[Pair]) -> Iterator[Said]:
        """Those that were claimed first come first: of two claims the earlier one holds."""
        found = sorted(pairs, key=lambda pair: pair.created)
        names = {self._name(pair.key) for pair in found}
        for name in [name for name in self._nodes if name not in names]:
            yield from self._drop_node(name)
        yield Touched(self._layout.nodes + self._own_name)
        for pair in found:
            if self._nodes.get(self._name(pair.key)) != pair.revision:
                yield from self._take_node(pair)

    def list_entries(self, pairs: Iterable[Pair], seen: set[str]) -> Iterator[Said]:
        """One page; `seen` collects what `list_end` needs."""
        for pair in pairs:
            address = self._address(pair.key)
            seen.add(address)
            if self._entries.get(address, (0, ""))[0] != pair.revision:
                yield from self._take_entry(pair)

    def list_end(self, seen: set[str]) -> Iterator[Said]:
        """What is known and was not listed is gone."""
        for key in [key for key in self._own_keys if self._address(key) not in seen]:
            self._own_keys.discard(key)
            yield Touched(key)
        for address in [address for address in self._entries if address not in seen]:
            yield from self._drop_entry(address)

    def list_drains(self, pairs: Iterable[Pair]) -> Iterator[Said]:
        """Who is leaving; answering twice does no harm."""
        for pair in pairs:
            yield from self.event(pair)

    # Events.

    def event(self, pair: Pair) -> Iterator[Said]:
        """One change in the store."""
        key, layout = pair.key, self._layout
        if key.startswith(layout.addresses):
            if pair.value is None:
                if key in self._own_keys:
                    self._own_keys.discard(key)
                    yield Touched(key)
                yield from self._drop_entry(self._address(key))
            else:
                yield from self._take_entry(pair)
        elif key.startswith(layout.nodes):
            if self._name(key) == self._own_name:
                yield Touched(key)
            elif pair.value is None:
                yield from self._drop_node(self._name(key))
            else:
                yield from self._take_node(pair)
        elif key.startswith(layout.drains):
            name = key.removeprefix(layout.drains)
            if pair.value is not None and name != self._own_name:
                yield Leaving(name)

    # Nodes.

    def _take_node(self, pair: Pair) -> Iterator[Said]:
        name = self._name(pair.key)
        if name == self._own_name or pair.value is None:
            return
        try:
            if name not in self._nodes and len(self._nodes) >= MAX_NODES:
                raise ValueError(f"there are {MAX_NODES} nodes already")
            node = read_node(name, self._layout.cluster, pair.value)
        except ValueError as error:
            yield from self._refuse(pair.key, error)
            return
        yield from self._accept(pair.key)
        self.relist |= self.overfull and name not in self._nodes
        self._nodes[name] = pair.revision
        self._let_go(name)
        self._node_addresses[name] = node.addresses
        for address in node.addresses:
            self._hosts.setdefault(address, name)
        yield NodeUpsert(node)

    def _drop_node(self, name: str) -> Iterator[Said]:
        yield from self._accept(self._layout.nodes + name)
        if self._nodes.pop(name, None) is not None:
            self._let_go(name)
            yield NodeDelete(name)

    def _let_go(self, name: str) -> None:
        for address in self._node_addresses.pop(name, ()):
            if self._hosts.get(address) == name:
                del self._hosts[address]

    # Addresses.

    def _take_entry(self, pair: Pair) -> Iterator[Said]:
        address = self._address(pair.key)
        if pair.value is None:
            return
        try:
            entry, host = read_entry(address, pair.value)
            if host in self._own_addresses:
                self._own_keys.add(pair.key)
                yield Touched(pair.key)
                yield from self._drop_entry(address)
                return
            if pair.key in self._own_keys:
                yield Touched(pair.key)
            owner = self._hosts.get(host, NOBODY)
            self._count(address, owner)
        except ValueError as error:
            if pair.key in self._own_keys:
                yield Touched(pair.key)
            yield from self._refuse(pair.key, error)
            return
        yield from self._accept(pair.key)
        self._entries[address] = (pair.revision, owner)
        yield EntryUpsert(entry)

    def _count(self, address: str, owner: str) -> None:
        """Raises ValueError when the owner has too many."""
        before = self._entries.get(address)
        if before is not None and before[1] == owner:
            return
        if self._counts[owner] >= MAX_PER_NODE:
            whose = f"node {owner!r}" if owner else "unknown nodes together"
            self.overfull |= not owner
            raise ValueError(f"more than {MAX_PER_NODE} addresses of {whose}")
        self._counts[owner] += 1
        if before is not None:
            self._counts[before[1]] -= 1

    def _drop_entry(self, address: str) -> Iterator[Said]:
        yield from self._accept(self._layout.addresses + address)
        known = self._entries.pop(address, None)
        if known is not None:
            self._counts[known[1]] -= 1
            yield EntryDelete(Prefix.parse(address), Source.KVSTORE)

    # Refusals.

    def _refuse(self, key: str, error: Exception) -> Iterator[Said]:
        if key in self._refused or len(self._refused) < MAX_PER_NODE:
            self._refused.add(key)
        yield Refused(key, str(error))

    def _accept(self, key: str) -> Iterator[Said]:
        if key in self._refused:
            self._refused.discard(key)
            yield Refused(key, "")

    def _name(self, key: str) -> str:
        return key.removeprefix(self._layout.nodes)

    def _address(self, key: str) -> str:
        return key.removeprefix(self._layout.addresses)
