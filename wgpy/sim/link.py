"""One direction of a wire: what it does to datagrams, and the queue in front of it.

A `Link` is the description, a `Pipe` the link at work.  Jitter alone never changes the
order of datagrams (a wire is a queue); `reorder` holds single ones back so that later
ones overtake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import NamedTuple

from wgpy.protocol.constants import MS, NS

_UDP_HEADER = 8
_IP_HEADER = {4: 20, 16: 40}


class Fate(Enum):
    """What became of a datagram; the value is the phrase of the time-line."""

    DELIVERED = "delivered"
    LOST = "lost on the link"
    DUPLICATED = "duplicated on the link"
    CORRUPTED = "one bit flipped on the link"
    HELD_BACK = "held back: later ones overtake it"
    TOO_BIG = "larger than the link's MTU"
    QUEUE_FULL = "the link's queue was full"
    NO_SUCH_ADDRESS = "nobody has this address"
    NO_NAT_MAPPING = "the NAT knows no mapping for it"
    CUT = "the link is cut"


@dataclass(frozen=True, slots=True)
class Link:
    """Times in ns, probabilities from 0 to 1, sizes in bytes.

    `rate` is in bits per second (0: unlimited) and `queue` the bytes that may wait for it;
    `mtu` bounds the outer IP packet.  Raises ValueError for impossible numbers.
    """

    delay: int = 10 * MS
    jitter: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay: int = 50 * MS
    corrupt: float = 0.0
    mtu: int = 1500
    rate: int = 0
    queue: int = 64 * 1024

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability from 0 to 1")
        for name in ("delay", "jitter", "reorder_delay", "rate", "queue"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative")
        if self.mtu < 68:
            raise ValueError("the MTU of IP is at least 68 bytes")


PERFECT = Link(delay=0, mtu=65_535)


class Arrival(NamedTuple):
    """A datagram's fate; one that was dropped has no `at`."""

    fate: Fate
    at: int | None
    data: bytes


class Pipe:
    """A link with its state: when it is free again, and what left it last."""

    __slots__ = ("_free_at", "_last_arrival", "_random", "cut", "link")

    def __init__(self, link: Link, random: Random) -> None:
        self.link = link
        self.cut = False
        self._random = random
        self._free_at = 0
        self._last_arrival = 0

    def carry(self, data: bytes, address_size: int, now: int) -> Iterator[Arrival]:
        """The fates of a UDP payload put on the wire at `now`: more than one if duplicated."""
        link = self.link
        size = len(data) + _UDP_HEADER + _IP_HEADER[address_size]
        sent_at = None if self.cut else self._transmit(size, now)
        if self.cut:
            yield Arrival(Fate.CUT, None, data)
        elif size > link.mtu:
            yield Arrival(Fate.TOO_BIG, None, data)
        elif sent_at is None:
            yield Arrival(Fate.QUEUE_FULL, None, data)
        elif self._happens(link.loss):
            yield Arrival(Fate.LOST, None, data)
        else:
            yield self._arrive(data, sent_at, Fate.DELIVERED)
            if self._happens(link.duplicate):
                yield self._arrive(data, sent_at, Fate.DUPLICATED)

    def _transmit(self, size: int, now: int) -> int | None:
        """When the last bit has left; None if there is no room to wait."""
        if size > self.link.mtu or not self.link.rate:
            return now
        waiting = max(0, self._free_at - now) * self.link.rate // (8 * NS)
        if waiting + size > self.link.queue:
            return None
        self._free_at = max(self._free_at, now) + size * 8 * NS // self.link.rate
        return self._free_at

    def _arrive(self, data: bytes, sent_at: int, fate: Fate) -> Arrival:
        link = self.link
        at = sent_at + link.delay
        if link.jitter:
            at += self._random.randrange(link.jitter)
        if self._happens(link.corrupt):
            data, fate = self._flip_bit(data), Fate.CORRUPTED
        if self._happens(link.reorder):
            return Arrival(Fate.HELD_BACK, at + link.reorder_delay, data)
        self._last_arrival = at = max(at, self._last_arrival)
        return Arrival(fate, at, data)

    def _flip_bit(self, data: bytes) -> bytes:
        bit = self._random.randrange(len(data) * 8) if data else 0
        changed = bytearray(data)
        if changed:
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def _happens(self, probability: float) -> bool:
        # Not asking the generator for impossible things keeps it one call per real choice.
        return probability > 0 and self._random.random() < probability
