"""How a node learns about the others: one small interface for every kind of store.

A source yields what is there, then `Synced` once, then what changes: after a lost
connection the differences, deletions included.  Sources never block in `poll`; `fileno`
wakes the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from strict.ipcache import Entry, Source
from strict.nodes import Node
from wgpy.protocol.endpoint import Prefix


@dataclass(frozen=True, slots=True)
class NodeUpsert:
    """A node is there or has changed; `published` is wall-clock ns, 0 for unknown."""

    node: Node
    published: int = 0


@dataclass(frozen=True, slots=True)
class NodeDelete:
    name: str


@dataclass(frozen=True, slots=True)
class EntryUpsert:
    entry: Entry
    published: int = 0


@dataclass(frozen=True, slots=True)
class EntryDelete:
    prefix: Prefix
    source: Source


@dataclass(frozen=True, slots=True)
class Synced:
    """The pass is complete: what was known before and not repeated is stale."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Something in the store is not taken, and why; an empty reason: it is in order again."""

    what: str
    reason: str


Update = NodeUpsert | NodeDelete | EntryUpsert | EntryDelete | Synced | Refused


class Discovery(Protocol):
    """One source of nodes and entries."""

    @property
    def name(self) -> str:
        """For people: ``static cluster.toml``."""

    def fileno(self) -> int:
        """Readable when `poll` may have updates; -1: no descriptor.

        It is polled at every tick of the agent in any case.
        """

    def poll(self) -> Sequence[Update]:
        """Updates since the last call.  Errors are stored in `problem`, never raised."""

    @property
    def problem(self) -> str:
        """Why the source cannot be used at the moment, "" when it can."""

    @property
    def shared(self) -> bool:
        """Whether other machines write to it: then its claims are checked (`strict.claims`)."""

    def publish(self, node: Node, pods: Sequence[Entry] = ()) -> None:
        """Tell the others about this node and its pods.

        Called once all peers are installed here, and whenever either has changed.
        """

    def applied(self) -> None:
        """All that `poll` has said by now is in the data plane."""

    def close(self) -> None: ...
