"""Discovery from one file of nodes and endpoints, read again whenever it changes.

The file is compared by its inode, size and time of change whenever its folder changes and
at each poll, which sees an edit in place as well as a rename over it.  A file with any mistake is
refused as a whole: the problems are kept for the status and what was known stays.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from strict.discovery import (
    EntryDelete,
    EntryUpsert,
    NodeDelete,
    NodeUpsert,
    Synced,
    Update,
)
from strict.discovery.inotify import FolderBell
from strict.document import Document, DocumentRefused, Section, load
from strict.ipcache import MAX_ENTRIES, MAX_IDENTITY, Entry, Source
from strict.nodes import Node, NodeRefused, NodeRegistry
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.keys import PublicKey

CLUSTER_SECTIONS: Final = ("node", "endpoint")
AGENT_SECTIONS: Final = ("agent", "strict", "discovery", "dataplane")
"""Read by `strict.config`; they may be in the same file."""

_Place = tuple[Prefix, Source]


class Cluster:
    """The content of one cluster file."""

    def __init__(self, nodes: dict[str, Node], entries: dict[_Place, Entry]) -> None:
        self.nodes = nodes
        self.entries = entries


def read_cluster(document: Document) -> Cluster:
    """Nodes and endpoints of a document; mistakes are noted in it, for its `check`."""
    for name in document.data:
        if name not in CLUSTER_SECTIONS + AGENT_SECTIONS:
            document.problem((name,), f"unknown section; known: {', '.join(CLUSTER_SECTIONS)}")
    registry = NodeRegistry()
    for section in document.sections("node"):
        node = _node(section)
        if node.name and registry.get(node.name) is not None:
            section.problem("name", f"node {node.name!r} comes twice")
            continue
        try:
            if node.name:
                registry.upsert(node)
        except NodeRefused as error:
            section.problem("public_key", str(error))
    if not document.data.get("node"):
        # A file that an editor has just begun to rewrite looks like this too.
        document.problem((), "no [[node]]: a cluster has at least this node")
    entries: dict[_Place, Entry] = {}
    for section in document.sections("endpoint"):
        entry = _entry(section)
        if entry is None:
            continue
        if (entry.prefix, entry.source) in entries:
            section.problem("ip", f"{entry.prefix} comes twice from {entry.source.text}")
        entries[entry.prefix, entry.source] = entry
    if len({prefix for prefix, _ in entries}) > MAX_ENTRIES:
        document.problem(("endpoint",), f"more than {MAX_ENTRIES} endpoints")
    return Cluster({node.name: node for node in registry}, entries)


def _endpoint(text: str) -> Endpoint:
    return Endpoint.parse(text, zone=socket.if_nametoindex)


def _node(section: Section) -> Node:
    node = Node(
        name=section.text("name", required=True),
        addresses=section.many("addresses", parse_address),
        public_key=section.parsed("public_key", None, PublicKey.from_base64),
        pod_cidrs=section.many("pod_cidrs", exact_prefix),
        labels=section.texts("labels"),
        boot_id=section.text("boot_id"),
        endpoint=section.parsed("endpoint", None, _endpoint),
        allowed_ips=section.many("allowed_ips", exact_prefix),
    )
    if not node.addresses and not section.document.problems:
        section.problem("", "a node needs at least one of its `addresses` on the underlay")
    section.done()
    return node


def _entry(section: Section) -> Entry | None:
    prefix = section.parsed("ip", None, exact_prefix)
    if prefix is None and "ip" not in section:
        section.problem("", "'ip' is missing")
    entry = Entry(
        prefix or Prefix(bytes(4), 32),
        section.text("node", required=True),
        section.number("identity", 0, 0, MAX_IDENTITY),
        section.flag("encrypt", True),
        section.parsed("source", Source.CUSTOM_RESOURCE, Source.parse),
    )
    section.done()
    return None if prefix is None else entry


def exact_prefix(text: str) -> Prefix:
    """A prefix without host bits: a slip such as 10.0.1.0/16 would cover more than meant."""
    prefix = Prefix.parse(text)
    if "/" in text and parse_address(text.partition("/")[0]) != prefix.ip:
        raise ValueError(f"{text} has host bits set: write {prefix}, or the longer prefix meant")
    return prefix


class StaticDiscovery:
    """A `Discovery` that reads one TOML or YAML file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bell = FolderBell(path.parent)
        self._known: Cluster | None = None
        self._stamp: tuple[int, int, int] | None = None
        self.problem = ""
        self.reloads = 0

    @property
    def name(self) -> str:
        return f"static {self._path}"

    def fileno(self) -> int:
        return self._bell.fileno()

    def poll(self) -> Sequence[Update]:
        """What changed in the file since it was last accepted."""
        self._bell.silence()
        stamp = self._look()
        if stamp is not None and stamp == self._stamp:
            return ()
        try:
            document = load(self._path)
            cluster = read_cluster(document)
            document.check()
        except DocumentRefused as error:
            self.problem, self._stamp = str(error), stamp
            return ()
        self.problem, self._stamp = "", stamp
        self.reloads += 1
        old, self._known = self._known, cluster
        return _difference(old, cluster, stamp[2] if stamp else time.time_ns())

    shared = False

    def publish(self, node: Node, pods: Sequence[Entry] = ()) -> None:
        """Nothing to do: the file is written by people."""

    def applied(self) -> None:
        """Nothing to do: nobody waits for a reader of the file."""

    def close(self) -> None:
        """Stop listening to the folder."""
        self._bell.close()

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def _difference(old: Cluster | None, new: Cluster, published: int) -> list[Update]:
    """Deletes first: a key or an address may move from one node to another in one edit."""
    nodes = old.nodes if old else {}
    entries = old.entries if old else {}
    updates: list[Update] = [NodeDelete(name) for name in nodes if name not in new.nodes]
    updates += [EntryDelete(*place) for place in entries if place not in new.entries]
    changed = [node for node in new.nodes.values() if nodes.get(node.name) != node]
    held = {node.public_key for node in nodes.values()}
    # A key that moves from one node to another must be released before it is taken.
    updates += [
        NodeUpsert(replace(node, public_key=None), published)
        for node in changed
        if node.name in nodes and node.public_key in held
    ]
    updates += [NodeUpsert(node, published) for node in changed]
    updates += [
        EntryUpsert(entry, published)
        for place, entry in new.entries.items()
        if entries.get(place) != entry
    ]
    return updates if old else [*updates, Synced()]
