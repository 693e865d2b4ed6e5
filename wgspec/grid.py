"""The interop grid: every target as initiator and as responder to every other.

Two real instances talk to each other through a relay of ours, which passes datagrams
unchanged between a port before each: each sees the other at a port of the relay, so that
one can be moved under the other (roaming) and one direction can be cut.  Their inner sides
are given packets and watched.  A cell has four steps:

* handshake: the initiator alone knows an endpoint; its first packet arrives;
* data: packets each way, all delivered, each once;
* roam: each end in turn appears at another address, and is answered there;
* rekey: the initiator hears nothing for 15 s and begins a new handshake (§6.2) under the
  old session; then both directions use the new one.  (That timer makes the same handshake
  as the one after 120 s, and is the soonest that all implementations have.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from wgspec.inner import Inner, packet, token_of
from wgspec.target import (
    Arrival,
    Capability,
    DeviceConfig,
    Instance,
    PeerConfig,
    Port,
    Rejected,
    Target,
    Unavailable,
    Unsupported,
)
from wgspec.wire import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT

PATIENCE = 15.0
"""Seconds that packets may take: a busy machine, or the first lost and sent again."""
REKEY_PATIENCE = 40.0
BATCH = 20
STEPS = ("handshake", "data", "roam", "rekey")
DEFAULT = ("wireguard-go", "wgpy", "microvm 6.1", "microvm 6.12", "boringtun")


class Broken(Exception):
    """A step that failed; the text says what was missing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination to try: names of targets, PSK or not, outer IP version."""

    initiator: str
    responder: str
    psk: bool
    family: int

    @property
    def variant(self) -> str:
        return f"IPv{self.family}{' PSK' if self.psk else ''}"


@dataclass
class Outcome:
    """How a cell ended: steps done, or the one that failed, or why it was not tried."""

    cell: Cell
    verdict: str = "PASS"
    done: list[str] = field(default_factory=list)
    failed: str = ""
    reason: str = ""
    packets: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "initiator": self.cell.initiator,
            "responder": self.cell.responder,
            "psk": self.cell.psk,
            "outer": f"IPv{self.cell.family}",
            "verdict": self.verdict,
            "steps": {s: self._step(s) for s in STEPS},
            "reason": self.reason,
            "packets_delivered": self.packets,
            "seconds": round(self.seconds, 1),
        }

    def _step(self, step: str) -> str:
        if step in self.done:
            return "PASS"
        return "FAIL" if step == self.failed else self.verdict if not self.done else "NOT RUN"


class Relay:
    """Passes datagrams between two instances; ports can move and a direction be cut."""

    def __init__(self, ends: tuple[Instance, Instance], family: int) -> None:
        self.ends = ends
        self.family = family
        self.facing: list[Port] = []
        self.seen: Counter[tuple[int, int]] = Counter()
        """(sending end, message type): how many."""
        self.receivers: list[set[bytes]] = [set(), set()]
        """Receiver indices of the data that each end sent since `forget`."""
        self.astray = [0, 0]
        """Datagrams that an end sent to a port its peer has moved away from."""
        self.cut: int | None = None
        """Whose datagrams are dropped, until the other end sends an initiation."""
        self._old: list[Port] = []

    async def open(self) -> None:
        """A port before each end."""
        self.facing = [await self._port(end, 0) for end in (0, 1)]

    async def _port(self, end: int, host: int) -> Port:
        instance = self.ends[end]
        port = await instance.open_port(host=min(host, instance.hosts - 1), family=self.family)
        port.on_arrival = lambda arrival: self._pass(end, port, arrival)
        return port

    def _pass(self, sender: int, port: Port, arrival: Arrival) -> None:
        port.inbox.clear()
        data = arrival.data
        kind = data[0] if data else 0
        self.seen[sender, kind] += 1
        if kind == TRANSPORT:
            self.receivers[sender].add(data[4:8])
        if port is not self.facing[sender]:
            self.astray[sender] += 1
        if self.cut == sender:
            return
        if self.cut == 1 - sender and kind == INITIATION:
            self.cut = None
        self.facing[1 - sender].send(data)

    async def move(self, end: int) -> None:
        """The peer of this end appears at another address (or at least port)."""
        self._old.append(self.facing[end])
        self.facing[end] = await self._port(end, len(self._old))
        self.astray[end] = 0

    def forget(self) -> None:
        """Forget the receiver indices collected so far."""
        self.receivers = [set(), set()]

    def close(self) -> None:
        for port in (*self.facing, *self._old):
            port.close()


class Trial:
    """One cell while it runs."""

    def __init__(self, cell: Cell, ends: tuple[Instance, Instance], relay: Relay) -> None:
        self.cell = cell
        self.ends = ends
        self.relay = relay
        self.rng = Random(str(cell))
        # Inner addresses of both; a target with fixed peers says which.
        fixed = next((end.fixed_peers[0] for end in ends if end.fixed_peers), None)
        self.inner4 = ["10.66.0.1", "10.66.0.2"]
        self.inner6 = ["fd66::1", "fd66::2"]
        if fixed is not None:
            there = 0 if ends[0].fixed_peers else 1
            self.inner4[there], self.inner4[1 - there] = fixed.target_inner4, fixed.inner4
            self.inner6[there], self.inner6[1 - there] = "fd77:ffff::1", fixed.inner6
        self.delivered = 0

    async def configure(self) -> None:
        """Each gets the other as its peer; the initiator alone gets an endpoint."""
        psk = self.rng.randbytes(32) if self.cell.psk else None
        for end in (0, 1):
            if Capability.CONFIGURE not in self.ends[end].capabilities:
                continue
            other = 1 - end
            peer = PeerConfig(
                self.ends[other].public_key,
                preshared_key=psk,
                endpoint=self.relay.facing[0].address if end == 0 else None,
                allowed_ips=(f"{self.inner4[other]}/32", f"{self.inner6[other]}/128"),
            )
            await self.ends[end].apply(DeviceConfig(peers=(peer,)))

    def packet(self, end: int, family: int) -> Inner:
        """A packet from the host of this end to the host of the other."""
        inner = self.inner4 if family == 4 else self.inner6
        return packet(self.rng, inner[end], inner[1 - end], size=100)

    async def carry(self, end: int, count: int, what: str) -> None:
        """Packets from this end (IPv4 and IPv6 in turn) come out of the other, each once."""
        made = [self.packet(end, 4 if i % 2 == 0 else 6) for i in range(count)]
        other = self.ends[1 - end]
        for start in range(0, count, BATCH):
            batch = made[start : start + BATCH]
            await self.ends[end].inner_send([item.packet for item in batch])
            wanted = {item.token for item in batch}
            complete = await other.wait(lambda w=wanted: _all_of(other, w), PATIENCE)  # type: ignore[misc]
            if complete is None:
                came = len(wanted & {token_of(d.packet) for d in other.delivered})
                missing = len(batch) - came
                raise Broken(f"{what}: {missing} of packets {start} to {start + len(batch)} lost")
        tokens = Counter(token_of(d.packet) for d in other.delivered)
        twice = sum(tokens[item.token] != 1 for item in made)
        if twice:
            raise Broken(f"{what}: {twice} packets were delivered more than once")
        self.delivered += count
        other.delivered.clear()

    # The steps.

    async def handshake(self) -> None:
        await self.carry(0, 1, "the first packet")
        seen = self.relay.seen
        if not seen[0, INITIATION] or not seen[1, RESPONSE]:
            raise Broken("a packet came through without a handshake of the initiator")
        if seen[1, INITIATION] or seen[0, COOKIE_REPLY] or seen[1, COOKIE_REPLY]:
            raise Broken(f"unexpected messages: {dict(seen)}")

    async def data(self, packets: int) -> None:
        await self.carry(0, packets, "initiator to responder")
        await self.carry(1, packets, "responder to initiator")

    async def roam(self) -> None:
        for end in (1, 0):
            # The peer of `end` speaks from a new address; then `end` answers there.
            await self.relay.move(end)
            await self.carry(1 - end, 5, "from the new address")
            self.relay.astray[end] = 0
            await self.carry(end, 5, "to the new address")
            if self.relay.astray[end]:
                raise Broken("answers went to the address before")

    async def rekey(self) -> None:
        relay = self.relay
        relay.forget()
        await self.carry(0, 1, "on the old session")
        old = set(relay.receivers[0])
        before = relay.seen[0, INITIATION]
        relay.cut = 1
        await self.carry(0, 1, "into silence")
        ends = self.ends
        began = await ends[0].wait(
            lambda: True if relay.seen[0, INITIATION] > before else None, REKEY_PATIENCE
        )
        relay.cut = None
        if began is None:
            raise Broken(f"no new handshake within {REKEY_PATIENCE:.0f} s of silence")
        responses = relay.seen[1, RESPONSE]
        await ends[0].wait(lambda: True if relay.seen[1, RESPONSE] > responses else None, 2.0)
        await ends[0].advance(0.5)
        relay.forget()
        await self.carry(0, 10, "on the new session")
        await self.carry(1, 10, "on the new session")
        if relay.receivers[0] & old:
            raise Broken("data went on under the old session")


def _all_of(instance: Instance, wanted: set[bytes]) -> bool | None:
    came = {token_of(d.packet) for d in instance.delivered}
    return True if wanted <= came else None


class Grid:
    """All cells among some targets."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        packets: int = 1000,
        jobs: int = 8,
        steps: Sequence[str] = STEPS,
        progress: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self.targets = {target.name: target for target in targets}
        self.packets = packets
        self.steps = steps
        self._gate = asyncio.Semaphore(jobs)
        self._progress = progress
        self._rng = Random()

    def cells(self) -> list[Cell]:
        """Every ordered pair of different targets, with and without PSK, IPv4 and IPv6."""
        names = list(self.targets)
        return [
            Cell(a, b, psk, family)
            for a in names
            for b in names
            if a != b
            for family in (4, 6)
            for psk in (False, True)
        ]

    async def run(self) -> list[Outcome]:
        """All outcomes; raises `Unavailable` when a target cannot be started at all."""
        opened: list[Target] = []
        try:
            for target in self.targets.values():
                if target.virtual:
                    raise Unavailable(f"{target.name} lives in virtual time: it cannot be paired")
                await target.open()
                opened.append(target)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._cell(cell)) for cell in self.cells()]
            return [task.result() for task in tasks]
        finally:
            for target in opened:
                await target.close()

    async def _cell(self, cell: Cell) -> Outcome:
        async with self._gate:
            outcome = Outcome(cell)
            loop = asyncio.get_running_loop()
            start = loop.time()
            try:
                await self._try(outcome)
            except Unsupported as error:
                outcome.verdict, outcome.reason = "UNSUPPORTED", str(error)
            except (Broken, Rejected, Unavailable, OSError, RuntimeError) as error:
                outcome.verdict, outcome.reason = "FAIL", str(error)
            outcome.seconds = loop.time() - start
            self._progress(outcome)
            return outcome

    async def _instances(self, cell: Cell) -> tuple[Instance, Instance]:
        """Both ends; one that comes with fixed peers decides who the other is."""
        targets = self.targets[cell.initiator], self.targets[cell.responder]
        keys = self._rng.randbytes(32), self._rng.randbytes(32)
        first = await targets[1].create(keys[1])
        if first.fixed_peers:
            keys = first.fixed_peers[0].private_key, keys[1]
        try:
            return await targets[0].create(keys[0]), first
        except BaseException:
            await first.stop()
            raise

    async def _try(self, outcome: Outcome) -> None:
        cell = outcome.cell
        ends = await self._instances(cell)
        relay = Relay(ends, cell.family)
        try:
            if Capability.CONFIGURE not in ends[0].capabilities:
                raise Unsupported(f"{cell.initiator} cannot be made to begin a handshake")
            if cell.psk and Capability.CONFIGURE not in ends[1].capabilities:
                raise Unsupported(f"{cell.responder} has no setting for a PSK")
            await relay.open()
            trial = Trial(cell, ends, relay)
            await trial.configure()
            for step in self.steps:
                outcome.failed = step
                await (trial.data(self.packets) if step == "data" else getattr(trial, step)())
                outcome.done.append(step)
                outcome.packets = trial.delivered
            outcome.failed = ""
        finally:
            relay.close()
            for end in ends:
                with contextlib.suppress(Exception):
                    await end.stop()
