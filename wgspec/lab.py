"""What a case works with: its surroundings, and its own peers and ports.

Cases that share an instance have their own keys, ports and inner addresses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from wgspec.check import check
from wgspec.peer import NO_PSK, Peer
from wgspec.surroundings import Surroundings
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
from wgspec.wire import describe


class Lab(Surroundings):
    """Made by the runner for one case; `close` removes what the case added."""

    def __init__(self, instance: Instance, case_id: str, seed: int) -> None:
        super().__init__(instance, case_id, seed)
        self._ports: list[Port] = []
        self._added: list[bytes] = []
        self._fixed = list(instance.fixed_peers)

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
