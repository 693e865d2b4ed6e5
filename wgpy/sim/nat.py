"""A network address translator: many inside, one address outside.

Endpoint-independent mapping with address-and-port-dependent filtering (RFC 4787), the
common kind: what one inside socket sends always leaves from one outside port, and only
those it wrote to lately may answer.  A mapping dies after `timeout` without outgoing
traffic; the next packet then leaves from another port, which the far side sees as roaming.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from wgpy.protocol.constants import NS
from wgpy.protocol.endpoint import AddressBytes, Endpoint

_FIRST_PORT = 1024
_LAST_PORT = 65_535


@dataclass(slots=True)
class _Mapping:
    inside: Endpoint
    port: int
    used_at: int
    contacted: dict[Endpoint, int] = field(default_factory=dict)


class Nat:
    """Translates for everybody behind `outside`; times in ns."""

    __slots__ = ("_by_inside", "_by_port", "_random", "outside", "timeout")

    def __init__(self, outside: AddressBytes, random: Random, *, timeout: int = 60 * NS) -> None:
        self.outside = outside
        self.timeout = timeout
        self._random = random
        self._by_inside: dict[Endpoint, _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def leave(self, inside: Endpoint, remote: Endpoint, now: int) -> Endpoint:
        """The outside source of a datagram from `inside` to `remote`; makes the mapping."""
        mapping = self._by_inside.get(inside)
        if mapping is None or now - mapping.used_at >= self.timeout:
            mapping = self._map(inside, now)
        mapping.used_at = now
        mapping.contacted[remote] = now
        return Endpoint(self.outside, mapping.port)

    def enter(self, port: int, remote: Endpoint, now: int) -> Endpoint | None:
        """The inside destination of a datagram from `remote` to `port`, or None: dropped."""
        mapping = self._by_port.get(port)
        if mapping is None:
            return None
        contacted_at = mapping.contacted.get(remote)
        if contacted_at is None or now - contacted_at >= self.timeout:
            return None
        return mapping.inside

    def forget(self) -> None:
        """Lose every mapping, as a restart does: the next packet gets another port."""
        self._by_inside.clear()
        self._by_port.clear()

    def _map(self, inside: Endpoint, now: int) -> _Mapping:
        old = self._by_inside.pop(inside, None)
        if old is not None:
            del self._by_port[old.port]
        port = self._random.randint(_FIRST_PORT, _LAST_PORT)
        while port in self._by_port or (old is not None and port == old.port):
            port = self._random.randint(_FIRST_PORT, _LAST_PORT)
        mapping = _Mapping(inside, port, now)
        self._by_inside[inside] = self._by_port[port] = mapping
        return mapping
