"""What a capture shows without any key: handshakes and data joined by their indices.

Indices are not encrypted (§5.4.2, §5.4.3, §5.4.6): a response names the initiation that it
answers, and a data message the side that receives it.  So roles, rekeys, retries, roaming,
silence and missing counters can be seen.  Nothing here is authenticated: a caller with keys
passes only messages that could be decrypted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from wgpy.capture.handshake import SeenInitiation, SeenSession
from wgpy.protocol.constants import KEEPALIVE_SIZE, NS
from wgpy.protocol.endpoint import Endpoint

LIMIT: Final = 1 << 16
"""Entries of each table: a capture of a flood must not fill the memory."""
SILENCE: Final = 30 * NS
"""Longer than a persistent keepalive is usually set to (25 s)."""
_SMALL_STEP: Final = 1 << 16
WELL_KNOWN_PORTS: Final = frozenset({51820, 2408})
"""WireGuard's usual port, and Cloudflare WARP's."""

K = TypeVar("K")
V = TypeVar("V")


def remember(table: dict[K, V], key: K, value: V) -> V:
    """Put into a bounded table; removes the oldest entry."""
    table.pop(key, None)
    if len(table) >= LIMIT:
        del table[next(iter(table))]
    table[key] = value
    return value


def seconds(ns: int) -> str:
    """``12.3 s``."""
    return f"{ns / NS:.1f} s"


@dataclass(slots=True)
class Session:
    """A handshake with both messages seen: frames, when, and what keeps its data sealed."""

    initiation: int
    response: int
    at: int
    sealed: str = ""


@dataclass(slots=True)
class Tunnel:
    """Two endpoints that talk: their last message, session and unanswered initiation."""

    last_at: int
    session: Session | None = None
    unanswered: Initiated | None = None

    def silence(self, at: int) -> list[str]:
        """A note after a long silence; `at` is now the last message."""
        quiet = at - self.last_at
        self.last_at = max(at, self.last_at)
        return [f"after {seconds(quiet)} of silence"] if quiet >= SILENCE else []


@dataclass(slots=True)
class Initiated:
    """An initiation, and the session that it became."""

    frame: int
    at: int
    source: Endpoint
    destination: Endpoint
    index: int
    tunnel: Tunnel
    session: Session | None = None
    sealed: str = ""
    opened: SeenInitiation | None = None


@dataclass(slots=True)
class Flow:
    """One direction of a session: all data messages with one receiver index.

    `role` is who sends, "" where the handshake was not seen; `opener` has the key.
    """

    receiver: int
    source: Endpoint
    destination: Endpoint
    tunnel: Tunnel
    session: Session | None = None
    role: str = ""
    sure: bool = False
    opener: SeenSession | None = None
    messages: int = 0
    keepalives: int = 0
    size: int = 0
    first: int = 0
    greatest: int = -1
    roamed: list[Endpoint] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Counters that the capture does not hold; from 0 where the handshake was seen."""
        if not self.messages:
            return 0
        start = 0 if self.session is not None else self.first
        return max(0, self.greatest + 1 - start - self.messages)

    def fits(self, counter: int) -> bool:
        """Whether a message with this counter is likely to be the flow's next ones."""
        return self.messages > 0 and 0 < counter - self.greatest < _SMALL_STEP

    def count(
        self, at: int, counter: int, size: int, places: tuple[Endpoint, Endpoint], sure: bool
    ) -> list[str]:
        """Take a message that was not seen before; returns notes on it."""
        notes = self.tunnel.silence(at)
        source, destination = places
        if source != self.source and counter > self.greatest:
            notes.append(f"{'roamed' if sure else 'perhaps roamed'} from {self.source}")
            if len(self.roamed) < 100:
                self.roamed.append(self.source)
            self.source = source
        if counter > self.greatest:
            self.destination = destination
        if not self.messages or counter < self.first:
            self.first = counter
        self.greatest = max(self.greatest, counter)
        self.messages += 1
        self.size += size
        self.keepalives += size == KEEPALIVE_SIZE
        return notes

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "receiver": f"0x{self.receiver:08x}",
            "role": self.role or None,
            "source": str(self.source),
            "destination": str(self.destination),
            "handshake": self.session and self.session.initiation,
            "messages": self.messages,
            "keepalives": self.keepalives,
            "bytes": self.size,
            "first_counter": self.first if self.messages else None,
            "last_counter": self.greatest if self.messages else None,
            "missing": self.missing,
            "opened": self.opener is not None,
            "roamed_from": [str(place) for place in self.roamed],
        }


