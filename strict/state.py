"""The merged state of all sources: the agent's own copy of the table.

Nodes that contradict others are refused by name and tried again whenever the others
change.  Before a source has synced, what it said in an earlier life is unknown, so
nothing is stale yet (`synced`).  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from strict.discovery import (
    EntryDelete,
    EntryUpsert,
    NodeDelete,
    NodeUpsert,
    Synced,
    Update,
)
from strict.ipcache import Entry, IpcacheFull, Source
from strict.nodes import Node
from strict.settings import TableConfig
from strict.table import StrictTable
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PublicKey


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
        self.local_pods: set[Prefix] = set()
        """Entries that say: on this node."""
        self._config = config
        self._public_key = public_key
        self._waiting: dict[str, Node] = {}
        self._synced: set[str] = set()

    @property
    def config(self) -> TableConfig:
        return self._config

    def configure(self, config: TableConfig) -> None:
        """Change the settings; raises ValueError if the known nodes do not fit them."""
        self.table.configure(config)
        self._config = config

    def take(self, source: str, updates: Iterable[Update]) -> Changes:
        """Merge an update from a source."""
        changes = Changes()
        for update in updates:
            match update:
                case NodeUpsert(node, published):
                    self._upsert_node(node, changes)
                    changes.published.append(published)
                case NodeDelete(name):
                    self._waiting.pop(name, None)
                    self.refused.pop(name, None)
                    self.table.delete_node(name)
                    changes.nodes[name] = None
                case EntryUpsert(entry, published):
                    self._upsert_entry(entry, changes)
                    changes.published.append(published)
                case EntryDelete(prefix, kind):
                    self.table.delete_entry(prefix, kind)
                    self._note_local(prefix)
                    changes.entries[prefix, kind] = None
                case Synced():
                    self._synced.add(source)
        if changes.nodes:
            for node in list(self._waiting.values()):
                self._upsert_node(node, changes)
        return changes

    def synced(self, sources: Iterable[str]) -> bool:
        """Whether all of these sources have synced."""
        return self._synced.issuperset(sources)

    def local(self) -> Node:
        """This node, as the sources describe it, with its own key."""
        known = self.table.nodes.get(self._config.node)
        return known or Node(self._config.node, public_key=self._public_key)

    def set_key(self, public_key: PublicKey) -> None:
        """This node has a new key."""
        self._public_key = public_key
        self._upsert_node(replace(self.local(), public_key=public_key), Changes())

    def _upsert_node(self, node: Node, changes: Changes) -> None:
        if node.name == self._config.node:
            node = self._as_local(node)
        else:
            self.refused.pop(node.name, None)
        self._waiting.pop(node.name, None)
        try:
            self.table.upsert_node(node)
            changes.nodes[node.name] = node
            if node.name == self._config.node:
                for entry in self.table.ipcache:
                    self._note_local(entry.prefix)
        except ValueError as error:
            self._waiting[node.name] = node
            self.refused[node.name] = str(error)

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

    def _upsert_entry(self, entry: Entry, changes: Changes) -> None:
        try:
            self.table.upsert_entry(entry)
            self._note_local(entry.prefix)
            changes.entries[entry.prefix, entry.source] = entry
        except (ValueError, IpcacheFull) as error:
            self.refused[str(entry.prefix)] = str(error)

    def _note_local(self, prefix: Prefix) -> None:
        found = self.table.ipcache.get(prefix)
        node = self.table.resolve(found[0].node) if found else None
        if node is not None and node.name == self._config.node:
            self.local_pods.add(prefix)
        else:
            self.local_pods.discard(prefix)
