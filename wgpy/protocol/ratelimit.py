"""Who may make us compute while under load: token buckets per source (§5.3).

`RateLimiter` is asked only after mac2 proved that the source address is real.  Numbers as
the kernel: 20 a second, bursts of 5, an IPv6 source counts as its /64.  A bucket that
filled up again is forgotten, so the table holds at most the sources of the last second.

`ReplyLimiter` bounds cookie replies, whose sources nobody has proved: a flood with forged
addresses meets the bound for all sources together, which is asked first so that the table
of sources stays small.
"""

from __future__ import annotations

from wgpy.protocol.constants import NS

_SWEEP_INTERVAL = NS
PRESSING = 16
"""Handshake messages, since it was last said that the queue fills, which mean that they fill it."""
_IPV6_NETWORK_BYTES = 8


class RateLimiter:
    """`rate` tokens a second, at most `burst` saved up, for each source."""

    __slots__ = ("_buckets", "_capacity", "_cost", "_swept_at")

    def __init__(self, rate: int, burst: int) -> None:
        # A bucket is kept as the time in ns it has saved; one message costs `_cost` of it.
        self._cost = NS // rate
        self._capacity = self._cost * burst
        self._buckets: dict[bytes, tuple[int, int]] = {}
        self._swept_at = 0

    def allow(self, ip: bytes, now: int) -> bool:
        """Whether a message from packed address `ip` may be processed at `now` (ns)."""
        if now - self._swept_at > _SWEEP_INTERVAL:
            self._sweep(now)
        source = ip if len(ip) == 4 else ip[:_IPV6_NETWORK_BYTES]
        saved, since = self._buckets.get(source, (self._capacity, now))
        saved = min(self._capacity, saved + now - since)
        allowed = saved >= self._cost
        self._buckets[source] = (saved - self._cost if allowed else saved, now)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)

    def _sweep(self, now: int) -> None:
        self._buckets = {
            source: (saved, since)
            for source, (saved, since) in self._buckets.items()
            if saved + now - since < self._capacity
        }
        self._swept_at = now


class ReplyLimiter:
    """At most `each` replies a second to one source and `in_all` together; bursts of as many."""

    __slots__ = ("_each", "_full_at", "_price")

    def __init__(self, each: int, in_all: int) -> None:
        self._each = RateLimiter(each, each)
        self._price = NS // in_all
        self._full_at = 0
        """When the common bucket is full again; each reply puts it off by its price."""

    def allow(self, ip: bytes, now: int) -> bool:
        """Whether packed address `ip` may be answered at `now` (ns)."""
        full_at = max(self._full_at, now) + self._price
        if full_at - now > NS or not self._each.allow(ip, now):
            return False
        self._full_at = full_at
        return True

    def __len__(self) -> int:
        return len(self._each)


class LoadMeter:
    """Decides "under load" (§5.3) with a leaky bucket of handshake messages.

    See `Parameters.under_load_backlog` for the rule.
    """

    __slots__ = (
        "_backlog", "_drain_ns", "_hold", "_level", "_loaded_until", "_noted", "_updated_at",
    )  # fmt: skip

    def __init__(self, backlog: int, drain_per_second: int, hold: int) -> None:
        self._backlog = backlog
        self._drain_ns = NS // drain_per_second
        self._hold = hold
        self._level = 0  # in ns of drain time
        self._updated_at = 0
        self._loaded_until = -1
        self._noted = 0

    def note(self, now: int) -> bool:
        """Count one handshake message with a valid mac1; whether we are under load."""
        self._level = max(0, self._level - (now - self._updated_at)) + self._drain_ns
        self._updated_at = now
        self._noted += 1
        # Capped, so that the state ends soon after the pressure does.
        self._level = min(self._level, 2 * self._backlog * self._drain_ns)
        if self._level >= self._backlog * self._drain_ns:
            self._loaded_until = now + self._hold
        return now <= self._loaded_until

    def press(self, now: int) -> None:
        """The queue fills: under load from now on, for as long as it is held.

        Unless it is full of what has no valid mac1: that costs little, and to ask the peers
        for cookies would make them wait.
        """
        noted, self._noted = self._noted, 0
        if noted >= PRESSING:
            self._loaded_until = now + self._hold
