"""The packet paths that can be measured without a kernel, behind one small interface.

The path that the program uses is called ``wgpy``.  A path takes batches on a `Hub` and
says how many datagrams or packets came out, so that nobody measures a path that quietly
drops.
"""

from __future__ import annotations

from typing import Protocol

from benchmarks.harness import Hub
from wgpy.protocol.datagram import Datagram


class Subject(Protocol):
    """A packet path on the engine of a hub."""

    name: str

    def send(self, packets: list[bytes]) -> int:
        """Inner packets in; datagrams that came out."""

    def receive(self, datagrams: list[Datagram]) -> int:
        """Datagrams in; inner packets that came out."""


class Readable:
    """The engine, called as the plain data path calls it."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.name = name
        self._engine = hub.engine
        self._clock = hub.clock

    def send(self, packets: list[bytes]) -> int:
        self._engine.send(packets, now=self._clock.now)
        return len(self._engine.pull_datagrams())

    def receive(self, datagrams: list[Datagram]) -> int:
        self._engine.receive(datagrams, now=self._clock.now)
        return len(self._engine.pull_packets())


def subjects(hub: Hub) -> list[Subject]:
    """Every path there is, on this hub."""
    return [Readable(hub, "wgpy")]
