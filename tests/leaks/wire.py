"""The hunt's own ears: whole frames of every underlay link, searched for bytes.

Knows nothing of protocols, and shares no code with the testbed's sniffer: a packet socket in
the underlay's namespace, and `bytes.find`.  Every payload of the hunt is one unit repeated:

    5 bytes that say secret or open | 3 bytes that number the shot

so 12 bytes of it, wherever an error or a fragment has cut them out, show the first part, and
15 the number.  A second sign needs no payload: the addresses of two pods beside each other.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from testbed.cluster import Cluster
from testbed.network import UNDERLAY

MAGIC = 5
UNIT = MAGIC + 3
EVERYTHING = 3
_SO_RCVBUFFORCE, _SOL_PACKET, _STATISTICS, _IGNORE_OUTGOING = 33, 263, 6, 23
_CANARY_TYPE = b"\x88\xb5"
BUFFER = 1 << 27
KEPT = 3
"""Frames kept of each shot that was seen."""


class Deaf(Exception):
    """The wire was not heard as a whole: nothing it says counts."""


class Marks:
    """The two kinds of marked payload."""

    def __init__(self) -> None:
        self.secret = secrets.token_bytes(MAGIC)
        self.open = secrets.token_bytes(MAGIC)

    def payload(self, secret: bool, number: int, size: int) -> bytes:
        """`size` bytes of the unit of shot `number`, repeated."""
        unit = (self.secret if secret else self.open) + number.to_bytes(3)
        return (unit * (size // UNIT + 1))[:size]


def number_at(frame: bytes, place: int) -> int | None:
    """The shot that the payload around a magic at `place` belongs to; None when it is cut."""
    behind = frame[place + MAGIC : place + UNIT]
    if len(behind) < 3:
        behind = frame[max(place - 3, 0) : place]
    return int.from_bytes(behind) if len(behind) == 3 else None


@dataclass
class Sighting:
    """What was seen of one shot."""

    count: int = 0
    frames: list[tuple[str, bytes]] = field(default_factory=list)
    """The link and the first frames."""


class Wire:
    """Listens from a thread of its own until closed.  A context manager."""

    def __init__(self, cluster: Cluster, marks: Marks, pairs: Iterable[bytes]) -> None:
        self.frames = 0
        self.secret: dict[int | None, Sighting] = {}
        """Secret payload, by the number of its shot."""
        self.open: dict[int | None, Sighting] = {}
        self.pairs: list[tuple[float, str, bytes]] = []
        """Frames without a payload in which a pod's address stands beside another's, with time."""
        self._cluster = cluster
        self._marks = marks
        self._pairs = tuple(pairs)
        self._canaries: set[bytes] = set()
        space = cluster.namespaces[UNDERLAY]
        self._socket = space.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._socket.setblocking(False)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, name="wire", daemon=True)
        self._thread.start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        try:
            while not self._stop.is_set():
                select.select([self._socket], [], [], 0.05)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame, address = self._socket.recvfrom(1 << 17)
                        self._take(str(address[0]), frame)
        except BaseException as error:
            self._failure = error

    def _take(self, link: str, frame: bytes) -> None:
        if link.startswith("br-") or link in ("world", "lo"):
            return  # seen where it came in from a node, or sent by no node
        self.frames += 1
        if frame[12:14] == _CANARY_TYPE:
            self._canaries.add(frame[14:30])
            return
        marked = False
        for magic, seen in ((self._marks.secret, self.secret), (self._marks.open, self.open)):
            place = frame.find(magic)
            while place >= 0:
                marked = True
                sighting = seen.setdefault(number_at(frame, place), Sighting())
                sighting.count += 1
                if len(sighting.frames) < KEPT and (link, frame) not in sighting.frames:
                    sighting.frames.append((link, frame))
                # A train may hold the payloads of several shots; one run is counted once.
                unit = frame[place : place + UNIT]
                while unit and frame.startswith(unit, place):
                    place += UNIT
                place = frame.find(magic, place)
        if not marked and any(pair in frame for pair in self._pairs):
            self.pairs.append((time.monotonic(), link, frame))

    def settle(self, seconds: float = 20) -> None:
        """Until everything that nodes sent before has been searched.  Raises `Deaf`."""
        waiting = set()
        for space, device in self._cluster.senders():
            canary = secrets.token_bytes(16)
            waiting.add(canary)
            with space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
                out.bind((device, 0))
                out.send(b"\xff" * 6 + b"\x02hunt!" + _CANARY_TYPE + canary.ljust(46, b"\0"))
        deadline = time.monotonic() + seconds
        while not waiting <= self._canaries:
            if self._failure or time.monotonic() > deadline:
                raise Deaf(f"does not hear its own canary ({self._failure or 'too late'})")
            time.sleep(0.01)
        statistics = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        if missed := int.from_bytes(statistics[4:8], "little"):
            raise Deaf(f"{missed} frames were missed")
