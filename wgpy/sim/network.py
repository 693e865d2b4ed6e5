"""The outer network: who has which address, and the path of a datagram between two nodes.

Sender's uplink, sender's NAT, receiver's NAT, receiver's downlink.  The network
between the two access links is perfect; impairments are properties of a link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import AddressBytes, Endpoint
from wgpy.sim.clock import Scheduler
from wgpy.sim.link import Arrival, Fate, Pipe
from wgpy.sim.nat import Nat


class Host(Protocol):
    """What the network must know of a node."""

    @property
    def address(self) -> Endpoint: ...
    def deliver(self, datagram: Datagram) -> None: ...


@dataclass(slots=True)
class Access:
    """How one host is connected."""

    host: Host
    uplink: Pipe
    downlink: Pipe
    nat: Nat | None = None


Watcher = Callable[[Host, Fate, bytes, Endpoint], None]
"""Called for each fate that is not a plain delivery: host, fate, payload, destination."""


class Network:
    """All hosts; `fates` counts what became of every datagram."""

    def __init__(self, scheduler: Scheduler, watcher: Watcher | None = None) -> None:
        self.fates: Counter[Fate] = Counter()
        self._scheduler = scheduler
        self._watcher = watcher
        self._hosts: dict[Endpoint, Access] = {}
        self._nats: dict[AddressBytes, Nat] = {}
        self._behind: dict[tuple[int, Endpoint], Access] = {}

    def attach(self, access: Access) -> None:
        """Give a host its place; raises ValueError when its address is taken."""
        address = access.host.address
        if access.nat is None:
            if address in self._hosts or address.ip in self._nats:
                raise ValueError(f"{address} is taken")
            self._hosts[address] = access
            return
        self._nats[access.nat.outside] = access.nat
        self._behind[id(access.nat), address] = access

    def detach(self, access: Access) -> None:
        """Take a host off the network (to attach it elsewhere, or for good)."""
        address = access.host.address
        if access.nat is None:
            del self._hosts[address]
        else:
            del self._behind[id(access.nat), address]

    def host_at(self, address: Endpoint) -> Host | None:
        """Who has this address; nobody for an address behind or of a translator."""
        access = self._hosts.get(address.without_source())
        return None if access is None else access.host

    def send(self, access: Access, data: bytes, destination: Endpoint) -> None:
        """Put a datagram of `access.host` on its uplink."""
        now = self._scheduler.clock.monotonic()
        destination = destination.without_source()
        source = access.host.address
        for arrival in access.uplink.carry(data, len(destination.ip), now):
            self._note(access.host, arrival, destination)
            if arrival.at is not None:
                self._scheduler.at(
                    arrival.at, partial(self._cross, access, arrival.data, source, destination)
                )

    def _cross(self, sender: Access, data: bytes, source: Endpoint, to: Endpoint) -> None:
        """From the end of the uplink to the beginning of the downlink."""
        now = self._scheduler.clock.monotonic()
        if sender.nat is not None:
            source = sender.nat.leave(source, to, now)
        receiver = self._hosts.get(to)
        nat = self._nats.get(to.ip)
        if nat is not None:
            inside = nat.enter(to.port, source, now)
            if inside is None:
                self._note(sender.host, Arrival(Fate.NO_NAT_MAPPING, None, data), to)
                return
            receiver = self._behind.get((id(nat), inside))
        if receiver is None:
            self._note(sender.host, Arrival(Fate.NO_SUCH_ADDRESS, None, data), to)
            return
        for arrival in receiver.downlink.carry(data, len(to.ip), now):
            if arrival.at is None or arrival.fate is not Fate.DELIVERED:
                self._note(receiver.host, arrival, to)
            if arrival.at is not None:
                datagram = Datagram(arrival.data, source)
                self._scheduler.at(arrival.at, partial(self._arrive, receiver, datagram))

    def _arrive(self, receiver: Access, datagram: Datagram) -> None:
        self.fates[Fate.DELIVERED] += 1
        receiver.host.deliver(datagram)

    def _note(self, host: Host, arrival: Arrival, destination: Endpoint) -> None:
        if arrival.fate is Fate.DELIVERED:
            return
        self.fates[arrival.fate] += 1
        if self._watcher is not None:
            self._watcher(host, arrival.fate, arrival.data, destination)
