"""The merged state of all sources: the agent's own copy of the table.

Nodes and entries that contradict others are refused by name and tried again whenever the
others change.  What several sources say about one node does not mix: this host's files
come first, then the stores, in which everybody's claims are checked (`strict.claims`).
Before a source has synced, what it said in an earlier life is unknown, so nothing is
stale yet (`synced`).  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from strict.claims import Claims, check_entry
from strict.discovery import (
    EntryDelete,
    EntryUpsert,
    NodeDelete,
    NodeUpsert,
    Refused,
    Synced,
    Update,
)
from strict.ipcache import Entry, IpcacheFull, Source
from strict.nodes import Node
from strict.settings import TableConfig
from strict.table import StrictTable
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PublicKey

MAX_REFUSED: Final = 100
"""Refusals that are shown with their reason; all are counted."""
MAX_WAITING: Final = 10_000
"""Refused entries that are kept to be tried again."""

_Place = tuple[Prefix, Source]


@dataclass(slots=True)
class Changes:
    """What one round of updates changed, each thing once, in its last state."""

    nodes: dict[str, Node | None] = field(default_factory=dict)
    entries: dict[tuple[Prefix, Source], Entry | None] = field(default_factory=dict)
    published: list[int] = field(default_factory=list)
    """When the upserts were published, wall-clock ns."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.entries)


