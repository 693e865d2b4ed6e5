"""The thread that reads the store: a listing, then the watch from the next revision on.

A watch that ends is asked for again at the revision after the last event, at the next
endpoint, so nothing is missed.  Where the history since then was compacted, everything is
listed again and compared: differences only, and no moment without what is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from strict.discovery import EntryUpsert, NodeUpsert, Synced
from strict.discovery.etcd.layout import Layout
from strict.discovery.etcd.mirror import Mirror, Said
from strict.discovery.etcd.store import Backoff, Compacted, Store, StoreError

RELIST: Final = 10.0
"""Seconds at least between two listings that are not needed for the watch."""
Hand = Callable[[list[Said]], None]


class Reader(threading.Thread):
    """Keeps a `Mirror` and hands on what changes; `problem` says why it cannot."""

    def __init__(
        self,
        store: Store,
        layout: Layout,
        mirror: Mirror,
        hand: Hand,
        jitter: Callable[[], float],
    ) -> None:
        """`hand` takes what is said, and is called with nothing when `problem` has changed."""
        super().__init__(name="etcd reader", daemon=True)
        self.problem = "not connected yet"
        self.listings = 0
        self.watches = 0
        self.revision = 0
        """Everything up to this one was handed on; 0: list."""
        self._store, self._layout, self._mirror, self._hand = store, layout, mirror, hand
        self._backoff = Backoff(jitter)
        self._ending = threading.Event()
        self._relist_at = 0.0

    def end(self) -> None:
        """`run` returns within the timeout of a request; nothing is handed on any more."""
        self._ending.set()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._round()
            except Compacted:
                self.revision = 0
            except StoreError as error:
                self._failed(str(error))
            except Exception as error:  # a thread that dies says nothing
                self.revision = 0
                self._failed(f"{type(error).__name__}: {error}")
        self._store.close()

    def _failed(self, problem: str) -> None:
        self.problem = problem
        self._store.next_endpoint()
        self._hand([])
        self._ending.wait(self._backoff.pause())

    def _round(self) -> None:
        """A listing when there is none, then a watch until it falls silent."""
        if not self.revision or self._may_relist():
            self._list()
        self.watches += 1
        for events in self._store.watch(self._layout.root, self.revision + 1, self._works):
            now = time.time_ns()
            updates = [
                _stamped(update, now) for pair in events for update in self._mirror.event(pair)
            ]
            self._give(updates)
            self.revision = events[-1].revision
            if self._ending.is_set() or self._may_relist():
                return

    def _may_relist(self) -> bool:
        return self._mirror.relist and time.monotonic() >= self._relist_at

    def _works(self) -> None:
        self._backoff.succeeded()
        if self.problem:
            self.problem = ""
            self._hand([])

    def _list(self) -> None:
        """Everything as of one revision; the rest of the round watches from the next one."""
        first, mirror = not self.listings, self._mirror
        mirror.overfull = mirror.relist = False
        self._relist_at = time.monotonic() + RELIST
        nodes = list(self._store.pages(self._layout.nodes))
        revision = nodes[0][0]
        self._give(mirror.list_nodes(pair for _, page in nodes for pair in page))
        seen: set[str] = set()
        for _, page in self._store.pages(self._layout.addresses, revision):
            self._give(mirror.list_entries(page, seen))
        self._give(mirror.list_end(seen))
        for _, page in self._store.pages(self._layout.drains, revision):
            self._give(mirror.list_drains(page))
        self.listings += 1
        if first:
            self._give([Synced()])
        # After all of it: a listing that breaks off is begun again.
        self.revision = revision

    def _give(self, updates: Iterable[Said]) -> None:
        found = list(updates)
        if not self._ending.is_set():
            self._hand(found)


def _stamped(update: Said, now: int) -> Said:
    """The store has no clock: what an event says was published when it came here."""
    if isinstance(update, (NodeUpsert, EntryUpsert)):
        return replace(update, published=now)
    return update

