"""Putting a target under load, as §5.3 calls it, and getting cookies out of it.

A burst of initiations that pass mac1 and nothing else fills the target's handshake queue;
the probe that follows it meets the load.  (Where only handshakes of a known peer count, the
burst repeats one of the probing peer.)  What counts as load is the target's choice: the
burst grows until a cookie is demanded.
"""

from __future__ import annotations

from wgspec import wire
from wgspec.cases.common import garbage_initiation
from wgspec.check import Mismatch, check
from wgspec.lab import Lab
from wgspec.noise import RIGHT, Handshake, Wrong
from wgspec.peer import Peer
from wgspec.target import Arrival, Capability, Port, Unsupported
from wgspec.wire import COOKIE_REPLY, RESPONSE, CookieReply

FIRST_BURST, MOST = 250, 6000
"""The first fits into a socket's usual 208 KiB, so that the probe after it is not lost."""
CHUNK, PAUSE = 125, 0.002
OF_A_PEER = 30
TRIES = 10
PROBES = 4
PROBE_WAIT = 1.5


class Pressure:
    """A source of load with a port of its own (on another address where there is one)."""

    def __init__(self, lab: Lab, port: Port) -> None:
        self.lab = lab
        self.port = port
        self.size = FIRST_BURST
        self._stock: list[bytes] = []
        self._peer: Peer | None = None
        self._clean = True  # no earlier probe of `demand` may still be answered

    @classmethod
    async def on(cls, lab: Lab) -> Pressure:
        """Ready to press; raises `Unsupported` when the target must not be loaded."""
        lab.need(Capability.LOAD)
        host = lab.instance.hosts - 1
        port = await lab.port(host=host)
        port.on_arrival = None  # thousands of replies are of no use in a transcript
        return cls(lab, port)

    async def press(self) -> None:
        """One burst."""
        if self.lab.instance.load_by_peers and self._peer is not None:
            self.lab.note(f"load: {OF_A_PEER} times one initiation of the peer")
            self.port.burst([self._peer.initiation().raw] * OF_A_PEER)
            return
        while len(self._stock) < self.size:
            self._stock.append(garbage_initiation(self.lab.rng, self.lab.target_public))
        self.lab.note(f"load: {self.size} initiations that only pass mac1")
        for start in range(0, self.size, CHUNK):
            if start:
                await self.lab.advance(PAUSE)
            self.port.burst(self._stock[start : min(start + CHUNK, self.size)])

    def replies(self) -> list[Arrival]:
        """What the burst was answered with, so far."""
        out = list(self.port.inbox)
        self.port.inbox.clear()
        return out

    async def relax(self) -> None:
        """Wait until the load is over (the state is held for a second)."""
        await self.lab.advance(1.0 + self.lab.slack + self.lab.quiet())

    async def demand(self, peer: Peer, wrong: Wrong = RIGHT) -> tuple[Handshake, Arrival]:
        """Under pressure, send an initiation; the reply to it.

        A burst that filled the target's socket may cost the probe: after a wait that is
        long even for a busy target, both are sent again.
        """
        self._peer = peer
        probes: dict[bytes, Handshake] = {}
        for _ in range(PROBES):
            await self.press()
            await peer.guard()
            sent = await peer.send_initiation(peer.initiation(wrong=wrong))
            probes[sent.sender.to_bytes(4, "little")] = sent
            got = await peer.arrival(max(PROBE_WAIT, self.lab.quiet()))
            if got is not None:
                self._clean = len(probes) == 1
                place = 4 if wire.kind(got.data) == COOKIE_REPLY else 8
                return probes.get(got.data[place : place + 4], sent), got
        raise Mismatch("a reply under load", "silence")

    async def cookie(self, peer: Peer, wrong: Wrong = RIGHT) -> bytes:
        """Press until an initiation of this peer is answered by a cookie reply; the cookie."""
        for tries in range(1, TRIES + 1):
            sent, got = await self.demand(peer, wrong)
            if not self._clean and tries < TRIES:
                # A slow target still answers earlier probes: let it end, then once more.
                await self.lab.advance(self.lab.quiet() + self.lab.slack)
                peer.drain()
            elif wire.kind(got.data) == COOKIE_REPLY:
                message = wire.parse(got.data)
                assert isinstance(message, CookieReply)
                check(
                    message.receiver == sent.sender,
                    f"receiver {sent.sender:08x}",
                    f"{message.receiver:08x}",
                )
                return peer.open_cookie(message, sent.mac1)
            check(
                wire.kind(got.data) in (RESPONSE, COOKIE_REPLY), "a cookie reply or a response",
                wire.describe(got.data),
            )  # fmt: skip
            if wire.kind(got.data) == COOKIE_REPLY:
                continue
            self.size = min(MOST, self.size * 3 // 2)
        raise Unsupported(f"bursts of {self.size} initiations did not put it under load")