class ClusterState:
    """All sources merged into one `StrictTable`."""

    def __init__(self, config: TableConfig, public_key: PublicKey) -> None:
        self.table = StrictTable(config)
        self.refused: dict[str, str] = {}
        """What is not taken, and why; at most `MAX_REFUSED`."""
        self.refusals: Counter[str] = Counter()
        """How often something was refused: `node`, `entry`, or `key` of a store."""
        self.local_pods: set[Prefix] = set()
        """Entries that say: on this node."""
        self._config = config
        self._public_key = public_key
        self._claims = Claims()
        self._said: dict[str, dict[str, tuple[Node, bool]]] = {}
        self._shared: set[str] = set()
        self._waiting: dict[str, tuple[Node, bool]] = {}
        self._fixed: dict[_Place, str] = {}
        self._waiting_entries: dict[_Place, Entry] = {}
        self._loose: set[_Place] = set()
        self._moved = False
        self._synced: set[str] = set()

    @property
    def config(self) -> TableConfig:
        return self._config

    def configure(self, config: TableConfig) -> None:
        """Change the settings; raises ValueError if the known nodes do not fit them."""
        self.table.configure(config)
        self._config = config

    def take(self, source: str, updates: Iterable[Update], shared: bool = False) -> Changes:
        """Merge what a source says; `shared`: a store that others write to as well."""
        changes = Changes()
        for update in updates:
            match update:
                case NodeUpsert(node, published):
                    self._said.setdefault(node.name, {})[source] = (node, shared)
                    self._settle(node.name, changes)
                    changes.published.append(published)
                case NodeDelete(name):
                    self._said.get(name, {}).pop(source, None)
                    self._settle(name, changes)
                case EntryUpsert(entry, published):
                    self._upsert_entry(entry, shared, changes)
                    changes.published.append(published)
                case EntryDelete(prefix, kind):
                    self._delete_entry((prefix, kind), shared, changes)
                case Refused(what, reason):
                    self._refuse("key", what, reason)
                case Synced():
                    self._synced.add(source)
        if changes.nodes:
            self._reconsider(changes)
        return changes

    def synced(self, sources: Iterable[str]) -> bool:
        """Whether all of these sources have synced."""
        return self._synced.issuperset(sources)

    def local(self) -> Node:
        """This node, as the sources describe it, with its own key."""
        known = self.table.nodes.get(self._config.node)
        return known or Node(self._config.node, public_key=self._public_key)

    def local_entries(self) -> list[Entry]:
        """The pods of this node."""
        found = (self.table.ipcache.get(prefix) for prefix in sorted(self.local_pods))
        return [entries[0] for entries in found if entries]

    def set_key(self, public_key: PublicKey) -> None:
        """This node has a new key."""
        self._public_key = public_key
        self._upsert_node(replace(self.local(), public_key=public_key), False, Changes())

    def _refuse(self, kind: str, what: str, reason: str) -> None:
        """Note a refusal; without a reason: it is over."""
        if not reason:
            self.refused.pop(what, None)
            return
        self.refusals[kind] += 1
        if what in self.refused or len(self.refused) < MAX_REFUSED:
            self.refused[what] = reason

    # Nodes.

    def _settle(self, name: str, changes: Changes) -> None:
        """Of what the sources say about one node, a file's word holds, then the first store's."""
        said = self._said.get(name)
        if said:
            node, shared = min(said.values(), key=lambda item: item[1])
            self._upsert_node(node, shared, changes)
            return
        self._said.pop(name, None)
        self._waiting.pop(name, None)
        self.refused.pop(name, None)
        self._forget(name, changes)

    def _forget(self, name: str, changes: Changes) -> None:
        self._moved |= self.table.nodes.get(name) is not None
        self.table.delete_node(name)
        self._claims.release(name)
        self._shared.discard(name)
        changes.nodes[name] = None

    def _upsert_node(self, node: Node, shared: bool, changes: Changes) -> None:
        if node.name == self._config.node:
            if shared:
                return  # what a store says about this node is the writer's business
            node = self._as_local(node)
        else:
            self.refused.pop(node.name, None)
        self._waiting.pop(node.name, None)
        try:
            if shared:
                self._claims.check_node(node, self._config)
            else:
                self._evict_key(node, changes)
            self._put_node(node)
            changes.nodes[node.name] = node
            (self._shared.add if shared else self._shared.discard)(node.name)
            if node.name == self._config.node:
                for entry in self.table.ipcache:
                    self._note_local(entry.prefix)
        except ValueError as error:
            self._waiting[node.name] = (node, shared)
            self._refuse("node", node.name, str(error))

    def _put_node(self, node: Node) -> None:
        old = self.table.nodes.get(node.name)
        self.table.upsert_node(node)
        if old is None or (old.addresses, old.pod_cidrs) != (node.addresses, node.pod_cidrs):
            self._claims.hold(node)
            self._moved |= old is not None

    def _evict_key(self, node: Node, changes: Changes) -> None:
        """A file's claim to a key is stronger than a store's."""
        holder = self.table.nodes.with_key(node.public_key) if node.public_key else None
        if holder is not None and holder.name != node.name and holder.name in self._shared:
            self._set_aside(holder, f"node {node.name!r} of a file of this node has its key",
                            changes)  # fmt: skip

    def _set_aside(self, node: Node, reason: str, changes: Changes) -> None:
        self._forget(node.name, changes)
        self._waiting[node.name] = (node, True)
        self._refuse("node", node.name, reason)

    def _reconsider(self, changes: Changes) -> None:
        """Nodes have changed: what waits may fit now, what was taken may not any more."""
        if any(self._is_file(name) for name in changes.nodes):
            for node in [node for node in self.table.nodes if node.name in self._shared]:
                try:
                    self._claims.check_node(node, self._config)
                except ValueError as error:
                    self._set_aside(node, str(error), changes)
        for node, shared in list(self._waiting.values()):
            self._upsert_node(node, shared, changes)
        self._reconsider_entries(changes)

    def _is_file(self, name: str) -> bool:
        return any(not shared for _, shared in self._said.get(name, {}).values())

    def _as_local(self, node: Node) -> Node:
        """Our own key counts, whatever the sources say; but then other nodes use a wrong one."""
        self.refused.pop(node.name, None)
        if node.public_key not in (None, self._public_key):
            self.refused[node.name] = (
                f"the cluster says that this node, {node.name!r}, has the key "
                f"{node.public_key and node.public_key.base64}, but its private key gives "
                f"{self._public_key.base64}: others cannot talk to it until that is changed"
            )
        return replace(node, public_key=self._public_key)

    # Entries.

    def _upsert_entry(self, entry: Entry, shared: bool, changes: Changes) -> None:
        place = (entry.prefix, entry.source)
        try:
            if shared:
                self._check_entry(entry)
            self.table.upsert_entry(entry)
        except (ValueError, IpcacheFull) as error:
            self._refuse("entry", str(entry.prefix), str(error))
            if shared and len(self._waiting_entries) < MAX_WAITING:
                self._waiting_entries[place] = entry
            return
        self._waiting_entries.pop(place, None)
        self.refused.pop(str(entry.prefix), None)
        if not shared:
            self._fixed[place] = entry.node
        self._note_local(entry.prefix)
        changes.entries[place] = entry
        if not shared:
            for other in self.table.ipcache.get(entry.prefix):
                self._keep_or_set_aside(other, changes)

    def _delete_entry(self, place: _Place, shared: bool, changes: Changes) -> None:
        if shared and place in self._fixed:
            return
        if not shared:
            self._fixed.pop(place, None)
        if self._waiting_entries.pop(place, None) is not None:
            self.refused.pop(str(place[0]), None)
        self._loose.discard(place)
        self.table.delete_entry(*place)
        self._note_local(place[0])
        changes.entries[place] = None

    def _check_entry(self, entry: Entry) -> None:
        """Raises ValueError.  Entries in nobody's pod CIDR are looked at again."""
        place = (entry.prefix, entry.source)
        said = self.table.ipcache.get(entry.prefix)
        fixed = [self._fixed.get((other.prefix, other.source)) for other in said]
        check_entry(entry, self.table, next(filter(None, fixed), None))
        if self.table.nodes.covering(entry.prefix.ip) is None or not entry.encrypt:
            self._loose.add(place)
        else:
            self._loose.discard(place)

    def _keep_or_set_aside(self, entry: Entry, changes: Changes) -> None:
        place = (entry.prefix, entry.source)
        if place in self._fixed:
            return
        try:
            self._check_entry(entry)
        except ValueError as error:
            self._delete_entry(place, True, changes)
            self._refuse("entry", str(entry.prefix), str(error))
            if len(self._waiting_entries) < MAX_WAITING:
                self._waiting_entries[place] = entry

    def _reconsider_entries(self, changes: Changes) -> None:
        """After a claim was given up all entries count as loose, else those in no pod CIDR."""
        if self._moved:
            self._moved = False
            places = [entry.prefix for entry in self.table.ipcache]
            suspects = [entry for prefix in places for entry in self.table.ipcache.get(prefix)]
        else:
            suspects = [
                e for prefix, kind in self._loose for e in self.table.ipcache.get(prefix)
                if e.source is kind
            ]  # fmt: skip
        for entry in suspects:
            self._keep_or_set_aside(entry, changes)
        for entry in list(self._waiting_entries.values()):
            self._upsert_entry(entry, True, changes)

    def _note_local(self, prefix: Prefix) -> None:
        found = self.table.ipcache.get(prefix)
        node = self.table.resolve(found[0].node) if found else None
        if node is not None and node.name == self._config.node:
            self.local_pods.add(prefix)
        else:
            self.local_pods.discard(prefix)
