"""Links with loss, delay and a rate limit: a small userspace forwarder.

Not every kernel has netem.  If a topology asks for impairments, this program is inserted
between a node and its bridge port:

    NODE eth0 ── NODE.0w  forwarder  NODE.0x ── NODE.0  bridge

Both directions of a link have the same loss, delay and rate, and a queue each.  The sniffer
listens at NODE.0w: it sees what a node sends, lost or not.  The nodes' devices do no
segmentation offload, so a frame here is a frame on the wire.

`Direction` is pure: time and chance are arguments.  `python -P -m testbed.impairment FOLDER`
runs in the underlay's namespace; counts are in FOLDER/links.json.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

QUEUE_LIMIT: Final = 128 * 1024
"""Bytes that may wait for a link's rate; further frames are dropped."""
REPORT: Final = 100_000_000
"""Ns between two reports of the counts."""
ASKED, COUNTS = "impairments.json", "links.json"
_SOL_PACKET, _IGNORE_OUTGOING, _VNET_HDR, _ALL = 263, 23, 15, 3
_VNET_SIZE: Final = 10


@dataclass(frozen=True, slots=True)
class Impairment:
    """Chance of loss (0 to 1), delay (ns) and rate (bit/s; 0: no limit) of a link."""

    loss: float = 0.0
    delay: int = 0
    rate: float = 0.0

    def __str__(self) -> str:
        words = [f"loss {self.loss:.3%}"] if self.loss else []
        words += [f"delay {self.delay / 1e6:g} ms"] if self.delay else []
        words += [f"rate {self.rate / 1e6:g} Mbit/s"] if self.rate else []
        return ", ".join(words)


PERFECT: Final = Impairment()
"""No loss, no delay, any rate: needs no forwarder."""


class Direction:
    """One direction of a link."""

    def __init__(self, impairment: Impairment, chance: Callable[[], float]) -> None:
        """`chance` gives numbers from 0 to 1, each once."""
        self.frames = self.lost = self.overflowed = 0
        self._impairment = impairment
        self._chance = chance
        self._free_at = 0

    def admit(self, size: int, now: int) -> int | None:
        """When a frame of `size` bytes that came at `now` (ns) leaves; None when it does not."""
        self.frames += 1
        if self._impairment.loss and self._chance() < self._impairment.loss:
            self.lost += 1
            return None
        leaves = now
        if self._impairment.rate:
            start = max(now, self._free_at)
            if (start - now) * self._impairment.rate / 8e9 + size > QUEUE_LIMIT:
                self.overflowed += 1
                return None
            leaves = self._free_at = start + round(size * 8e9 / self._impairment.rate)
        return leaves + self._impairment.delay


def outer_end(port: str) -> str:
    """The forwarder's device on the node's side, where the sniffer listens."""
    return f"{port}w"


def inner_end(port: str) -> str:
    """The forwarder's device on the bridge's side."""
    return f"{port}x"


def ask(folder: Path, links: dict[str, Impairment], seed: int) -> None:
    """Write the instructions for `main`."""
    rows = {port: [i.loss, i.delay, i.rate] for port, i in links.items()}
    (folder / ASKED).write_text(json.dumps({"seed": seed, "links": rows}))


def counts(folder: Path) -> list[dict[str, Any]]:
    """Frames of each link so far, both directions together; empty without a forwarder."""
    try:
        found: list[dict[str, Any]] = json.loads((folder / COUNTS).read_text())
    except OSError:
        return []
    return found


class _Forwarder:
    """All links of a cluster, in one loop."""

    def __init__(self, folder: Path) -> None:
        asked = json.loads((folder / ASKED).read_text())
        self._folder = folder
        self._directions: dict[str, list[Direction]] = {}
        self._ways: dict[int, tuple[socket.socket, socket.socket, Direction]] = {}
        self._waiting: list[tuple[int, int, socket.socket, bytes]] = []
        self._order = itertools.count()
        self._reported = 0
        for port, values in asked["links"].items():
            ends = (_open(outer_end(port)), _open(inner_end(port)))
            for number, (source, target) in enumerate((ends, ends[::-1])):
                chance = random.Random(f"{asked['seed']} {port} {number}").random
                direction = Direction(Impairment(*values), chance)
                self._directions.setdefault(port, []).append(direction)
                self._ways[source.fileno()] = (source, target, direction)

    def run(self) -> None:
        """Until the namespace ends."""
        poll = select.poll()
        for fd in self._ways:
            poll.register(fd, select.POLLIN)
        self._report(time.monotonic_ns())
        while True:
            now = time.monotonic_ns()
            due = self._waiting[0][0] if self._waiting else now + REPORT
            for fd, _event in poll.poll(max(0, min(due - now, REPORT)) / 1e6):
                self._take(*self._ways[fd])
            now = time.monotonic_ns()
            while self._waiting and self._waiting[0][0] <= now:
                _at, _number, target, data = heapq.heappop(self._waiting)
                _send(target, data)
            if now - self._reported >= REPORT:
                self._report(now)

    def _take(self, source: socket.socket, target: socket.socket, way: Direction) -> None:
        for _ in range(64):
            try:
                data = source.recv(1 << 17)
            except OSError:  # nothing more; or the device is down, and poll says so again
                return
            leaves = way.admit(len(data) - _VNET_SIZE, time.monotonic_ns())
            if leaves is not None:
                heapq.heappush(self._waiting, (leaves, next(self._order), target, data))

    def _report(self, now: int) -> None:
        self._reported = now
        rows = [
            {"link": port, "frames": sum(w.frames for w in ways),
             "lost": sum(w.lost for w in ways), "overflowed": sum(w.overflowed for w in ways)}
            for port, ways in self._directions.items()
        ]  # fmt: skip
        part = self._folder / f".{COUNTS}.part"
        part.write_text(json.dumps(rows))
        part.replace(self._folder / COUNTS)


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    # Checksums that the device was to fill in are passed on as such.
    opened.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    opened.bind((device, _ALL))
    opened.setblocking(False)
    return opened


def _send(target: socket.socket, data: bytes) -> None:
    try:
        target.send(data)
    except OSError:
        return  # the other end is down: as on a cable


if __name__ == "__main__":
    _Forwarder(Path(sys.argv[1])).run()
