"""What a case sees: one instance, its own peers and ports, time, and the inner side.

Everything random comes from one generator seeded by the run's seed and the case's id.
Cases that share an instance have their own keys, ports and inner addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Sequence
from random import Random

from wgspec.check import Mismatch, check
from wgspec.inner import Inner, packet, token_of
from wgspec.peer import NO_PSK, REPLY, Peer
from wgspec.target import (
    Address,
    Arrival,
    Capability,
    DeviceConfig,
    Instance,
    PeerConfig,
    Port,
    Unsupported,
)
from wgspec.transcript import Transcript
from wgspec.wire import describe

QUIET_LEAST, QUIET_MOST = 0.3, 1.5


class Lab:
    """Made by the runner for one case; `close` removes what the case added."""

    def __init__(self, instance: Instance, case_id: str, seed: int) -> None:
        self.instance = instance
        self.rng = Random(f"{seed}:{case_id}")
        self.transcript = Transcript(start=instance.now())
        self.reports: list[str] = []
        self._ports: list[Port] = []
        self._added: list[bytes] = []
        self._fixed = list(instance.fixed_peers)
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

    # Ports and peers.

    async def port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:
        """A UDP socket of the tester, recorded in the transcript, closed at the end."""
        if family == 6:
            self.need(Capability.IPV6)
        if host:
            self.need(Capability.HOSTS)
        made = await self.instance.open_port(host=host, family=family, port=port)
        made.on_send = lambda at, data, source, to: self.transcript.datagram(
            at, True, data, source, to
        )
        made.on_arrival = self._arrived
        self._ports.append(made)
        return made

    def _arrived(self, arrival: Arrival) -> None:
        self.transcript.datagram(
            arrival.at, False, arrival.data, arrival.source, arrival.destination
        )

    async def peer(
        self,
        *,
        psk: bool = False,
        endpoint: bool = False,
        allowed: Sequence[str] | None = None,
        keepalive: int | None = None,
        host: int = 0,
        family: int = 4,
        configure: bool = True,
        private: bytes | None = None,
    ) -> Peer:
        """A new peer of the target with a port of its own.

        `endpoint` tells the target where we are (else it learns); `allowed` replaces the
        default of one IPv4 and one IPv6 address; without `configure` it stays unknown.
        """
        port = await self.port(host=host, family=family)
        if self.instance.fixed_peers and configure:
            return self._fixed_peer(port, endpoint or keepalive is not None or psk)
        made = Peer(
            self, port, private or self.rng.randbytes(32), self.rng.randbytes(32) if psk else NO_PSK
        )
        self.instance.peers_made += 1
        number = self.instance.peers_made
        made.inner4 = f"10.{100 + (number >> 8)}.{number & 255}.1"
        made.inner6 = f"fd77:{number:x}::1"
        if configure:
            await self.add(made, endpoint=endpoint, allowed=allowed, keepalive=keepalive)
        return made

    def _fixed_peer(self, port: Port, special: bool) -> Peer:
        if special or not self._fixed:
            raise Unsupported("its peers are fixed")
        fixed = self._fixed.pop(0)
        made = Peer(self, port, fixed.private_key, fixed.preshared_key)
        made.inner4, made.inner6 = fixed.inner4, fixed.inner6
        return made

    async def add(
        self,
        peer: Peer,
        *,
        endpoint: bool = False,
        allowed: Sequence[str] | None = None,
        keepalive: int | None = None,
    ) -> None:
        """Configure a peer on the target."""
        default = (f"{peer.inner4}/32", f"{peer.inner6}/128")
        self._added.append(peer.public)
        await self.configure(
            PeerConfig(
                peer.public,
                preshared_key=peer.psk if peer.psk != NO_PSK else None,
                endpoint=peer.address if endpoint else None,
                allowed_ips=tuple(default if allowed is None else allowed),
                keepalive=keepalive,
            )
        )

    def remember(self, public: bytes) -> None:
        """Remove this peer at the end, too."""
        self._added.append(public)

    async def moved(self, peer: Peer, *, host: int = 0, family: int = 4) -> Peer:
        """The same peer at another address (a new port), sharing nothing else of the wire."""
        port = await self.port(host=host, family=family)
        twin = Peer(self, port, peer.private, peer.psk)
        twin.inner4, twin.inner6 = peer.inner4, peer.inner6
        twin.cookie = peer.cookie
        return twin

    async def endpoint_of(self, peer: Peer) -> Address | None:
        """The peer's endpoint as the target knows it."""
        self.need(Capability.STATE)
        state = (await self.instance.state()).peer(peer.public)
        check(state is not None, "the peer in the target's state", "no such peer")
        assert state is not None
        return state.endpoint

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

    # The end.

    async def close(self) -> None:
        """Remove this case's peers and close its ports."""
        if self._added and Capability.CONFIGURE in self.instance.capabilities:
            changes = tuple(PeerConfig(key, remove=True) for key in set(self._added))
            with contextlib.suppress(Exception):
                await self.instance.apply(DeviceConfig(peers=changes))
        for port in self._ports:
            port.close()


def listed(arrivals: Sequence[Arrival]) -> str:
    """For messages: what these datagrams were."""
    return "; ".join(describe(a.data) for a in arrivals) or "nothing"