class Sessions:
    """All handshakes and flows of a capture."""

    def __init__(self) -> None:
        self._initiated: dict[int, Initiated] = {}
        self._flows: dict[int, Flow] = {}
        self._tunnels: dict[tuple[Endpoint, Endpoint], Tunnel] = {}
        self.handshakes = 0

    def flows(self) -> Iterator[Flow]:
        """Those that carried data, in the order of their beginning."""
        return (flow for flow in self._flows.values() if flow.messages)

    def flow(self, receiver: int) -> Flow | None:
        """The flow of a receiver index."""
        return self._flows.get(receiver)

    def initiated(self, index: int) -> Initiated | None:
        """The latest initiation with this sender index."""
        return self._initiated.get(index)

    def is_tunnel(self, source: Endpoint, destination: Endpoint) -> bool:
        """Whether a whole handshake was seen between these two."""
        tunnel = self._tunnels.get(_pair(source, destination))
        return tunnel is not None and tunnel.session is not None

    def initiation(
        self, frame: int, at: int, source: Endpoint, destination: Endpoint, index: int
    ) -> tuple[Initiated, list[str]]:
        """An initiation; the notes say what it follows."""
        tunnel = self._tunnel(source, destination, at)
        notes = tunnel.silence(at)
        before = tunnel.unanswered
        if before is not None and before.source == source:
            age = seconds(at - before.at)
            notes.append(f"again: the initiation in {before.frame} has no answer after {age}")
        elif tunnel.session is not None:
            age = seconds(at - tunnel.session.at)
            notes.append(f"rekey: the session of {tunnel.session.initiation} is {age} old")
        started = Initiated(frame, at, source, destination, index, tunnel)
        tunnel.unanswered = remember(self._initiated, index, started)
        return started, notes

    def response(self, frame: int, at: int, start: Initiated, index: int) -> tuple[Flow, Flow]:
        """The answer to `start`; the flows of initiator and responder."""
        tunnel = start.tunnel
        tunnel.silence(at)
        if tunnel.unanswered is start:
            tunnel.unanswered = None
        session = Session(start.frame, frame, at, start.sealed)
        tunnel.session = start.session = session
        self.handshakes += 1
        there = Flow(index, start.source, start.destination, tunnel, session, "initiator", True)
        back = Flow(
            start.index, start.destination, start.source, tunnel, session, "responder", True
        )
        remember(self._flows, index, there)
        remember(self._flows, start.index, back)
        return there, back

    def orphan(self, at: int, receiver: int, source: Endpoint, destination: Endpoint) -> Flow:
        """A flow whose handshake is not in the capture."""
        tunnel = self._tunnel(source, destination, at)
        sure = tunnel.session is not None or not WELL_KNOWN_PORTS.isdisjoint(
            (source.port, destination.port)
        )
        flow = Flow(receiver, source, destination, tunnel, sure=sure)
        return remember(self._flows, receiver, flow)

    def _tunnel(self, source: Endpoint, destination: Endpoint, at: int) -> Tunnel:
        pair = _pair(source, destination)
        return self._tunnels.get(pair) or remember(self._tunnels, pair, Tunnel(at))


def _pair(one: Endpoint, other: Endpoint) -> tuple[Endpoint, Endpoint]:
    return (one, other) if one <= other else (other, one)
