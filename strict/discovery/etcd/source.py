"""The `Discovery` on etcd.  The agent's loop polls it; two threads talk to the store.

etcd3gw blocks, and the agent's loop must not.  Threads hand over finished updates and ring
a bell (eventfd), which the loop waits for beside its other descriptors.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from strict.discovery import Update
from strict.discovery.etcd.layout import Layout, entry_fields, node_fields
from strict.discovery.etcd.mirror import Leaving, Mirror, Said, Touched
from strict.discovery.etcd.reader import Reader
from strict.discovery.etcd.settings import EtcdSettings
from strict.discovery.etcd.store import Store
from strict.discovery.etcd.writer import Writer
from strict.ipcache import Entry
from strict.nodes import Node

UPDATES: Final = 4000
"""In one `poll`: some ten milliseconds of the agent's time."""
WAITING: Final = 100_000
"""Updates that wait for the agent before the reader waits, too."""


class EtcdDiscovery:
    """Nodes and addresses of one cluster in a store that others write to as well."""

    shared = True

    def __init__(
        self,
        settings: EtcdSettings,
        own: Node,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`own` is this node as its file describes it; `jitter` gives numbers from 0 to 1."""
        self._settings = settings
        self._layout = Layout(settings)
        self._mirror = Mirror(self._layout, own.name)
        self._mirror.own(own.addresses)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._room = threading.Condition()
        self._waiting: deque[Said] = deque()
        self._leaving: set[str] = set()
        self._touched: set[str] = set()
        self._closed = False
        self.reader = Reader(Store(settings), self._layout, self._mirror, self._take, jitter)
        self.writer = Writer(Store(settings), self._layout, settings.ttl, jitter, self._ring)
        self._own_name = own.name
        self._published: tuple[Node, tuple[Entry, ...]] | None = None
        self.reader.start()
        self.writer.start()

    @property
    def name(self) -> str:
        return f"etcd {', '.join(self._settings.endpoints)}"

    @property
    def problem(self) -> str:
        """The reader's trouble; the writer's where it has another."""
        found = dict.fromkeys(filter(None, (self.reader.problem, self.writer.problem)))
        return "; ".join(found)

    def fileno(self) -> int:
        return self._bell

    def poll(self) -> Sequence[Update]:
        """What has come since, at most `UPDATES`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        with self._room:
            count = min(len(self._waiting), UPDATES)
            said = [self._waiting.popleft() for _ in range(count)]
            if self._waiting:
                self._ring()
            self._room.notify()
        self._leaving |= {item.name for item in said if isinstance(item, Leaving)}
        self._touched |= {item.key for item in said if isinstance(item, Touched)}
        if self._touched and self._published is not None:
            self.writer.check(self._touched)
            self._touched = set()
        return [item for item in said if not isinstance(item, (Leaving, Touched))]

    def publish(self, node: Node, pods: Sequence[Entry] = ()) -> None:
        """Wanted from now on; nothing is written that is there already."""
        if self._published == (node, tuple(pods)):
            return
        self._published = node, tuple(pods)
        self._mirror.own(node.addresses)
        strangers, self._touched = self._touched, set()
        layout = self._layout
        keys = {layout.nodes + node.name: node_fields(node, layout.cluster)}
        for entry in pods:
            host = next((ip for ip in node.addresses if len(ip) == len(entry.prefix.ip)),
                        node.addresses[0] if node.addresses else None)  # fmt: skip
            if host is not None:
                keys[layout.address_key(entry.prefix)] = entry_fields(entry, host)
        self.writer.want(keys, strangers)

    def applied(self) -> None:
        """Those who leave and are gone from the table here get their answer."""
        leaving, self._leaving = self._leaving, set()
        for name in leaving:
            self.writer.acknowledge(f"{self._layout.seen}{name}/{self._own_name}")

    def close(self) -> None:
        """Stop reading and writing; the own keys stay until their lease runs out."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self.reader.end()
        self.writer.end()

    def _take(self, said: list[Said]) -> None:
        with self._room:
            self._room.wait_for(lambda: len(self._waiting) < WAITING or self._closed)
            self._waiting.extend(said)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)
