"""A client of the policy `strict`, for the agent and the command line.

A whole table is streamed with several pipelined requests, which keeps both ends busy.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.settings import TableConfig
from strict.wire import SCHEMA, config_to_wire, entry_to_wire, node_to_wire
from wgpy import typed
from wgpy.control.client import ControlClient, ControlFailed
from wgpy.protocol.endpoint import Prefix

CHUNK: Final = 1000
"""Items per request of a bulk load."""
UPDATE_CHUNK: Final = 250
"""Items per request of a change to the active table: about a millisecond."""
WINDOW: Final = 8
"""Requests in flight."""


class StrictClient(ControlClient):
    """One connection.  Closing it drops a transaction that is not committed."""

    @staticmethod
    def how_to_start() -> str:
        """What to do when nobody answers, or somebody else."""
        return f"start a strict node with `{typed.wgpy('strict', 'run', '--config', 'FILE')}`"

    def check(self) -> None:
        """As for any policy, and it must be this one; raises `ControlFailed`."""
        super().check()
        name = self.hello["policy"]["name"]
        if name != "strict":
            runs = "it is a plain tunnel" if name is None else f"it runs the policy {name!r}"
            raise ControlFailed(
                "policy",
                f"{self.interface} does not run a strict policy, {runs}: name another interface "
                f"with -i, or {self.how_to_start()}",
            )
        schema = self.hello["policy"]["schema"]
        if schema != SCHEMA:
            raise ControlFailed(
                "schema",
                f"{self.interface} runs the policy 'strict' with schema {schema}, this program "
                f"speaks schema {SCHEMA}: use the same version of both",
            )

    def replace(self, config: TableConfig, nodes: Iterable[Node], entries: Iterable[Entry]) -> None:
        """Activate a whole new table, atomically."""
        self.request("begin", config=config_to_wire(config))
        pending: deque[int] = deque()
        for chunk in itertools.chain(_chunks("nodes", map(node_to_wire, nodes)),
                                     _chunks("entries", map(entry_to_wire, entries))):
            pending.append(self.begin_request("load", chunk))
            if len(pending) >= WINDOW:
                self.finish_request(pending.popleft())
        while pending:
            self.finish_request(pending.popleft())
        self.request("commit")

    def update(
        self,
        *,
        nodes: Sequence[Node] = (),
        entries: Sequence[Entry] = (),
        delete_nodes: Sequence[str] = (),
        delete_entries: Sequence[tuple[Prefix, Source]] = (),
    ) -> list[dict[str, str]]:
        """Change single items, deletions first; returns the refused nodes."""
        refused: list[dict[str, str]] = []
        gone = ([str(prefix), source.text] for prefix, source in delete_entries)
        for request in itertools.chain(
            _chunks("delete_entries", gone, UPDATE_CHUNK),
            _chunks("delete_nodes", delete_nodes, UPDATE_CHUNK),
            _chunks("nodes", map(node_to_wire, nodes), UPDATE_CHUNK),
            _chunks("entries", map(entry_to_wire, entries), UPDATE_CHUNK),
        ):
            refused += self.request("update", **request)["refused"]
        return refused


def _chunks(key: str, items: Iterable[Any], size: int = CHUNK) -> Iterator[dict[str, Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield {key: chunk}
