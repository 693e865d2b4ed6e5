"""What surrounds a case and its peers: time, records, the target, and the inner side.

Everything random comes from one generator seeded by the run's seed and the case's id.
Knows no peers and no ports; `lab` makes those.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from random import Random
from typing import Final

from wgspec.check import Mismatch, check
from wgspec.inner import Inner, packet, token_of
from wgspec.target import Capability, DeviceConfig, Instance, PeerConfig, Unsupported
from wgspec.transcript import Transcript

QUIET_LEAST, QUIET_MOST = 0.3, 1.5
REPLY: Final = 5.0
"""Seconds to wait for a reply; a reply is judged by when it came, not by this."""


class Surroundings:
    """One instance as a case sees it."""

    def __init__(self, instance: Instance, case_id: str, seed: int) -> None:
        self.instance = instance
        self.rng = Random(f"{seed}:{case_id}")
        self.transcript = Transcript(start=instance.now())
        self.reports: list[str] = []
        self._start = instance.now()
        self._wall = time.time_ns()

    # Time.

    def now(self) -> float:
        return self.instance.now()

    def wall_ns(self) -> int:
        """Wall-clock ns that pass with the instance's clock."""
        return self._wall + int((self.now() - self._start) * 1e9)

    async def advance(self, seconds: float) -> None:
        await self.instance.advance(seconds)

    @property
    def slack(self) -> float:
        """Seconds a timer may be late (never early)."""
        return self.instance.slack

    @property
    def early(self) -> float:
        """Seconds an interval may look too short because its start was seen late."""
        return self.instance.early

    def quiet(self) -> float:
        """How long to listen before silence is believed: several times the slowest reply."""
        return min(QUIET_MOST, max(QUIET_LEAST, 6 * self.instance.reply_time))

    def measured(self, seconds: float) -> None:
        """Note how long a genuine reply took."""
        self.instance.reply_time = max(self.instance.reply_time, seconds)

    # Records.

    def note(self, text: str) -> None:
        self.transcript.note(self.now(), text)

    def report(self, text: str) -> None:
        """An observation for the result, not a judgement."""
        self.reports.append(text)
        self.note(text)

    # The target.

    @property
    def target_public(self) -> bytes:
        return self.instance.public_key

    def need(self, *capabilities: Capability) -> None:
        """Raise `Unsupported` unless the instance has all of these."""
        for capability in capabilities:
            if capability not in self.instance.capabilities:
                raise Unsupported(f"it cannot {capability.value}")

    @property
    def target_initiates(self) -> bool:
        """Whether the target can be made to begin a handshake whenever a case wants."""
        offered = self.instance.capabilities
        return Capability.INNER_OUT in offered and not self.instance.fixed_peers

    async def configure(self, *peers: PeerConfig, **device: object) -> None:
        """Apply a change to the instance."""
        self.need(Capability.CONFIGURE)
        await self.instance.apply(DeviceConfig(peers=peers, **device))  # type: ignore[arg-type]

    def is_alive(self) -> None:
        """Check that the target's process has not ended."""
        health = self.instance.health()
        check(health.alive, "a target that is alive", health.detail)

    # The inner side.

    def inner_host(self, family: int) -> str:
        """The address of the target's host inside."""
        fixed = self.instance.fixed_peers
        if fixed and family == 4 and fixed[0].target_inner4:
            return fixed[0].target_inner4
        return "10.99.0.1" if family == 4 else "fd77:ffff::1"

    def packet(self, source: str, to: str, *, size: int = 0, tos: int = 0) -> Inner:
        """An inner packet with a fresh token."""
        if not source or not to:
            raise Unsupported("it does not report which inner addresses our peer has")
        source = str(ipaddress.ip_address(source))
        return packet(self.rng, source, to, size=size, tos=tos)

    async def inner_send(self, *packets: Inner) -> None:
        """Give the target packets to route."""
        self.need(Capability.INNER_OUT)
        for item in packets:
            self.note(f"inner packet to the target's host side, token {item.token.hex()}")
        await self.instance.inner_send([item.packet for item in packets])

    async def delivered(self, item: Inner, sent_at: float | None = None) -> bytes:
        """The target must deliver this packet inside; returns what came out."""
        self.need(Capability.INNER_IN)
        found = await self.instance.inner_find(lambda p: token_of(p) == item.token, REPLY)
        if found is None:
            raise Mismatch(f"the packet {item.token.hex()} delivered inside", "it was not")
        if sent_at is not None:
            self.measured(found.at - sent_at)
        return found.packet

    def times_delivered(self, item: Inner) -> int:
        """How often this packet came out so far."""
        return sum(1 for d in self.instance.delivered if token_of(d.packet) == item.token)

    async def not_delivered(self, items: Sequence[Inner], why: str, *, at_most: int = 0) -> None:
        """None of these may come out (more than `at_most` times), given time to."""
        self.need(Capability.INNER_IN)
        await self.advance(self.quiet())
        for item in items:
            times = self.times_delivered(item)
            check(
                times <= at_most,
                f"the packet {item.token.hex()} delivered at most {at_most} times ({why})",
                f"{times} times",
            )
